"""What changes a config: overrides, values read from files, composition and merging."""
