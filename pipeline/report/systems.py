"""The systems as a table: what each reads, its paper and published scores, and what is replaced."""

from collections.abc import Sequence

from ...stages.systems.published import DATA_SETS, PUBLISHED
from ...stages.systems.registry import SYSTEMS, SystemInfo
from .text import text_table

__all__ = ["systems_markdown", "systems_table"]

_HEAD = ("system", "task", "text", "image")


def systems_table(task: str = "") -> str:
    """Return the systems and what each reads, for a terminal. task: only those for this task."""
    infos = [info for info in SYSTEMS.values() if not task or task in info.tasks]
    return text_table(_HEAD, [_facts(info) for info in infos])


def systems_markdown() -> str:
    """Return the table of docs/systems.md."""
    head = [*_HEAD, "paper", "what is replaced", *(f"{name}, published F1" for name in DATA_SETS)]
    rows = [
        [f"`{info.name}`", *_facts(info)[1:], info.paper, info.replaces, *_published(info)]
        for info in SYSTEMS.values()
    ]
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(cell or '-' for cell in line)} |" for line in lines) + "\n"


def _facts(info: SystemInfo) -> list[str]:
    return [info.name, ", ".join(info.tasks), _text(info), _image(info)]


def _text(info: SystemInfo) -> str:
    return " + ".join([info.text, *(["dependencies"] if "dependencies" in info.graphs else [])])


def _image(info: SystemInfo) -> str:
    """Return what a system reads of an image."""
    objects = ["objects' labels and boxes"] if info.objects else []
    scenes = ["scene graph"] if "scenes" in info.graphs else []
    return " + ".join([*info.reads, *objects, *scenes]) or "nothing"


def _published(info: SystemInfo) -> Sequence[str]:
    found = PUBLISHED.get(info.name, {})
    return [f"{found[name].f1:.2f} ({found[name].source})" if name in found else "" for name in DATA_SETS]
