"""A post, as people give it, and as words with their characters."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from operator import index
from typing import Any

from ...manifests.errors import InputError
from ..text.limits import Span
from ..text.words import split_words

__all__ = ["NoPost", "Post", "Words", "no_post", "rest_of", "words_of"]


@dataclass(frozen=True)
class Post:
    """A text with an image, or without.

    text or tokens: the text, or its words. image: a path, the bytes of an image file, or an image of Pillow.
    head, tail: for relations of a given pair, half-open ranges of characters of the text, or of words where
    there are words. more: whatever else it came with, which the result has too.
    """

    text: str | None = None
    tokens: Sequence[str] | None = None
    image: Any = None
    id: str | None = None
    head: Span | None = None
    tail: Span | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(cls, value: "str | Post | Mapping[str, Any]") -> "Post":
        """Return a post as it may be given. Raises InputError for anything else."""
        if isinstance(value, Post):
            return value
        if isinstance(value, str):
            return cls(value)
        if isinstance(value, Mapping):
            own = ("text", "tokens", "image", "id", "head", "tail")
            more = {name: one for name, one in value.items() if name not in own}
            return cls(**{name: value[name] for name in own if value.get(name) is not None}, more=more)
        raise no_post(value)


class NoPost(InputError):
    """What stands in the place of a post is none. id: what it is called all the same."""

    def __init__(self, message: str, id: str | None = None) -> None:
        super().__init__(message)
        self.id = id


def rest_of(error: InputError) -> Post:
    """Return what is known of a post that cannot be read: a post without words, with its id."""
    return Post(id=error.id if isinstance(error, NoPost) else None)


def no_post(value: object) -> InputError:
    """Return the error for what is no post."""
    return InputError(
        f"a post is a text, a Post, or a mapping with text or tokens, not {type(value).__name__}"
    )


@dataclass(frozen=True)
class Words:
    """The words of a post, with the half-open range of characters of each in `text`."""

    text: str
    tokens: list[str]
    offsets: list[Span]
    given: bool

    def covering(self, name: str, span: Span) -> Span:
        """Return the smallest range of words that covers a span of a post, as the post gives it.

        Raises InputError for a span that is not in the text, or that covers no word.
        """
        try:
            start, end = map(index, span)
        except (TypeError, ValueError) as error:
            raise InputError(f"{name} must be a start and an end, two numbers, found {span!r}") from error
        length = len(self.tokens) if self.given else len(self.text)
        if not 0 <= start < end <= length:
            unit = "words" if self.given else "characters"
            raise InputError(f"{name} {start, end} is no range of the text's {length} {unit}")
        if self.given:
            return start, end
        covered = [i for i, (first, last) in enumerate(self.offsets) if first < end and start < last]
        if not covered:
            raise InputError(f"{name} {start, end} covers white space only")
        return covered[0], covered[-1] + 1

    def part(self, span: Span) -> "Words":
        """Return a range of the words."""
        start, end = span
        return Words(self.text, self.tokens[start:end], self.offsets[start:end], self.given)

    def characters(self, span: Span) -> Span:
        """Return the range of characters of a range of words."""
        return self.offsets[span[0]][0], self.offsets[span[1] - 1][1]


def words_of(post: Post, rule: str) -> Words:
    """Return the words of a post, by the rule of the model where it was given as a text.

    Raises InputError, without the name of the post, where it has no words.
    """
    if post.tokens is not None:
        # A text is an iterable too, of letters.
        listed = isinstance(post.tokens, Iterable) and not isinstance(post.tokens, str | bytes)
        tokens = list(post.tokens) if listed else []
        # A word of white space alone, such as U+00A0, is one, as in the corpora; but not all of them.
        if not all(isinstance(token, str) and token for token in tokens) or not "".join(tokens).strip():
            raise InputError("its tokens are no list of words, none of them empty")
        _check(" ".join(tokens))
        ends = list(accumulate(len(token) + 1 for token in tokens))
        offsets = [(end - 1 - len(token), end - 1) for token, end in zip(tokens, ends, strict=True)]
        return Words(" ".join(tokens), tokens, offsets, given=True)
    if not isinstance(post.text, str):
        raise InputError("it has no text")
    _check(post.text)
    offsets = split_words(post.text, rule)
    if not offsets:
        raise InputError("its text is empty" if not post.text else "its text is white space only")
    return Words(post.text, [post.text[start:end] for start, end in offsets], offsets, given=False)


def _check(text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(
            f"its text holds half a character (a lone surrogate) at place {error.start}; write it in UTF-8"
        ) from error
