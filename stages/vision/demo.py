"""What the demonstration's detector and backbone are, as far as it can be said without torch: names, categories, weights."""

from pathlib import Path

__all__ = ["DECIDING_KINDS", "DEMO_BACKBONE", "DEMO_DETECTOR", "DEMO_WEIGHTS", "DISTRACTORS", "KINDS"]

DEMO_DETECTOR = "demo_fasterrcnn"
DEMO_BACKBONE = "demo_resnet"
DEMO_WEIGHTS = Path(__file__).parent / "demo_fasterrcnn.safetensors"
"""The detector's weights; the part under `backbone.body.` is the pyramid's ResNet. Made by `make demo-weights`."""

# The kinds of objects that the networks tell apart: those that decide something in the corpus, and those that do not.
DECIDING_KINDS = ("person", "building", "logo", "trophy")
DISTRACTORS = ("tree", "ball")
KINDS = DECIDING_KINDS + DISTRACTORS
