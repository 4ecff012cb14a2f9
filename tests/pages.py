"""A page of HTML as a tree, to be asked what a reader of it is shown."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from html.parser import HTMLParser

__all__ = ["Element", "parsed"]

_VOID = {"meta", "br", "img", "input", "link", "hr"}


@dataclass
class Element:
    """An element: its children are elements and texts, in order."""

    name: str
    attributes: dict[str, str | None] = field(default_factory=dict)
    children: "list[Element | str]" = field(default_factory=list)

    @property
    def text(self) -> str:
        """Return all that is written in it, with single blanks."""
        parts = (child if isinstance(child, str) else child.text for child in self.children)
        return " ".join("".join(parts).split())

    def all(self, *names: str) -> "Iterator[Element]":
        """Yield the elements in it of these names (none: of any), in the order of the page."""
        for child in self.children:
            if isinstance(child, Element):
                if not names or child.name in names:
                    yield child
                yield from child.all(*names)

    def first(self, name: str, class_: str = "") -> "Element":
        """Return the first element in it of this name, and class."""
        classes = ((one, (one.attributes.get("class") or "").split()) for one in self.all(name))
        return next(one for one, found in classes if not class_ or class_ in found)

    def rows(self) -> list[list["Element"]]:
        """Return the cells of a table's body by rows."""
        return [list(row.all("th", "td")) for row in self.first("tbody").all("tr")]


class _Builder(HTMLParser):
    """Builds the tree; an element that is closed in the wrong place is an AssertionError."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.stack = [Element("")]

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        element = Element(tag, dict(attrs))
        assert len(element.attributes) == len(attrs), f"{tag} has an attribute twice: {attrs}"
        self.stack[-1].children.append(element)
        if tag not in _VOID:
            self.stack.append(element)

    def handle_endtag(self, tag: str) -> None:
        assert self.stack[-1].name == tag, f"</{tag}> closes <{self.stack[-1].name}> at {self.getpos()}"
        self.stack.pop()

    def handle_data(self, data: str) -> None:
        self.stack[-1].children.append(data)


def parsed(page: str) -> Element:
    """Return the tree of a page. Raises AssertionError where its elements are not closed as they opened."""
    builder = _Builder()
    builder.feed(page)
    builder.close()
    assert len(builder.stack) == 1, f"{builder.stack[-1].name} is never closed"
    return builder.stack[0]
