"""The variants of HMNeT, the paper's ablations, as configurations of one module.

Importing this needs no torch.
"""

from dataclasses import dataclass

__all__ = ["VARIANTS", "Variant"]


@dataclass(frozen=True)
class Variant:
    """One of the paper's ablations, as a configuration of the same code.

    routing: "gate", the dynamic gate of equations 3 to 5; "flat", level 4 in every layer; "blocks", level 1
    in the first L/c layers, level 2 in the next L/c, and so on. last_layer_only: the other layers see text
    alone. global_view: whether the whole image is a view.
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
