"""The `hmnet-pipe` commands: thin wrappers over plain functions.

    hmnet-pipe prepare runs/x --preset twitter2015 --text TEXTS --images IMAGES
    hmnet-pipe detect runs/x
    hmnet-pipe extract runs/x
    hmnet-pipe train runs/x --system hmnet
    hmnet-pipe evaluate runs/x --system hmnet

Whatever only one command needs is imported when it runs, so that `--help` is quick.
"""

from . import (
    demo,
    experiment,
    exports,
    models,
    predict,
    repeats,
    report,
    runs,
    scores,
    serve,
    stages,
    training,
)
from .group import main

__all__ = [
    "demo",
    "experiment",
    "exports",
    "main",
    "models",
    "predict",
    "repeats",
    "report",
    "runs",
    "scores",
    "serve",
    "stages",
    "training",
]
