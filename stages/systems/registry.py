"""The systems by the names that users type: what planning must know of one. Importing this needs no torch."""

from dataclasses import dataclass

from ...manifests.errors import InputError, unknown_name
from .variants import VARIANTS

__all__ = ["BACKBONE_FILE", "RELATION_HEADS", "SYSTEMS", "SystemInfo", "system_info", "system_is_visual"]

BACKBONE_FILE = "backbone.safetensors"
"""In the folder of a model that was trained from pixels: the weights of its backbone."""

RELATION_HEADS = ("markers", "cls")
BOTH_TASKS = ("ner", "re")


@dataclass(frozen=True)
class SystemInfo:
    """The facts of a system that are known without building it.

    tasks: what it can be trained for. reads: the feature sets that it reads, by name; none: text alone.
    build: where its class is, "module:class" in this folder, imported only when a model is built. text: how
    its texts are encoded.
    """

    name: str
    tasks: tuple[str, ...]
    reads: tuple[str, ...]
    build: str
    text: str = "subwords"

    @property
    def is_visual(self) -> bool:
        """Return whether the system reads images."""
        return bool(self.reads)


SYSTEMS: dict[str, SystemInfo] = {
    info.name: info
    for info in (
        *(SystemInfo(name, BOTH_TASKS, ("pyramid",), "hmnet:HMNeT") for name in VARIANTS),
        SystemInfo("bert-crf", ("ner",), (), "text_only:TextOnly"),
        SystemInfo("mtb", ("re",), (), "text_only:TextOnly"),
    )
}


def system_info(name: str) -> SystemInfo:
    """Return the facts of the system `name`. Raises InputError for an unknown one."""
    if name not in SYSTEMS:
        raise unknown_name("system", name, SYSTEMS)
    return SYSTEMS[name]


def system_is_visual(system: str, task: str) -> bool:
    """Return whether `system` reads images.

    Raises InputError for an unknown system or one made for the other task.
    """
    info = system_info(system)
    if task not in info.tasks:
        fitting = ", ".join(name for name, other in SYSTEMS.items() if task in other.tasks)
        raise InputError(f"system {system!r} is not one of those for task {task!r}: {fitting}")
    return info.is_visual
