"""Plans: configs as JSON. Their forms, checks and building."""
