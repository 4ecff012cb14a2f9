"""Networks that turn pixels into maps of features."""
