"""How figures for a paper look: fonts are embedded, and the same figure is the same file."""

from typing import Any

__all__ = ["COLUMNS", "FIRST", "GREY", "LINES", "SECOND", "STYLE", "UNDATED"]

# Inches of a column and of two, as conferences of the field set them.
COLUMNS = {"one": 3.03, "two": 6.3}
FIRST, SECOND, GREY = "#0b5394", "#d98324", "#6b7280"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 7.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "axes.titlesize": 8,
    "axes.edgecolor": GREY,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "grid.color": "#d7dce2",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "pdf.fonttype": 42,  # TrueType, embedded: what submission systems ask for
    "svg.fonttype": "path",  # letters as outlines: they look the same wherever they are opened
    "svg.hashsalt": "hmnet-pipe",  # the same figure is the same file
    "text.parse_math": False,  # a name with two dollars is a name
    "axes.unicode_minus": True,
}
UNDATED: dict[str, dict[str, Any]] = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}
"""What of each format would hold the time of day."""

LINES = (
    {"color": FIRST, "marker": "o", "linestyle": "-"},
    {"color": SECOND, "marker": "s", "linestyle": "--"},
    {"color": GREY, "marker": "^", "linestyle": "-."},
    {"color": "#3b7d4f", "marker": "D", "linestyle": ":"},
    {"color": "#8e3b76", "marker": "v", "linestyle": "-"},
    {"color": "#000000", "marker": "P", "linestyle": "--"},
)
"""Of the lines of one figure, in turn: each differs by colour, mark and dashes."""
