"""The scenes stage: what stands where in an image, and how its objects are related."""
