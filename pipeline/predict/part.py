"""A part of a file of posts: the unit of work of the predict stage, whose lines can be told apart.

Where a worker dies over a part, its lines are halved until the one that it dies over is alone; that line has
an error, and the others their results.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import lru_cache
from itertools import islice
from pathlib import Path
from tempfile import gettempdir

from ...manifests.files import atomic_path, scratch_folder
from ...stages.predict.posts import Post
from ...stages.predict.results import PostImage, Result
from ...stages.text.limits import Span
from .predictor import PredictOptions, Predictor, nothing_in, samples_of

__all__ = ["Models", "Part", "give_up", "predict_part", "put_together"]


@dataclass(frozen=True)
class Models:
    """What a Predictor is opened from; see `Predictor.from_pretrained`."""

    model: str
    relations: str | None
    words: str
    detector_weights: str
    backbone_weights: str
    device: str
    precision: str
    options: PredictOptions
    boxes: str = ""

    def open(self) -> Predictor:
        return Predictor.from_pretrained(
            self.model,
            relations=self.relations,
            device=self.device,
            precision=self.precision,
            words=self.words,
            detector_weights=self.detector_weights,
            backbone_weights=self.backbone_weights,
            boxes=self.boxes,
            **asdict(self.options),
        )


@dataclass(frozen=True)
class Part:
    """The work of a part of the posts, or of some of its lines: from a file that has them to their results.

    posts: the file. size: the number of its lines. images: the folder of the runs in which all images are
    features. lines: the half-open range of those to work on; all but where one of them kills its worker.
    """

    models: Models
    posts: str
    size: int
    images: str
    lines: Span

    @property
    def device(self) -> str:
        return self.models.device

    @property
    def output(self) -> Path:
        """Return the file of the results."""
        first, last = self.lines
        name = "done" if len(self) == self.size else f"{first}-{last}"
        return Path(f"{self.posts.removesuffix('.posts.jsonl')}.{name}.jsonl")

    def __len__(self) -> int:
        return self.lines[1] - self.lines[0]

    def halves(self) -> tuple["Part", "Part"]:
        first, last = self.lines
        middle = (first + last) // 2
        return replace(self, lines=(first, middle)), replace(self, lines=(middle, last))


def predict_part(unit: Part) -> str:
    """Find what is in the posts of one part, commit it, and return its file. Idempotent."""
    if unit.output.exists():
        return str(unit.output)
    predictor = _opened(unit.models)
    lines = _lines(unit)
    posts, images = [line.post for line in lines], [line.image for line in lines]
    worded = [predictor.words_or_error(post) for post in posts]
    with scratch_folder(Path(gettempdir()), "texts") as scratch:
        texts = samples_of(worded, images)
        runs = [run.with_texts(scratch, texts) for run in predictor.runs(Path(unit.images))]
        found = predictor.over(posts, worded, images, runs)
    results = [
        replace(result, error=line.error or result.error) for line, result in zip(lines, found, strict=True)
    ]
    _commit(unit, lines, results)
    return str(unit.output)


@dataclass(frozen=True)
class _Line:
    """A line of a part's file: the line of the post in the user's, the post, and what became of its image."""

    number: int
    post: Post
    image: PostImage
    error: str = ""


def _lines(unit: Part) -> list[_Line]:
    found = []
    with Path(unit.posts).open(encoding="utf-8") as file:
        for text in islice(file, *unit.lines):
            values = json.loads(text)
            if "error" in values:
                post = Post(id=values.get("id"))  # parts of earlier versions say none
                found.append(_Line(values["line"], post, PostImage(), values["error"]))
                continue
            given = dict(values["post"])
            for name in {"head", "tail"} & given.keys():
                given[name] = tuple(given[name])
            image = PostImage(**values["image"], name=given.get("image"))
            found.append(_Line(values["line"], Post(**given), image))
    return found


def _commit(unit: Part, lines: Sequence[_Line], results: Sequence[Result]) -> None:
    """Write a part's results, each with the number of its line."""
    with atomic_path(unit.output) as temporary, temporary.open("w", encoding="utf-8") as file:
        for line, result in zip(lines, results, strict=True):
            file.write(json.dumps([line.number, result.to_json()]) + "\n")


def give_up(unit: Part, reason: str) -> None:
    """Write the results of lines over which their worker died."""
    error = f"it was given up: {reason}"
    lines = _lines(unit)
    _commit(unit, lines, [replace(nothing_in(line.post), image=line.image, error=error) for line in lines])


def put_together(whole: Part, pieces: Sequence[Part]) -> None:
    """Commit the results of a part that was worked on in pieces."""
    if whole.output.exists():
        return
    with atomic_path(whole.output) as temporary, temporary.open("wb") as file:
        for piece in sorted(pieces, key=lambda piece: piece.lines):
            file.write(piece.output.read_bytes())


@lru_cache(maxsize=1)
def _opened(models: Models) -> Predictor:
    """Return the models of a worker, opened once."""
    return models.open()
