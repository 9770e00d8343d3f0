"""Image classification: what every classifier needs beside its network."""
