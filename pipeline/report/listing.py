"""What `doctor` lists: encoders, detectors and backbones, those that are taken and those that are refused."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from textwrap import fill
from typing import Any

from ...stages.base.settings import HUB, TIMM
from ...stages.text.encoders.families import FAMILIES, REFUSED
from ...stages.vision import backbones
from ...stages.vision.backbones import families as eyes
from ...stages.vision.demo import DEMO_DETECTOR
from ...stages.vision.detectors import DETECTORS, families

__all__ = ["LISTINGS", "Listing"]

_STEPS = ("forward", "extract", "train step", "finetune step")
_OUTCOMES = ("ran", "refused")

# Of a line in a terminal, where names are not cut.
_WIDTH = 80
_WHOLE: dict[str, Any] = {"break_long_words": False, "break_on_hyphens": False}


@dataclass(frozen=True)
class Listing:
    """Tables, each with its head and rows, and the same as plain data."""

    tables: tuple[tuple[tuple[str, ...], list[list[str]]], ...]
    data: dict[str, Any]

    def text(self) -> str:
        """Return the tables for a terminal: a block of short lines for each row, as cells may be long."""
        return "\n\n".join("\n".join(_block(head, row) for row in rows) for head, rows in self.tables)

    def markdown(self) -> str:
        """Return the tables as they stand in docs/."""
        return "\n".join(_markdown(head, rows) for head, rows in self.tables)


def _encoders() -> Listing:
    """Return the types of encoders, with what the tests run of each: a step of training, or whole runs."""
    head = ("type", "for example", *_STEPS, "predict", "verify", "note")
    steps = ("forward", "extract", "train", "finetune", "predict", "verify")
    taken = [
        {
            "name": family.name,
            "example": family.example,
            **{step: "ran" if family.whole or step in ("forward", "train") else "" for step in steps},
            "note": family.note,
        }
        for family in FAMILIES.values()
    ]
    return Listing(
        ((head, [list(row.values()) for row in taken]), _refused(REFUSED)),
        {"taken": taken, "refused": REFUSED},
    )


def _detectors() -> Listing:
    own = [
        {
            "name": info.name,
            "example": "of the demonstration" if info.name == DEMO_DETECTOR else "torchvision, COCO",
            "computes": "fused, in bf16 where it is faster" if info.fused else "torch, fp32",
            "note": "",
        }
        for info in DETECTORS.values()
    ]
    others = [
        {
            "name": family.name,
            "example": f"{HUB}{family.example}",
            "computes": "torch, fp32",
            "note": family.note,
        }
        for family in families.FAMILIES.values()
    ]
    taken = [*own, *others]
    return Listing(
        (
            (("detector", "for example", "computes", "note"), [list(row.values()) for row in taken]),
            _refused(families.REFUSED),
        ),
        {"taken": taken, "refused": families.REFUSED},
    )


def _backbones() -> Listing:
    """Return the kinds of backbones, with what the tests run of each: all that is not refused."""
    head = ("kind", "for example", *_STEPS, "note")
    taken = [_eyes(family, _named(family), "ran", _computes(family)) for family in eyes.OF_TORCHVISION]
    for before, known in ((TIMM, eyes.OF_TIMM), (HUB, eyes.FAMILIES)):
        taken += [
            _eyes(f"{before}{each.name}", f"{before}{each.example}", "refused", each.note)
            for each in known.values()
        ]
    return Listing(
        ((head, [list(row.values()) for row in taken]), _refused(eyes.REFUSED)),
        {"taken": taken, "refused": eyes.REFUSED},
    )


def _eyes(name: str, example: str, finetunes: str, note: str) -> dict[str, str]:
    ran = {"forward": "ran", "extract": "ran", "train": "ran", "finetune": finetunes}
    return {"name": name, "example": example, **ran, "note": note}


def _named(family: str) -> str:
    return ", ".join(name for name in backbones.BACKBONES if name.startswith(family))


def _computes(family: str) -> str:
    fused = next(info.fused for name, info in backbones.BACKBONES.items() if name.startswith(family))
    return "fused, in bf16 where it is faster" if fused else ""


LISTINGS: Mapping[str, Callable[[], Listing]] = {
    "encoders": _encoders,
    "detectors": _detectors,
    "backbones": _backbones,
}
"""By the option of `doctor` that prints it. Its markdown stands in the page of docs/ with that name."""


def _refused(reasons: Mapping[str, str]) -> tuple[tuple[str, ...], list[list[str]]]:
    return ("type", "refused, because"), [[name, reason] for name, reason in reasons.items()]


def _block(head: tuple[str, ...], row: list[str]) -> str:
    """Return a row as its first cell and, below it, what its columns say, those of one outcome together."""
    said: dict[str, list[str]] = {}
    for name, cell in zip(head[1:], row[1:], strict=True):
        if cell in _OUTCOMES:
            said.setdefault(cell, []).append(name)
        elif cell:
            said[name] = [cell]
    facts = [
        fill(f"{name}: {', '.join(cells)}", _WIDTH, initial_indent="  ", subsequent_indent="    ", **_WHOLE)
        for name, cells in said.items()
    ]
    return "\n".join([row[0], *facts])


def _markdown(head: tuple[str, ...], rows: list[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *([f"`{row[0]}`", *row[1:]] for row in rows)]
    return "".join(f"| {' | '.join(cell or '-' for cell in line)} |\n" for line in lines)
