"""One training step as one compiled graph, and its optimizers."""
