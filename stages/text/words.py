"""How raw text becomes words, with their character offsets, by a rule that looks at the text alone."""

import unicodedata
from bisect import bisect_right

__all__ = ["WORD_RULES", "split_words"]

# "auto": white space and punctuation separate words, and in a script that is written without spaces each
# character is a word. "spaces": white space and punctuation alone. "characters": each character is a word.
WORD_RULES = ("auto", "spaces", "characters")

# The scripts written without spaces between words, as first and last code points. Python knows no scripts.
_SCRIPTS = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x1950, 0x19DF),  # Tai Le, New Tai Lue
    (0x1A20, 0x1AAF),  # Tai Tham
    (0x1B00, 0x1B7F),  # Balinese
    (0x3005, 0x3007),  # ideographic iteration mark and zero
    (0x3021, 0x312F),  # Hangzhou numerals, Hiragana, Katakana, Bopomofo
    (0x31A0, 0x31BF),  # Bopomofo
    (0x31F0, 0x31FF),  # Katakana
    (0x3400, 0x4DBF),  # Han
    (0x4E00, 0xA48F),  # Han, Yi
    (0xA980, 0xA9FF),  # Javanese, Myanmar
    (0xAA60, 0xAADF),  # Myanmar, Tai Viet
    (0xF900, 0xFAFF),  # Han
    (0xFF66, 0xFF9F),  # Katakana, half width
    (0x1AFF0, 0x1B16F),  # Kana
    (0x20000, 0x3FFFF),  # Han
)
_FIRST = [first for first, _ in _SCRIPTS]


def split_words(text: str, rule: str = "auto") -> list[tuple[int, int]]:
    """Return the words of `text`, by one of WORD_RULES, as half-open character ranges.

    White space separates words. Each punctuation mark or symbol (Unicode categories P and S, except "_") is a
    word of its own, and so is each character of a script without spaces, except by the rule "spaces".
    Whatever lies between is a word. Combining marks and format characters stay with the character before
    them, so that Indic words, and emoji with their modifiers, are whole.
    """
    words: list[tuple[int, int]] = []
    extendable = False  # by a letter; a mark extends any word that it touches
    for position, letter in enumerate(text):
        if letter.isspace():
            continue
        category = unicodedata.category(letter)
        is_mark = category[0] == "M" or category == "Cf"
        is_alone = (
            (category[0] in "PS" and letter != "_")
            or rule == "characters"
            or (rule == "auto" and _has_no_spaces(letter))
        )
        touches = bool(words) and words[-1][1] == position
        if touches and (is_mark or (extendable and not is_alone)):
            words[-1] = (words[-1][0], position + 1)
        else:
            words.append((position, position + 1))
            extendable = not is_alone
    return words


def _has_no_spaces(letter: str) -> bool:
    """Return whether the letter is of a script that is written without spaces between words."""
    code = ord(letter)
    index = bisect_right(_FIRST, code) - 1
    return index >= 0 and code <= _SCRIPTS[index][1]
