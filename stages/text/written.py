"""How texts are written in files: what the readers of labelled samples and of new posts share."""

from typing import Any

__all__ = ["DOCUMENT", "IMAGE_HEADER", "cells_of", "is_header", "shorten", "unrepeated"]

IMAGE_HEADER = "IMGID:"
"""What begins the line before a tweet's words that names its image."""

DOCUMENT = "-DOCSTART-"
"""CoNLL-2003 has a line of this word, and dummy columns, between documents."""


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


def is_header(text: str) -> bool:
    """Return whether a line of a file of words names an image."""
    return text.startswith(IMAGE_HEADER) and "\t" not in text


def cells_of(text: str) -> list[str]:
    """Return the columns of a line of a file of words, parted by tabs, or by spaces where it has no tab."""
    if "\t" in text:
        cells = text.split("\t")
        while len(cells) > 1 and not cells[-1].strip():  # a spreadsheet writes a tab after the last column
            cells.pop()
        return cells
    cells = text.split(" ")
    return [cells[0], *filter(None, cells[1:])]
