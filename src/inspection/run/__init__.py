"""Reporting runs: what they were told, how they went, and what their best checkpoint does on pictures."""
