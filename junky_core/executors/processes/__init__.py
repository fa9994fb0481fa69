"""Slots that are processes of this machine."""
