"""What became of the images of a visual stage: which have no result, why, and what follows for the stage.

A failure that depends on the moment is no result. Its row has the status "missed", the stage counts as
unfinished, and the next run tries the image again.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...manifests.errors import HmnetPipeError, StageError
from ...manifests.files import disk_error
from ...manifests.schemas import DONE, FAILED, MISSED
from .images import MissedImage, UnusableImage

if TYPE_CHECKING:
    import torch

__all__ = ["Failure", "Failures", "failure_of_one", "out_of_memory", "outcome"]

# How many reasons a summary names; a table has them all.
_NAMED = 5


@dataclass(frozen=True)
class Failure:
    """Why an image has no result.

    passing: whether the reason depends on the moment (the file is not there, was changed, is forbidden, took
    too long), so that the next run tries the image again.
    """

    reason: str
    passing: bool = False

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Return the failure that an error over one image is."""
        if isinstance(error, UnusableImage):
            return cls(str(error), isinstance(error, MissedImage))
        return cls(f"{type(error).__name__}: {' '.join(str(error).split())[:200]}")

    @property
    def status(self) -> str:
        return MISSED if self.passing else FAILED


def failure_of_one(error: Exception, device: torch.device) -> Failure:
    """Return the failure that an error over one image is, or raise it where the image is not at fault.

    Memory that runs out is for the cluster, which tries the image alone; a full disk is for the user; and a
    GPU that has failed once fails for every later image, until its process ends.
    """
    import torch

    if isinstance(error, HmnetPipeError) or out_of_memory(error) or disk_error(error) is not None:
        raise error
    torch.ones(1, device=device).add_(1).item()  # raises where the device no longer works
    return Failure.of(error)


def out_of_memory(error: BaseException) -> bool:
    """Return whether `error` says that memory ran out; torch has no type for a processor's."""
    import torch

    return isinstance(error, (MemoryError, torch.cuda.OutOfMemoryError)) or "DefaultCPUAllocator" in str(
        error
    )


def outcome(key: str, failure: Failure | None = None) -> dict[str, Any]:
    """Return the row of OUTCOMES of an image, with its failure if it has no result."""
    if failure is None:
        return {"image_key": key, "status": DONE, "reason": None}
    return {"image_key": key, "status": failure.status, "reason": failure.reason}


class Failures:
    """The images without a result, as a stage meets them, and whether the stage can go on without them."""

    def __init__(self, stage: str, images: int, *, all_may_fail: bool = False) -> None:
        """Start with none.

        images: how many images the stage has, whether or not they have results by now. all_may_fail: whether
        it can go on without one of them.
        """
        self._stage, self._images, self._all_may_fail = stage, images, all_may_fail
        self._all: dict[str, Failure] = {}
        self._missed = 0
        self._example: dict[str, str] = {}  # the first path of each reason

    def __len__(self) -> int:
        return len(self._all)

    def add(self, key: str, failure: Failure, path: str) -> None:
        """Note a failure. Raises StageError where most images cannot be read: then a folder is away."""
        self._all[key] = failure
        self._example.setdefault(failure.reason, path)
        self._missed += failure.passing
        if 2 * self._missed > self._images and not self._all_may_fail:
            raise StageError(
                f"{self._stage} stopped: most of its {self._images} images cannot be read now "
                f"({self._why(passing=True)}); bring them back, or run `hmnet-pipe prepare` if they are "
                "gone or changed for good, and run the same command again"
            )

    def check(self) -> None:
        """Raise StageError where not one image has a result."""
        if self._images and len(self._all) == self._images and not self._all_may_fail:
            raise StageError(f"{self._stage} failed for every one of its images ({self._why()})")

    def rows(self) -> Iterator[dict[str, Any]]:
        """Yield the row of OUTCOMES of each image without a result."""
        return (outcome(key, failure) for key, failure in self._all.items())

    def details(self, table: Path, again: str = "tried again by the next run") -> dict[str, Any]:
        """Return what a summary says about them.

        table: where their rows are. again: what becomes of those that could not be read at that moment.
        """
        if not self._all:
            return {}
        details: dict[str, Any] = {"failed because of": self._counts(), "rows of the failed": str(table)}
        if self._missed:
            details[again] = self._missed
        return details

    def _counts(self, *, passing: bool = False) -> dict[str, int]:
        """Return how many images each of the most frequent reasons has, and all the others together."""
        counts: dict[str, int] = {}
        for failure in self._all.values():
            if failure.passing >= passing:
                counts[failure.reason] = counts.get(failure.reason, 0) + 1
        ordered = sorted(counts.items(), key=lambda count: (-count[1], count[0]))
        others = sum(count for _, count in ordered[_NAMED:])
        return {**dict(islice(ordered, _NAMED)), **({"other reasons": others} if others else {})}

    def _why(self, *, passing: bool = False) -> str:
        counts = self._counts(passing=passing)
        reason = next(iter(counts))
        listed = ", ".join(f"{name}: {count}" for name, count in counts.items())
        return f"{listed}, such as {self._example[reason]}"
