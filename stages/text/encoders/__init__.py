"""Text encoders, each with what reads text for it."""
