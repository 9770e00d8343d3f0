"""MobileNetV2 with quantisation-aware training; may import mobilenetv2."""
