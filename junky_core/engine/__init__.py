"""The one loop that runs every sweep: scheduler and sweep."""
