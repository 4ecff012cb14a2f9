"""How raw text becomes words, with their character offsets: by a named rule that sees the text alone.

    space        white space alone separates words: for texts whose words stand apart already
    punctuation  white space and punctuation separate them
    simple       the same, and in a script that is written without spaces each character is a word
    tweet        as simple, but links, @names, #tags, &entities;, and words with a hyphen or apostrophe inside
                 are whole: the words of Twitter-2015, Twitter-2017 and MNRE
    characters   each character is a word

A run's rule follows from the setting `words` of [prepare] and the format of its texts (`rule_for`), or from
what prepare has recorded of both (`rule_of_record`).
"""

import re
import unicodedata
from bisect import bisect_right
from collections.abc import Mapping
from typing import Any

__all__ = [
    "AUTO",
    "WORD_RULES",
    "WORD_SETTINGS",
    "recorded_rule",
    "rule_for",
    "rule_of_record",
    "split_words",
]

WORD_RULES = ("space", "punctuation", "simple", "tweet", "characters")
"""The names of the rules."""

AUTO = "auto"
# Names that rules had before. Records keep them, so that no fingerprint moves.
_FORMER = {"spaces": "punctuation"}
WORD_SETTINGS = (AUTO, *WORD_RULES, *_FORMER)
"""What the setting `words` may be: a rule, its former name, or AUTO."""

_OF_TWEETS = ("twitter", "mnre")  # formats, whose texts come as words

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


def rule_for(words: str, format: str) -> str:
    """Return the rule, one of WORD_RULES, that the setting `words` stands for where texts have this format.

    AUTO is "tweet" for the formats of the published corpora of tweets, whose words were made like that, and
    "simple" for others.
    """
    if words == AUTO:
        return "tweet" if format in _OF_TWEETS else "simple"
    return _FORMER.get(words, words)


def recorded_rule(words: str, format: str) -> str:
    """Return the name under which the rule that `rule_for` returns is recorded: AUTO where it is AUTO's."""
    rule = rule_for(words, format)
    if rule == rule_for(AUTO, format):
        return AUTO
    return next((former for former, now in _FORMER.items() if now == rule), rule)


def rule_of_record(parameters: Mapping[str, Any]) -> str:
    """Return the rule, one of WORD_RULES, of the run whose prepare has recorded these parameters."""
    return rule_for(parameters.get("words", AUTO), parameters["format"])


def split_words(text: str, rule: str = "simple") -> list[tuple[int, int]]:
    """Return the words of `text`, by one of WORD_RULES, as half-open character ranges.

    Words are in the order of the text, hold no white space, and every other character is in exactly one of
    them. But for the rule "space": a word ends at each punctuation mark or symbol (Unicode categories P and
    S, except "_") that the rule does not name as part of one, and those are words of their own. Combining
    marks and format characters stay with the character before them, so that Indic words, and emoji with
    their variation selectors, are whole.
    """
    assert rule in WORD_RULES, rule
    if rule == "space":
        return [match.span() for match in _UNSPACED.finditer(text)]
    if rule == "tweet":
        return [match.span() for match in _TWEET.finditer(text.translate(_OUTLINE))]
    words: list[tuple[int, int]] = []
    extendable = False  # by a letter; a mark extends any word that it touches
    for position, letter in enumerate(text):
        if letter.isspace():
            continue
        category = unicodedata.category(letter)
        is_alone = (
            (category[0] in "PS" and letter != "_")
            or rule == "characters"
            or (rule == "simple" and _has_no_spaces(letter))
        )
        touches = bool(words) and words[-1][1] == position
        if touches and (_is_mark(category) or (extendable and not is_alone)):
            words[-1] = (words[-1][0], position + 1)
        else:
            words.append((position, position + 1))
            extendable = not is_alone
    return words


def _is_mark(category: str) -> bool:
    """Return whether a character of this Unicode category belongs to the one before it."""
    return category[0] == "M" or category == "Cf"


def _has_no_spaces(letter: str) -> bool:
    """Return whether the letter is of a script that is written without spaces between words."""
    code = ord(letter)
    index = bisect_right(_FIRST, code) - 1
    return index >= 0 and code <= _SCRIPTS[index][1]


