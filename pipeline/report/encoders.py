"""The types of text encoders as tables: those that take a visual prefix, and those that are refused."""

from dataclasses import asdict
from typing import Any

from ...stages.text.encoders.families import FAMILIES, REFUSED
from .text import text_table

__all__ = ["encoders_json", "encoders_markdown", "encoders_table"]

_TAKEN, _REFUSED = ("type", "for example", "note"), ("type", "refused, because")


def encoders_table() -> str:
    """Return both lists for a terminal."""
    return f"{text_table(_TAKEN, _taken())}\n\n{text_table(_REFUSED, _refused())}"


def encoders_markdown() -> str:
    """Return both tables of docs/encoders.md."""
    return f"{_markdown(_TAKEN, _taken())}\n{_markdown(_REFUSED, _refused())}"


def encoders_json() -> dict[str, Any]:
    """Return both lists as plain data."""
    keys = ("name", "example", "note")
    taken = [{key: asdict(family)[key] for key in keys} for family in FAMILIES.values()]
    return {"taken": taken, "refused": REFUSED}


def _taken() -> list[list[str]]:
    return [[family.name, family.example, family.note] for family in FAMILIES.values()]


def _refused() -> list[list[str]]:
    return [[name, reason] for name, reason in REFUSED.items()]


def _markdown(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([f"`{row[0]}`", *row[1:]] for row in rows)]
    return "".join(f"| {' | '.join(cell or '-' for cell in line)} |\n" for line in lines)
