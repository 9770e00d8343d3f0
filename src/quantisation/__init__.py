"""Quantisation of any network: fake quantisation in training, integer ONNX files, their report. Knows no model."""
