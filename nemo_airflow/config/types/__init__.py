"""What Fiddle and Python know of a value: its graph, the annotation it has to fit, and whether it does."""
