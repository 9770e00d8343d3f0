"""Image classification, whatever the model: data, both trainings, evaluation, export."""
