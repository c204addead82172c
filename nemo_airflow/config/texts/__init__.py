"""YAML, read and written."""
