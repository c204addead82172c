"""Packages a git repository: reads it without changing anything in it."""
