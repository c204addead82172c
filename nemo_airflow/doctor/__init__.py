"""Examines this machine and the back-ends for what jobs will need: each thing with the command that mends it."""
