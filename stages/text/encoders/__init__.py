"""Text encoders, each with its own reader of text."""