# The rule "tweet" is a regular expression over the text's outline, a text of the same length in which each
# mark is _MARK and each character of a script without spaces is _ALONE: `re` knows neither of these classes.
_MARK, _ALONE = "\N{COMBINING ACUTE ACCENT}", "\ue000"  # the latter for private use, in no class of `re`
_JOINER, _KEYCAP = "\N{ZERO WIDTH JOINER}", "\N{COMBINING ENCLOSING KEYCAP}"
_SKIN_TONES = range(0x1F3FB, 0x1F400)


class _Outline(dict[int, int]):
    """Maps the code of a character to that of its outline, each worked out once."""

    def __missing__(self, code: int) -> int:
        letter = chr(code)
        if letter in (_JOINER, _KEYCAP):
            outline = letter
        elif _is_mark(unicodedata.category(letter)) or code in _SKIN_TONES:
            outline = _MARK
        else:
            outline = _ALONE if _has_no_spaces(letter) else letter
        self[code] = ord(outline)
        return self[code]


_OUTLINE = _Outline()
_UNSPACED = re.compile(r"\S+")

_MARKS = f"[{_MARK}{_JOINER}{_KEYCAP}]*"
_SCHEME = "https?://"
_LETTER = rf"(?:(?!{_SCHEME})[\w{_MARK}{_JOINER}{_KEYCAP}])"  # a link may stand right behind a word
_ELLIPSIS = r"(?:…|\.\.\.)"
_INNER = r"(?:[-‐‑'’׳״/]|(?<=\d)[.,:](?=\d))"  # of a word: well-known, don't, 6/10, 7:30pm, 1,000.50
_WORD = rf"{_LETTER}+(?:{_INNER}{_LETTER}+)*"
# What needs to look ahead for its end is bounded, so that the time stays linear whatever the text.
_LABEL = r"\w[\w-]{0,62}"
_DOMAIN = rf"{_LABEL}(?:\.{_LABEL}){{1,8}}"
_TWEET_PARTS = {
    "link": rf"(?:{_SCHEME}|www\.|{_DOMAIN}/)\S*(?:{_ELLIPSIS}|[^\s.,;:!?'\"’”»)\]}}>…])",
    "cut link": rf"h(?:t(?:t(?:p(?:s?:?/{{0,2}})?)?)?)?{_ELLIPSIS}|https?:/+",  # as retweets end: h… http:/…
    "rest of a link": r"//\w+",  # as the corpora have some: https : //t . co/Z3neVBQ7vF
    "site": rf"(?:{_LABEL}\.){{1,8}}(?:com|org|net|edu|gov)(?!{_LETTER})",
    "address": rf"[\w.+-]{{1,64}}@{_DOMAIN}",
    "keycap": rf"[0-9#*]{_MARK}?{_KEYCAP}",
    "name": r"[@＠]\w+",
    "tag": rf"[#＃](?:{_WORD}|{_ALONE})+",
    "stock": r"\$[A-Za-z]{1,6}(?!\w)",
    "entity": rf"&(?:\#?\w{{2,8}};|(?:amp|lt|gt|quot|apos|nbsp)(?!{_LETTER}))",
    "arrow": r"-+(?:>|&gt;?)|(?:<|&lt;?)-+",
    "with": rf"w/(?!{_LETTER})",
    "initials": rf"(?:[^\W\d_]\.){{1,8}}[^\W\d_]\.?(?!{_LETTER})",  # U.S. J.K.
    "clitic": rf"['’](?:s|m|re|ve|ll|d|t)(?!{_LETTER})",  # of texts in which they are words: he 's
    "word": _WORD,
    "run": r"([.*/|-])\1+",  # those that the corpora have; they split "!!" and "??"
    "flag": "[\N{REGIONAL INDICATOR SYMBOL LETTER A}-\N{REGIONAL INDICATOR SYMBOL LETTER Z}]{2}",
    "emoji, or any other mark": rf"\S(?:{_MARKS}{_JOINER}[^\w\s])*",
}
_TWEET = re.compile(f"(?:{'|'.join(_TWEET_PARTS.values())}){_MARKS}")
