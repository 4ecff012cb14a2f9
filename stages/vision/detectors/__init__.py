"""Networks that find objects in an image."""
