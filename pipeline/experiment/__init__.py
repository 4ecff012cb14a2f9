"""Grids of trainings: what they name, what of it is done, and what came out."""
