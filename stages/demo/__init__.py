"""The demonstration: a corpus that images decide, drawn by the project, and the trained networks that go with it."""

from pathlib import Path

__all__ = ["DEMO_WEIGHTS"]

DEMO_WEIGHTS = Path(__file__).parent / "demo_fasterrcnn.safetensors"
"""The detector's weights; the part under `backbone.body.` is the pyramid's ResNet. Made by `make demo-weights`."""
