"""Networks, recipes, resume, kernels, ranks, cache."""
