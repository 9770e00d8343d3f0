"""SegFormer in 8 bits: the quantised network, its calibration, its integer file."""
