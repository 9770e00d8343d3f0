"""Predictions of pictures, from a checkpoint or an exported file: class maps, and the pictures that are written."""
