"""What every stage is: fields that make its fingerprint, and a computation that leaves digests behind."""

from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

from ...manifests.run import RunFolder
from .tools import SILENT, Counts, Tools

__all__ = ["Stage"]
Item = TypeVar("Item")


class Stage(ABC):
    """One job on one run. Subclasses are built from a RunFolder and their settings, and are cheap to build.

    The contract: equal `schema_version`, `parameters`, `inputs` and `weights` give equal `outputs`, whatever the number of workers,
    the order of work or how often the job was killed. `compute` may be called again after any interruption.
    """

    name: ClassVar[str]
    schema_version: ClassVar[int]
    run: RunFolder

    @abstractmethod
    def parameters(self) -> dict[str, Any]:
        """The settings that can change the result, as JSON values."""

    @abstractmethod
    def inputs(self, tools: Tools = SILENT) -> dict[str, str]:
        """A digest of each input's content. Raises StageError that names the command to run first where one is missing."""

    def weights(self) -> dict[str, str]:
        """The digest of each weights file used. Raises WeightsError where one cannot be had."""
        return {}

    @abstractmethod
    def outputs(self) -> dict[str, str]:
        """A digest of each output's content as it lies on disk now; an output that is missing is left out."""

    @abstractmethod
    def compute(self, tools: Tools) -> Counts:
        """Make the outputs, reusing whatever is still valid."""

    def finish(self) -> None:  # noqa: B027  (most stages leave nothing behind)
        """Remove what only a resumed `compute` would need; called once the stage's record is on disk."""
