"""MobileNetV2: network, transforms, learning rate, loss, configuration."""
