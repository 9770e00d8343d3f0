"""SegFormer: semantic segmentation."""
