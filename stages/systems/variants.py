"""The variants of HMNeT, the paper's ablations and a control, as configurations of one module.

Importing this needs no torch.
"""

from dataclasses import dataclass

__all__ = ["VARIANTS", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One of the paper's ablations, or the control without objects, as a configuration of the same code.

    routing: "gate", the dynamic gate of equations 3 to 5; "flat", the last level in every layer; "blocks",
    level 1 in the first L/c layers, level 2 in the next L/c, and so on. last_layer_only: the other layers see
    text alone. views: what it looks at, "all", the whole "image" or its "objects", as feature sets name it.
    """

    routing: str = "gate"
    last_layer_only: bool = False
    views: str = "all"


VARIANTS = {
    "hmnet": Variant(),
    "hmnet-single": Variant(routing="flat", last_layer_only=True),
    "hmnet-flat": Variant(routing="flat"),
    "hmnet-1v3": Variant(routing="blocks"),
    "hmnet-onlyobj": Variant(views="objects"),
    "hmnet-onlyglobal": Variant(views="image"),
}
