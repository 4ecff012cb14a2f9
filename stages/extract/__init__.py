"""The stage that computes the features of each image and its objects, once."""
