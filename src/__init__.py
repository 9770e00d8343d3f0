"""The Python packages: a model per folder, and what they share."""
