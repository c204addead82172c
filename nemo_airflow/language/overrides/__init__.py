"""Overrides, ``model.hidden=64``: how they are read, written and applied."""
