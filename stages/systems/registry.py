"""The systems by the names that users type: the variants of HMNeT, and its text-only counterparts."""

from dataclasses import dataclass

from ...manifests.errors import InputError

__all__ = ["RELATION_HEADS", "SYSTEMS", "TEXT_ONLY", "VARIANTS", "Variant", "system_is_visual"]


@dataclass(frozen=True)
class Variant:
    """One of the paper's ablations, as a configuration of the same code.

    routing: "gate", the dynamic gate of equations 3 to 5; "flat", level 4 in every layer; "blocks", level 1 in the first L/c
    layers, level 2 in the next L/c, and so on. last_layer_only: the other layers see text alone. global_view: whether the whole
    image is a view.
    """

    routing: str = "gate"
    last_layer_only: bool = False
    global_view: bool = True


VARIANTS = {
    "hmnet": Variant(),
    "hmnet-single": Variant(routing="flat", last_layer_only=True),
    "hmnet-flat": Variant(routing="flat"),
    "hmnet-1v3": Variant(routing="blocks"),
    "hmnet-onlyobj": Variant(global_view=False),
}

TEXT_ONLY = {"bert-crf": "ner", "mtb": "re"}
SYSTEMS = (*VARIANTS, *TEXT_ONLY)
RELATION_HEADS = ("markers", "cls")


def system_is_visual(system: str, task: str) -> bool:
    """Whether `system` reads images. Raises InputError for an unknown system or one made for the other task."""
    if system in VARIANTS:
        return True
    if TEXT_ONLY.get(system) != task:
        fitting = ", ".join([*VARIANTS, *(name for name, made_for in TEXT_ONLY.items() if made_for == task)])
        raise InputError(f"system {system!r} is not one of those for task {task!r}: {fitting}")
    return False
