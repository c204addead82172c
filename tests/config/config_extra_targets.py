"""Imported by one test only, which looks whether it was."""


class Sole:
    """Nothing but a name."""
