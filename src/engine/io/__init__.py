"""What is written and read again: run folders, checkpoints, foreign weights."""
