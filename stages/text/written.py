"""How texts are written in files: what the readers of labelled samples and of new posts share."""

import re
from pathlib import PurePosixPath
from typing import Any

__all__ = ["DOCUMENT", "IMAGE_HEADER", "cells_of", "header_of", "is_comment", "shorten", "unrepeated"]

IMAGE_HEADER = "IMGID:"
"""What begins the line before a tweet's words that names its image."""

DOCUMENT = "-DOCSTART-"
"""CoNLL-2003 has a line of this word, and dummy columns, between documents."""

_IMAGE_COMMENT = re.compile(r"#\s*image\s*=(.*)")
# What CoNLL-U and MultiCoNER have before a sentence. A word "#" is followed by a label, never by such a name.
_COMMENT = re.compile(r"#\s*\w+\s+=\s|# id \S+")


def shorten(value: Any) -> str:
    """Return `value` as Python writes it, cut to fit a one-line message."""
    try:
        text = repr(value)
    except ValueError:  # an integer with more digits than Python is willing to write
        text = type(value).__name__
    return text if len(text) <= 60 else f"{text[:57]}..."


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the pairs of a JSON object as a dictionary.

    Raises ValueError at a repeated key: json would keep the last one and drop the first silently.
    """
    record = dict(pairs)
    if len(record) < len(pairs):
        raise ValueError("the same key twice")
    return record


def header_of(text: str) -> tuple[str, str] | None:
    """Return the id and the image of the post that a line of a file of words begins, or None for other lines.

    `IMGID:7` names the image 7.jpg, and `# image = 7.png` names it whole. Both are empty where none is named;
    `# image =` says that there is none.
    """
    if "\t" in text:
        return None
    if text.startswith(IMAGE_HEADER):
        name = text.removeprefix(IMAGE_HEADER).strip()
        return name, name and f"{name}.jpg"
    if match := _IMAGE_COMMENT.fullmatch(text):
        name = match[1].strip()
        return PurePosixPath(name).stem, name
    return None


def is_comment(text: str) -> bool:
    """Return whether a line of a file of words is a comment, such as `# sent_id = 3`."""
    return "\t" not in text and _COMMENT.match(text) is not None


def cells_of(text: str) -> list[str]:
    """Return the columns of a line of a file of words, parted by tabs, or by spaces where it has no tab."""
    if "\t" in text:
        cells = text.split("\t")
        while len(cells) > 1 and not cells[-1].strip():  # a spreadsheet writes a tab after the last column
            cells.pop()
        return cells
    cells = text.split(" ")
    return [cells[0], *filter(None, cells[1:])]
