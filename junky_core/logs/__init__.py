"""The text log, written and read back."""
