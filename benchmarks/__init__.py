"""How fast, against whom: python -m benchmarks.cpu."""
