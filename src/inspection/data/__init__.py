"""Checking a data set as training will read it."""
