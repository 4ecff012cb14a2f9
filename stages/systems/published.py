"""The scores that were published, with their sources. They are never mixed with scores of runs.

Importing this needs no torch.
"""

from dataclasses import dataclass

__all__ = ["DATA_SETS", "PUBLISHED", "PUBLISHED_TRANSFER", "Published"]

DATA_SETS = ("Twitter-2015", "Twitter-2017", "MNRE-2")

_NOT_HARMONIC = "F1 is not the harmonic mean of the printed precision and recall"
_ROUNDING = 0.02  # what two digits after the point can make of it

# Where the numbers are printed. The text-only rows of the paper's Table 1 are copied from earlier papers.
_PAPER = "HMNeT, Table 1"
_YU = "Yu et al. 2020; HMNeT, Table 1"
_MEGA = "Zheng et al. 2021; HMNeT, Table 1"


@dataclass(frozen=True)
class Published:
    """Precision, recall and F1 in percent, as printed; F1 alone where no more was printed.

    note: what is known to be odd about the numbers; "": nothing.
    """

    f1: float
    precision: float | None
    recall: float | None
    source: str
    note: str = ""


def _rows(source: str, *numbers: tuple[float, float, float] | None, note: str = "") -> dict[str, Published]:
    """Return published scores by data set, in the order of DATA_SETS; None for one that was not scored."""

    def note_of(precision: float, recall: float, f1: float) -> str:
        off = abs(2 * precision * recall / (precision + recall) - f1)
        return "; ".join(filter(None, (note, _NOT_HARMONIC if off > _ROUNDING else "")))

    return {
        name: Published(three[2], three[0], three[1], source, note_of(*three))
        for name, three in zip(DATA_SETS, numbers, strict=True)
        if three is not None
    }


PUBLISHED: dict[str, dict[str, Published]] = {
    "cnn-bilstm-crf": _rows(_YU, (66.24, 68.09, 67.15), (80.00, 78.76, 79.37), None),
    "hbilstm-crf": _rows(_YU, (70.32, 68.05, 69.17), (82.69, 78.16, 80.37), None),
    "bert-crf": _rows(_YU, (69.22, 74.59, 71.81), (83.32, 83.57, 83.44), None),
    "adapcoatt-bert-crf": _rows(_YU, (69.87, 74.59, 72.15), (85.13, 83.20, 84.10), None),
    "ocsga": _rows(_PAPER, (74.71, 71.21, 72.92), None, None),
    "umt": _rows(_YU, (71.67, 75.23, 73.41), (85.28, 85.34, 85.31), None),
    "umgf": {
        **_rows(
            _PAPER,
            (74.49, 75.21, 74.85),
            (86.54, 84.50, 85.51),
            None,
            note="a listing of retractions names the paper; verify before citing it",
        ),
        "MNRE-2": Published(63.85, None, None, "HMNeT, Table 3"),
    },
    "visualbert": _rows(_PAPER, (68.84, 71.39, 70.09), (84.06, 85.39, 84.72), (63.25, 66.80, 65.00)),
    "pcnn": _rows(_MEGA, None, None, (62.85, 49.69, 55.49)),
    "mtb": _rows(_MEGA, None, None, (64.46, 57.81, 60.86)),
    "bert-sg": _rows(_MEGA, None, None, (62.95, 62.65, 62.80)),
    "mega": _rows(_MEGA, None, None, (64.51, 68.44, 66.41)),
    "hmnet-single": _rows(_PAPER, (72.61, 74.35, 73.48), (84.61, 84.42, 84.51), (78.30, 75.63, 76.94)),
    "hmnet-flat": _rows(_PAPER, (73.76, 75.32, 74.54), (84.43, 86.42, 85.41), (79.32, 78.20, 78.75)),
    "hmnet-1v3": _rows(_PAPER, (74.25, 75.45, 74.85), (85.42, 86.85, 86.13), (82.48, 80.16, 81.30)),
    "hmnet-onlyobj": _rows(_PAPER, (74.07, 76.23, 75.15), (85.58, 87.52, 86.55), (81.57, 80.94, 81.25)),
    "hmnet": _rows(_PAPER, (73.85, 78.23, 75.98), (85.84, 87.93, 86.87), (83.64, 80.78, 81.85)),
}
"""By system and data set."""

PUBLISHED_TRANSFER: dict[str, dict[str, Published]] = {
    system: {
        name: Published(f1, None, None, "HMNeT, Table 3", note)
        for name, f1 in (("MNRE-2", relations), ("Twitter-2017", entities))
    }
    for system, relations, entities, note in (
        ("umgf", 62.90, 84.35, ""),
        ("hmnet", 82.50, 87.13, "the gain on MNRE is printed as 0.75, and is 0.65"),
    )
}
"""By system and data set: trained from the model of Twitter-2017 for MNRE, and the other way round."""
