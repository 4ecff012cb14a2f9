"""The scores of evaluations as they lie in a model's folder. Importing this needs no torch."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ...manifests.errors import StageError
from ...manifests.files import write_text

__all__ = ["Evaluation", "evaluation_name", "recorded_evaluations"]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a model.

    scores: as stages.learning.scores makes them. shuffled_images: dealt out at random.
    """

    system: str
    split: str
    shuffled_images: bool
    scores: dict[str, Any]

    def write(self, path: Path) -> None:
        """Write it to a file."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """Return the evaluation in a file. Raises StageError where there is none, or it is damaged."""
        try:
            return cls(**json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise StageError(f"{path} is missing; run `hmnet-pipe evaluate` first") from error
        except (ValueError, TypeError) as error:
            raise StageError(f"{path} is damaged ({error}); run `hmnet-pipe evaluate` again") from error


def evaluation_name(split: str, *, shuffled_images: bool, other_run: str | None = None) -> str:
    """Return how the files of an evaluation are called.

    other_run: the name of the run that lent the data, if any.
    """
    shuffled = "-shuffled" if shuffled_images else ""
    return f"{split}{shuffled}" + (f"-of-{other_run}" if other_run is not None else "")


def recorded_evaluations(folder: Path) -> Iterator[tuple[str, Evaluation]]:
    """Yield the evaluations of the model in `folder` by their names, in alphabetical order.

    Raises as `read` does.
    """
    for path in sorted(folder.glob("evaluation-*.json"), key=lambda path: path.stem):
        yield path.stem.removeprefix("evaluation-"), Evaluation.read(path)
