"""Batch schedulers over a shell: one driver for all, to which a scheduler is about a dozen pure functions on text."""
