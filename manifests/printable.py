"""Text of data and paths on its way to people: what could steer a terminal, or forge a line, is escaped."""

import re
from collections.abc import Iterable, Sequence

__all__ = ["in_markdown", "markdown_table", "printable"]

# Control characters, among them escape sequences, carriage returns and line ends; the other line ends of
# Unicode; what changes the direction of writing; and the halves of characters that stand for bytes of a path
# that are not UTF-8.
_STEERING = re.compile("[\0-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

# An underscore inside a word is one.
_MEANS_SOMETHING = re.compile(r"([\\|`*~\[\]]|(?<!\w)_|_(?!\w))")


def printable(text: str, encoding: str = "utf-8") -> str:
    """Return `text` as one line that any terminal shows as it is, with escapes such as \\x1b and \\u202e.

    encoding: of the terminal; characters that it lacks are escaped too. The result is its own `printable`.
    """
    safe = _STEERING.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)
    return safe.encode(encoding, "backslashreplace").decode(encoding)


def in_markdown(text: str) -> str:
    """Return `text` as one line of Markdown, in a table or outside, that shows it as it is.

    Nothing in it is a tag, an entity, a link or emphasis, whatever the text holds.
    """
    shown = printable(text).replace("&", "&amp;").replace("<", "&lt;")
    return _MEANS_SOMETHING.sub(r"\\\1", shown)


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table of Markdown whose cells are shown as they are."""
    cells = [list(map(in_markdown, row)) for row in (head, *rows)]
    lines = [cells[0], ["---"] * len(head), *cells[1:]]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
