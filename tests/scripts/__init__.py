"""Launchers and bash scripts; no MindSpore needed."""
