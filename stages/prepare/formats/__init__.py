"""The formats of texts that can be read, one module each."""
