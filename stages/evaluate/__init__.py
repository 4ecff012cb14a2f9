"""Scores of a trained model, and what explains its predictions."""
