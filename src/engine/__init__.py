"""What every model needs: configuration, the life of a training, devices, reports. It knows no model."""
