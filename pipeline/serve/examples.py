"""Test posts of the run that a model lies in, to be tried on the page."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from ...manifests.errors import HmnetPipeError
from ...manifests.run import RunFolder
from ...manifests.schemas import SAMPLES
from ...manifests.tables import read_table, usable_images
from ...stages.predict.posts import Post, Words, words_of
from ...stages.text.limits import Span
from ...stages.vision.images import UnusableImage, image_bytes
from ...stages.vision.signatures import format_of

__all__ = ["Example", "examples_of"]

_MOST = 24

# Bytes of an image: as many of them are in memory as there are connections that read slowly.
_MOST_BYTES = 5_000_000

# What a browser can show, by the first bytes of a file.
_SHOWN = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "GIF": "image/gif",
    "WEBP": "image/webp",
    "BMP": "image/bmp",
    "AVIF": "image/avif",
}


@dataclass(frozen=True)
class Example:
    """A post with its image's file. head, tail: the characters of the pair, in a run of relations."""

    text: str
    path: Path
    head: Span | None = None
    tail: Span | None = None

    def image(self) -> tuple[bytes, str]:
        """Return the bytes of the image and what they are. Raises UnusableImage where it is not there."""
        data = image_bytes(self.path)
        kind = _SHOWN.get(format_of(data[:64]) or "")
        if kind is None:
            raise UnusableImage("not an image that a browser shows")
        return data, kind

    def to_json(self, number: int) -> dict[str, Any]:
        pair = {"head": self.head, "tail": self.tail} if self.head is not None else {}
        return {"text": self.text, "image": f"/examples/{number}/image", **pair}


def examples_of(model: Path, most_bytes: int = _MOST_BYTES) -> list[Example]:
    """Return the first test posts of the run above a model's folder whose image can be shown.

    There is none where the model lies in no run, or where its tables are gone.
    """
    folder = next((each for each in model.resolve().parents if (each / "run.toml").is_file()), None)
    found: list[Example] = []
    if folder is not None:
        with suppress(HmnetPipeError, OSError):
            for example in _test_posts(RunFolder(folder)):
                with suppress(UnusableImage, OSError):
                    if example.path.stat().st_size <= most_bytes and example.image():
                        found.append(example)
                if len(found) == _MOST:
                    break
    return found


def _test_posts(run: RunFolder) -> Sequence[Example]:
    """Return the test posts with an image, those with something to be found."""
    images = usable_images(run.images)
    paths = dict(zip(images["key"].to_pylist(), images["path"].to_pylist(), strict=True))
    samples = read_table(run.samples, SAMPLES, "prepare")
    samples = samples.filter(pc.equal(samples["split"], "test"))
    return [
        _example(row, Path(paths[row["image_key"]]))
        for row in samples.slice(0, 50 * _MOST).to_pylist()
        if row["image_key"] in paths and (row["tags"] is None or any(tag != "O" for tag in row["tags"]))
    ]


def _example(row: dict[str, Any], path: Path) -> Example:
    if row["text"] is None or row["offsets"] is None:
        words = words_of(Post(tokens=row["tokens"]), "")
    else:
        words = Words(row["text"], row["tokens"], row["offsets"], given=False)
    head, tail = (None if row[end] is None else words.characters(row[end]) for end in ("head", "tail"))
    return Example(words.text, path, head, tail)
