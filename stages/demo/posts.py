"""A generated corpus in files: posts in JSON lines, and their pictures."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

from numpy.random import Generator
from PIL import Image

from ...manifests.files import make_folder, write_text
from ...manifests.schemas import SPLITS, TASKS
from ..base.tools import Tools
from .scenes import stream
from .wording import Answer, Names, word_ner, word_re

__all__ = ["Draft", "write_corpus"]

Picture = TypeVar("Picture")


@dataclass(frozen=True)
class Draft(Generic[Picture]):
    """A post before it is worded.

    answers: of each mention, or of the pair.
    picture: what its picture shows; None: the picture is missing.
    named: whether the post names a picture at all.
    """

    answers: Sequence[Answer]
    picture: Picture | None
    named: bool = True


def write_corpus(
    folder: Path,
    task: str,
    *,
    name: str,
    seed: int,
    sizes: Mapping[str, int],
    draft: Callable[[str, int, Generator], list[Draft[Picture]]],
    draw: Callable[[Picture, Generator], Image.Image],
    names: Names,
    tools: Tools,
) -> None:
    """Write `<split>.jsonl` for every split in `sizes` (rows per split) and `images/*.jpg` to `folder`.

    task: "ner" (rows of id, tokens, tags, image, groups) or "re" (id, tokens, head, tail, relation, image,
    groups; head and tail are half-open word ranges). `image` is a file name in `images`. name: the corpus's,
    on which its random numbers depend. draft: returns so many posts of a task. draw: returns a picture.
    names: gives names to what the posts are about.

    The same arguments write the same bytes. Raises ValueError for another task or split.
    """
    if task not in TASKS:
        raise ValueError(f"no {name} corpus for the task {task!r}, expected one of {', '.join(TASKS)}")
    if unknown := set(sizes) - set(SPLITS):
        raise ValueError(f"unknown splits {sorted(unknown)}, expected some of {', '.join(SPLITS)}")
    images = folder / "images"
    make_folder(images)
    word = word_ner if task == "ner" else word_re
    drawn: set[bytes] = set()
    bar = tools.bar(sum(sizes.values()), f"drawing the {task} corpus", "sample")
    for split in SPLITS:
        if split not in sizes:
            continue
        words, pictures = (
            stream(f"{name} corpus: {task} {split} {part}", seed) for part in ("words", "pictures")
        )
        rows = []
        for number, post in enumerate(draft(task, sizes[split], words)):
            bar.update()
            row_id = f"{split}-{number:05d}"
            path = images / f"{row_id}.jpg"
            row = {"id": row_id, **word(post.answers, names, words)}
            row |= {"image": path.name} if post.named else {}
            rows.append({**row, "groups": [group for group, _ in post.answers]})
            if post.picture is None:
                # A picture left by another seed would make the missing one present.
                path.unlink(missing_ok=True)
                continue
            picture = draw(post.picture, pictures)
            content = hashlib.sha256(picture.tobytes()).digest()
            assert content not in drawn, "two streams gave the same scene"
            drawn.add(content)
            picture.save(path, quality=90)
        write_text(
            folder / f"{split}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        )
    bar.close()
