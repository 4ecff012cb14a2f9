"""The stage that finds the objects of each image."""
