"""python -m src.launch: one or several devices."""
