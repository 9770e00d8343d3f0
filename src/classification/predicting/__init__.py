"""Predictions of images, from a checkpoint or an exported file: scores, contact sheets, comparisons."""
