"""How raw text becomes words, with their character offsets."""

import unicodedata
from collections.abc import Collection

__all__ = ["split_words"]


def split_words(text: str, cuts: Collection[int] = ()) -> list[tuple[int, int]]:
    """Return the words of `text` as half-open character ranges.

    White space separates words. Each punctuation mark or symbol (Unicode categories P and S, except "_") is a
    word of its own, and whatever lies between is a word. Combining marks and format characters stay with the
    character before them, so that Indic words, and emoji with their modifiers, are whole. Every offset in
    `cuts` ends a word, wherever it falls.
    """
    words: list[tuple[int, int]] = []
    extendable = False  # by a letter; a mark extends any word that it touches
    for position, letter in enumerate(text):
        if letter.isspace():
            continue
        category = unicodedata.category(letter)
        is_mark = category[0] == "M" or category == "Cf"
        is_symbol = category[0] in "PS" and letter != "_"
        touches = bool(words) and words[-1][1] == position and position not in cuts
        if touches and (is_mark or (extendable and not is_symbol)):
            words[-1] = (words[-1][0], position + 1)
        else:
            words.append((position, position + 1))
            extendable = not is_symbol
    return words
