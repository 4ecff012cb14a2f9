"""A run made again elsewhere, and compared with its lock."""
