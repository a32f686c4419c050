"""Pure functions on boxes and feature maps."""
