"""Comparison with PyTorch and other implementations."""
