"""From pixels to arrays: images, views, backbones and detectors."""
