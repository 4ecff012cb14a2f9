"""Which relation says that there is none between two arguments. Importing this needs no torch."""

from collections.abc import Iterable
from pathlib import Path

from ...manifests.schemas import SAMPLES
from ...manifests.tables import read_table

__all__ = ["NEGATIVE_NAMES", "NO_NEGATIVE", "negative_of", "negative_relation"]

NEGATIVE_NAMES = ("None", "none", "NA", "no_relation", "Other")
"""What published data call it; of several in one run, the first here is meant."""

NO_NEGATIVE = (
    "no relation of the data is known to say that there is none, so each one counts as found; if one of them "
    "says so, name it: negative in [prepare] of run.toml"
)


def negative_relation(relations: Iterable[str | None], given: str = "") -> str | None:
    """Return the relation that counts as nothing to find: the given one, or one that is known by its name.

    relations: those of the data. Return None where nothing is given and none is known.
    """
    there = set(relations)
    return given or next((name for name in NEGATIVE_NAMES if name in there), None)


def negative_of(samples: Path, given: str = "") -> str | None:
    """Return the `negative_relation` of a table of samples. Raises StageError as `read_table` does."""
    relations = read_table(samples, SAMPLES, "prepare", columns=["relation"]).column("relation")
    return negative_relation(relations.unique().to_pylist(), given)
