"""The scores of evaluations as a model's folder holds them. Importing this needs no torch."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from ...manifests.errors import StageError
from ...manifests.files import read_text, reason_of, write_text
from ...manifests.fingerprint import digest_file
from ...manifests.run import RunFolder
from ...manifests.schemas import MENTION_BOXES
from ...manifests.tables import table_digest
from ..learning.inputs import input_digests
from ..systems.registry import system_info

__all__ = ["Evaluation", "causes_of", "evaluation_name", "fresh_evaluation", "recorded_evaluations"]


@dataclass(frozen=True)
class Evaluation:
    """One evaluation of a model.

    scores: as stages.learning.scores makes them.
    shuffled_images: whether the images were dealt out at random. without_images: whether none was shown.
    made_from: what the scores follow from (see `causes_of`); empty where that is unknown.
    """

    system: str
    split: str
    shuffled_images: bool
    scores: dict[str, Any]
    made_from: dict[str, str] = field(default_factory=dict)
    without_images: bool = False

    def write(self, path: Path) -> None:
        """Write it to a file."""
        write_text(path, json.dumps(asdict(self), indent=2) + "\n")

    @classmethod
    def read(cls, path: Path) -> "Evaluation":
        """Return the evaluation in a file. Raises StageError where there is none, or it is damaged."""
        try:
            found = cls(**json.loads(read_text(path)))
            if not isinstance(found.scores, dict) or not isinstance(found.made_from, dict):
                raise TypeError("its scores or what they were made from are no table")
            return found
        except FileNotFoundError as error:
            raise StageError(f"{path} is missing; run `hmnet-pipe evaluate` first") from error
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise StageError(
                f"{path} is damaged ({reason_of(error)}); run `hmnet-pipe evaluate` again"
            ) from error


def causes_of(
    folder: Path, system: str, data: RunFolder, feature_set: str | None, precision: str, negative: str = ""
) -> dict[str, str]:
    """Return digests of what the scores of a model on the run `data` follow from, and the precision.

    folder: the model's. system: its name. feature_set: the one that it reads, or None. negative: the negative
    relation where run.toml names it; otherwise the samples say it. Raises StageError where something that it
    reads is missing.
    """
    read = input_digests(system_info(system), data, feature_set)
    given = {"negative": negative} if negative else {}
    boxes = {}
    if data.mention_boxes.is_file():  # grounding is compared with them
        boxes = {"mention_boxes": table_digest(data.mention_boxes, MENTION_BOXES, "prepare")}
    model = digest_file(folder / "model.safetensors")
    return {"model": model, "precision": precision, **given, **read, **boxes}


def fresh_evaluation(
    path: Path, made_from: Mapping[str, str], *, any_precision: bool = False
) -> Evaluation | None:
    """Return the evaluation in a file if it was made from `made_from`, and None otherwise.

    any_precision: whatever it was computed with.
    """
    try:
        found = Evaluation.read(path)
    except StageError:
        return None
    apart = {
        name for name in {*found.made_from, *made_from} if found.made_from.get(name) != made_from.get(name)
    }
    return found if apart <= ({"precision"} if any_precision else set()) else None


def evaluation_name(
    split: str, *, shuffled_images: bool = False, without_images: bool = False, other_run: str | None = None
) -> str:
    """Return the name of an evaluation's files.

    other_run: the name of the run that lent the data, if any.
    """
    images = "-shuffled" if shuffled_images else "-without-images" if without_images else ""
    return f"{split}{images}" + (f"-of-{other_run}" if other_run is not None else "")


def recorded_evaluations(folder: Path) -> Iterator[tuple[str, Evaluation]]:
    """Yield the evaluations of the model in `folder` by their names, in alphabetical order.

    Raises as `read` does.
    """
    for path in sorted(folder.glob("evaluation-*.json"), key=lambda path: path.stem):
        yield path.stem.removeprefix("evaluation-"), Evaluation.read(path)
