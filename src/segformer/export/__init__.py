"""Writing a SegFormer for deployment."""
