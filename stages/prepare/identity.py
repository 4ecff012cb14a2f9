"""Which data set this is: each split is recognised by the digest of its content, and counted as the paper's Table 5 counts.

A digest says nothing of where the files lie, of the order of their lines, of ids, or of which images are on this disk: it is over the
words, labels and image names of the samples alone, as every reader hands them on (OTHER read as MISC, orphan I- tags opened).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from ...manifests.fingerprint import canonical_json, digest_json
from .readers import SPLITS

__all__ = ["KNOWN_SPLITS", "UNKNOWN", "SplitIdentity", "compare_with_paper", "identify"]

UNKNOWN = "unknown version"

# The digest of each split that has been read from a published file, and what it is. Add yours: `prepare` and `lock` print the digest.
KNOWN_SPLITS: dict[str, str] = {
    "426dad5a82e79b457c5ef45f21881b47953e5ad307caa44060f62f622b7bf33a": "Twitter-2015 train as published by Yu et al. (2020)",
    "455283cc68084d1f623b9fc0d0f60fc636f33a1171cf63f24174152d9f37aa2c": "Twitter-2015 valid as published by Yu et al. (2020)",
    # What this project is developed with.
    "d56f4ae6e5bc34335319aa7b64882250c5cf0ddf29c5ef93049cbf897006d8ef": "a subset of Twitter-2015 train (5 tweets with their images)",
    "67cd8a6eb67c99485e35bdbe453993ecc2593f5eb349de90e4ee99375f7dff69": "a subset of Twitter-2015 valid (5 tweets with their images)",
    "0068316dfb6ab96dd99ccb0f9ea7af4165124b30f459a9fb2850e63caaa39bc4": "a subset of Twitter-2015 test (5 tweets with their images)",
    "c0a6f3b7409e7a66269784700b738d3a01207b90d65dd963cdc11e98f329170e": "a subset of MNRE-2 train (its first 2500 samples)",
    "cf729ce0beb82eea910b59ec15f338a28041b3166793570c0cf0bf9029602963": "a subset of MNRE-2 valid (its first 400 samples)",
}

_CONTENT = ("tokens", "tags", "head", "tail", "relation", "image")

# Table 5. For Twitter it counts the samples of each split; for MNRE all splits together, entities as two a sample.
_PAPER: dict[str, dict[str, int]] = {
    "twitter2015": {"train": 4000, "valid": 1000, "test": 3257},
    "twitter2017": {"train": 4290, "valid": 1432, "test": 1459},
    "mnre": {"sentences": 14796, "entities": 20178, "relations": 31, "images": 10089},
}
# Said where the counts differ from the paper's: they do for the releases that are in use.
_RELEASES = {
    "twitter2017": "the paper counts the corpus of Lu et al. (2018); the release of Yu et al. (2020), which later work uses, has 3373, 723 "
    "and 723 samples",
    "mnre": "the paper counts MNRE's first version; MNRE-2 has 15485 samples (12247, 1624 and 1614), 9201 images and 23 relations",
}


@dataclass(frozen=True)
class SplitIdentity:
    """The number of a split's samples and the digest of their content."""

    samples: int
    digest: str

    @property
    def known_as(self) -> str:
        return KNOWN_SPLITS.get(self.digest, UNKNOWN)

    def __str__(self) -> str:
        return f"{self.known_as} [{self.digest[:12]}]"


def identify(samples: Iterable[Mapping[str, Any]]) -> dict[str, SplitIdentity]:
    """The identity of each split in rows of manifests.tables.SAMPLES, in the order of SPLITS."""
    contents: dict[str, list[str]] = {}
    for sample in samples:
        contents.setdefault(sample["split"], []).append(canonical_json([sample[name] for name in _CONTENT]))
    return {split: SplitIdentity(len(contents[split]), digest_json(sorted(contents[split]))) for split in SPLITS if split in contents}


def compare_with_paper(preset: str, samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Lines for prepare's summary: the counts of the data set that `preset` names beside those of the paper's Table 5. Nothing for
    presets of no data set."""
    if (paper := _PAPER.get(preset)) is None:
        return {}
    counts = _counts(preset, list(samples))
    unit = "" if preset == "mnre" else " samples"
    lines = {name: f"{counts[name]}{unit} (paper: {number})" for name, number in paper.items()}
    release = {"note": _RELEASES[preset]} if counts != paper and preset in _RELEASES else {}
    return {"compared with the paper": lines, **release}


def _counts(preset: str, samples: list[Mapping[str, Any]]) -> dict[str, int]:
    if preset != "mnre":
        return {split: sum(sample["split"] == split for sample in samples) for split in _PAPER[preset]}
    return {
        "sentences": len({tuple(sample["tokens"]) for sample in samples}),
        "entities": 2 * len(samples),
        "relations": len({sample["relation"] for sample in samples}),
        "images": len({sample["image"] for sample in samples} - {None}),
    }
