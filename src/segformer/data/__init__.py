"""Images and their masks, and what the values of a mask mean."""
