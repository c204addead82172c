"""Programs that run in a job's pod, sent there as text. Standard library only, Python 3.9 or newer."""
