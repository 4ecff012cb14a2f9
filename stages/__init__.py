"""The stages of a run, and below them what they share; each room is a folder."""
