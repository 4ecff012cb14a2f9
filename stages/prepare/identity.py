"""Which data set this is: recognised by a digest of each split, and counted as in the paper's Table 5.

A digest covers only the words, labels and image names of the samples, as every reader returns them (OTHER
read as MISC, orphan I- tags opened). It does not depend on where the files are, the order of their lines,
ids, or which images are on this disk.
"""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from ...manifests.fingerprint import canonical_json
from ...manifests.schemas import SPLITS

__all__ = [
    "KNOWN_SPLITS",
    "UNKNOWN",
    "SplitIdentity",
    "compare_with_paper",
    "content_digest",
    "identify",
    "identity_of",
]

UNKNOWN = "unknown version"

# The digest of each split that has been read from a published file, and what it is. `prepare` and `lock`
# print the digest: add yours.
KNOWN_SPLITS: dict[str, str] = {
    "5a5ddd40104babe4c128fa053612f3a330a93883c144eb4871dbbef9353b382b": (
        "Twitter-2015 train as published by Yu et al. (2020)"
    ),
    "4fc45178d8951b0c7d2a881bba99073bba672b68fafa3469b7d927c798662f86": (
        "Twitter-2015 valid as published by Yu et al. (2020)"
    ),
    # What this project is developed with.
    "d43e4f64b44d43c7dfe6de868b10641eaa5ee5ea9cfbc8b450f76262440463f8": (
        "a subset of Twitter-2015 train (5 tweets with their images)"
    ),
    "9a180397dc8daa911fb29a2606ad6fd94a8dfaea82067d17e44dace05550a375": (
        "a subset of Twitter-2015 valid (5 tweets with their images)"
    ),
    "b29e5360d5a7b02b2b38a3af93d90f8e7a4669045bd0aada80aa5edeeb628bfe": (
        "a subset of Twitter-2015 test (5 tweets with their images)"
    ),
    "7b1449fa28e3b28e283c70f291ea30d08358bac82a661313e1b73dfbdd9c559b": (
        "a subset of MNRE-2 train (its first 2500 samples)"
    ),
    "6bb17b36ba7010b7775fe44e021ffed108f2ae1057cef5832243f4810ba192ed": (
        "a subset of MNRE-2 valid (its first 400 samples)"
    ),
}

_AT_ONCE = 2**16  # digests that are Python's objects at one time

_CONTENT = ("tokens", "tags", "head", "tail", "relation", "image")

# Table 5. For Twitter it counts the samples of each split; for MNRE it counts all splits together, with two
# entities per sample.
_PAPER: dict[str, dict[str, int]] = {
    "twitter2015": {"train": 4000, "valid": 1000, "test": 3257},
    "twitter2017": {"train": 4290, "valid": 1432, "test": 1459},
    "mnre": {"sentences": 14796, "entities": 20178, "relations": 31, "images": 10089},
}
# Printed where the counts differ from the paper's, as they do for the releases in use.
_RELEASES = {
    "twitter2017": (
        "the paper counts the corpus of Lu et al. (2018); the release of Yu et al. (2020), which later work "
        "uses, has 3373, 723 and 723 samples"
    ),
    "mnre": (
        "the paper counts MNRE's first version; MNRE-2 has 15485 samples (12247, 1624 and 1614), 9201 images "
        "and 23 relations"
    ),
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
    """Return the identity of each split in rows of manifests.schemas.SAMPLES, in the order of SPLITS."""
    digests: dict[str, list[bytes]] = {}
    for sample in samples:
        digests.setdefault(sample["split"], []).append(content_digest(sample))
    return {
        split: identity_of(pa.chunked_array([digests[split]], pa.binary(32)))
        for split in SPLITS
        if split in digests
    }


def content_digest(sample: Mapping[str, Any]) -> bytes:
    """Return the sha256 of what a sample says, whatever its id and place."""
    return hashlib.sha256(canonical_json([sample[name] for name in _CONTENT]).encode()).digest()


def identity_of(digests: pa.ChunkedArray) -> SplitIdentity:
    """Return the identity of a split of samples of these digests (`content_digest`), in any order.

    Its digest is that of the JSON of the list of their hexadecimal digits, in order, which is made in parts.
    """
    whole, mark = hashlib.sha256(), b"["
    digests = digests.take(pc.sort_indices(digests))
    for start in range(0, len(digests), _AT_ONCE):
        part = digests.slice(start, _AT_ONCE).to_pylist()
        whole.update(mark + b",".join(b'"%s"' % digest.hex().encode() for digest in part))
        mark = b","
    whole.update(b"]" if len(digests) else b"[]")
    return SplitIdentity(len(digests), whole.hexdigest())


def compare_with_paper(preset: str, samples: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Return lines for prepare's summary: the counts of the data set beside those of the paper's Table 5.

    Returns none where `preset` names no data set of the paper.
    """
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
