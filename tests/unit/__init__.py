"""What needs no MindSpore."""
