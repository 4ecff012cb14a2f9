"""Files of a word a line with its label: Twitter-2015 and Twitter-2017 as published, CoNLL, and their kin.

A tweet is a line `IMGID:<id>`, lines `token<TAB>label` and a blank line. Without images there are no such
first lines. A line `# image = <name>` names an image too, whatever its suffix, and other lines of that kind
are skipped. Columns may be parted by spaces, and there may be more of them than two.
"""

import re
from collections.abc import Set
from dataclasses import dataclass, field, replace

from ....manifests.fingerprint import digest_json
from ...text.written import DOCUMENT, IMAGE_HEADER, cells_of, header_of, is_comment, shorten
from .rows import IOB1, TYPES, Draft, Line, Reading, TextFile, is_tag, open_mentions, scheme_of

__all__ = ["marks_of", "read_twitter", "settle_columns"]

# Twitter-2015 calls OTHER what Twitter-2017 calls MISC; the literature scores them as one type.
_TYPES = {"PER": "PER", "LOC": "LOC", "ORG": "ORG", "MISC": "MISC", "OTHER": "MISC"}
_TYPE_ALONE = re.compile(r"[^\W\d_][\w./&-]*")


@dataclass
class _Tweet:
    line: Line
    image_id: str | None
    image: str | None = None
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest_json([self.tokens, self.tags])


def marks_of(file: TextFile, reading: Reading) -> set[tuple[str, bool]]:
    """Return each tag of a file, with whether it follows one of its own type."""
    return {
        (tag, tag != "O" and before[2:] == tag[2:])
        for tweet in _tweets(file, reading.column)
        for before, tag in zip(["O", *tweet.tags], tweet.tags, strict=False)
    }


def settle_columns(marks: Set[tuple[str, bool]], reading: Reading) -> Reading:
    """Return the reading with the scheme and the labels that the tags of all splits (`marks_of`) share.

    The types alone need an O beside them: a column of parts of speech has none.
    """
    distinct = {tag for tag, _ in marks}
    kinds = distinct - {"O"}
    if kinds < distinct and kinds and not any(map(is_tag, kinds)) and all(map(_TYPE_ALONE.fullmatch, kinds)):
        reading = replace(reading, scheme=TYPES)
        kinds = {f"B-{kind}" for kind in kinds}
    elif all(map(is_tag, kinds)) and _is_iob1({mark for mark in marks if mark[0] != "O"}):
        reading = replace(reading, scheme=IOB1)
    if reading.labels == "auto":
        known = all(tag[0] in "BI" and tag[1:2] == "-" and tag[2:] in _TYPES for tag in kinds)
        reading = replace(reading, labels="twitter" if known else "written")
    return reading


def _is_iob1(marks: Set[tuple[str, bool]]) -> bool:
    """Return whether each I- opens a mention or goes on with one, and each B- follows one of its own type.

    Some B- is needed: without any, the letters may have been lost.
    """
    return any(tag[0] == "B" for tag, _ in marks) and all(
        tag[0] == "I" or (tag[0] == "B" and follows) for tag, follows in marks
    )


def read_twitter(file: TextFile, reading: Reading) -> list[Draft]:
    """Return the tweets of one file; `reading.labels` is "twitter" or "written".

    The id is the image id, followed by a digest of words and tags where tweets share an image; without images
    it is a digest alone. Raises InputError that names the line.
    """
    tweets = _tweets(file, reading.column)
    for tweet in tweets:
        tweet.tags = [_checked(*each, reading) for each in zip(tweet.lines, tweet.tags, strict=True)]
    drafts = []
    for tweet in tweets:
        digest, image_id = tweet.digest, tweet.image_id
        tags, reasons = open_mentions(tweet.tags)
        drafts.append(
            Draft(
                line=tweet.line,
                name=digest[:12] if image_id is None else f"{image_id}-{digest[:8]}",
                alone=image_id or "",
                digest=digest,
                tokens=tweet.tokens,
                tags=tags,
                image=tweet.image,
                repairs=[]
                if reading.scheme
                else [(tweet.lines[index], reason) for index, reason in reasons.items()],
                converted=scheme_of(tweet.tags) or (reading.scheme if set(tweet.tags) != {"O"} else ""),
            )
        )
    return drafts


def _tweets(file: TextFile, column: int) -> list[_Tweet]:
    tweets: list[_Tweet] = []
    has_images = file.headed if file.headed is not None else any(map(header_of, file.lines))
    inside = False
    for number, text in file.numbered:
        line = Line(file, number)
        if header := header_of(text):
            image_id, image = header
            if not image_id and text.startswith(IMAGE_HEADER):
                raise line.error(
                    f'expected "{IMAGE_HEADER}<image id>", found no id; add it, or remove the tweet'
                )
            named = (line.text("IMGID", image_id), image) if image_id else (None, None)
            tweets.append(_Tweet(line, *named))
            inside = True
        elif is_comment(text):
            continue
        elif not text.strip() or text.split()[0] == DOCUMENT:
            inside = False
        else:
            token, tag = _word(line, text, column)
            if not inside:
                if has_images:
                    raise line.error(
                        f'expected "{IMAGE_HEADER}<image id>" before the first word of a tweet, '
                        f"found {shorten(text)}"
                    )
                tweets.append(_Tweet(line, None))
                inside = True
            tweets[-1].tokens.append(token)
            tweets[-1].tags.append(tag)
            tweets[-1].lines.append(line)
    for tweet in tweets:
        if not tweet.tokens:
            raise tweet.line.error(
                f"tweet {tweet.image_id} has no words; add its words below this line, or remove the line"
            )
    return tweets


def _word(line: Line, text: str, column: int) -> tuple[str, str]:
    """Return the word and its tag.

    A word of white space alone, such as U+00A0, is a word: dropping it would shift the published counts.
    """
    if text.lstrip().startswith(("{", "[{")) and text.rstrip().endswith(("}", "]")):
        raise line.error(
            "looks like JSON or MNRE, not like words with labels; "
            "give JSON the suffix .jsonl, and MNRE --task re"
        )
    cells = cells_of(text)
    if not cells[0] or len(cells) < 2:
        raise line.error(f'expected "token<TAB>label", found {shorten(text)}')
    if not column and len(cells) > 2:
        raise line.error(
            f"found {len(cells)} columns; say which holds the labels, such as --column {len(cells)} "
            f"for {shorten(cells[-1])}"
        )
    if column > len(cells):
        raise line.error(f"expected at least {column} columns, found {len(cells)}: {shorten(text)}")
    return cells[0], cells[(column or 2) - 1].strip()


def _checked(line: Line, label: str, reading: Reading) -> str:
    """Return a label as a tag, with the type that the literature scores where it is Twitter's."""
    tag = f"I-{label}" if reading.scheme == TYPES and label != "O" else label
    if not is_tag(tag):
        raise line.error(f"expected the label O, or B- or I- with a type, found {shorten(label)}")
    if tag == "O" or reading.labels != "twitter":
        return tag
    if tag[2:] not in _TYPES:
        raise line.error(
            f"expected the label O, or B- or I- with one of {', '.join(_TYPES)}, found {shorten(tag)}; "
            "give --labels written to take any"
        )
    return f"{tag[0]}-{_TYPES[tag[2:]]}"
