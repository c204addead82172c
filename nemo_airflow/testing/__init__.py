"""For those who write an executor: the suite that every one of them passes."""
