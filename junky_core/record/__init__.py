"""The sweep's folder: lock, journal, and what they add up to."""
