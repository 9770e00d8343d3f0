"""A classifier of its own, which test_toy_classifier.py puts beside the others."""
