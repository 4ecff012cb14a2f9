"""The demonstration's detector and backbone, described without torch: names, sizes, weights."""

from pathlib import Path

__all__ = [
    "DECIDING_KINDS",
    "DEMO_BACKBONE",
    "DEMO_DETECTOR",
    "DEMO_LEVELS",
    "DEMO_WEIGHTS",
    "DISTRACTORS",
    "KINDS",
]

DEMO_DETECTOR = "demo_fasterrcnn"
DEMO_BACKBONE = "demo_resnet"
DEMO_WEIGHTS = Path(__file__).parent / "demo_fasterrcnn.safetensors"
"""The detector's weights; the part under `backbone.body.` is the pyramid's ResNet.

Made by `make demo-weights`.
"""

DEMO_LEVELS = (24, 48, 96, 192)
"""Channels of the ResNet's stages, from fine to coarse."""

# The kinds of objects that the networks distinguish: those that decide something in the corpus, and the
# others.
DECIDING_KINDS = ("person", "building", "logo", "trophy")
DISTRACTORS = ("tree", "ball")
KINDS = DECIDING_KINDS + DISTRACTORS
