"""Files of a word a line with its label: Twitter-2015 and Twitter-2017 as published, CoNLL, and their kin.

A tweet is a line `IMGID:<id>`, lines `token<TAB>label` and a blank line. Without images there are no such
first lines. Columns may be parted by spaces, and there may be more of them than two.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from ....manifests.fingerprint import digest_json
from ...text.written import DOCUMENT, IMAGE_HEADER, cells_of, is_header, shorten
from .rows import Draft, Line, Reading, TextFile, is_converted, is_tag, open_mentions

__all__ = ["has_twitter_labels", "read_twitter"]

# Twitter-2015 calls OTHER what Twitter-2017 calls MISC; the literature scores them as one type.
_TYPES = {"PER": "PER", "LOC": "LOC", "ORG": "ORG", "MISC": "MISC", "OTHER": "MISC"}


@dataclass
class _Tweet:
    line: Line
    image_id: str | None
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest_json([self.tokens, self.tags])


def has_twitter_labels(files: Iterable[TextFile], column: int) -> bool:
    """Return whether all labels are those of Twitter-2015 and 2017."""
    return all(
        tag == "O" or (tag[0] in "BI" and tag[2:] in _TYPES)
        for file in files
        for tweet in _tweets(file, column)
        for tag in tweet.tags
    )


def read_twitter(file: TextFile, reading: Reading) -> list[Draft]:
    """Return the tweets of one file; `reading.labels` is "twitter" or "written".

    The id is the image id, followed by a digest of words and tags where tweets share an image; without images
    it is a digest alone. Raises InputError that names the line.
    """
    tweets = _tweets(file, reading.column)
    if reading.labels == "twitter":
        for tweet in tweets:
            tweet.tags = [_known(*each) for each in zip(tweet.lines, tweet.tags, strict=True)]
    shared = Counter(tweet.image_id for tweet in tweets)
    drafts = []
    for tweet in tweets:
        digest, image_id = tweet.digest, tweet.image_id
        tags, reasons = open_mentions(tweet.tags)
        if image_id is None:
            name = digest[:12]
        else:
            name = image_id if shared[image_id] == 1 else f"{image_id}-{digest[:8]}"
        drafts.append(
            Draft(
                line=tweet.line,
                name=name,
                digest=digest,
                tokens=tweet.tokens,
                tags=tags,
                image=None if image_id is None else f"{image_id}.jpg",
                repairs=[(tweet.lines[index], reason) for index, reason in reasons.items()],
                converted=is_converted(tweet.tags),
            )
        )
    return drafts


def _tweets(file: TextFile, column: int) -> list[_Tweet]:
    tweets: list[_Tweet] = []
    has_images = any(map(is_header, file.lines))
    inside = False
    for number, text in enumerate(file.lines, start=1):
        line = Line(file, number)
        if is_header(text):
            if not (image_id := text.removeprefix(IMAGE_HEADER).strip()):
                raise line.error(
                    f'expected "{IMAGE_HEADER}<image id>", found no id; add it, or remove the tweet'
                )
            tweets.append(_Tweet(line, line.text("IMGID", image_id)))
            inside = True
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
    label = cells[(column or 2) - 1].strip()
    if not is_tag(label):
        raise line.error(f"expected the label O, or B- or I- with a type, found {shorten(label)}")
    return cells[0], label


def _known(line: Line, tag: str) -> str:
    """Return a tag of Twitter-2015 or 2017 with the type that the literature scores."""
    if tag == "O":
        return tag
    if tag[2:] not in _TYPES:
        raise line.error(
            f"expected the label O, or B- or I- with one of {', '.join(_TYPES)}, found {shorten(tag)}; "
            "give --labels written to take any"
        )
    return f"{tag[0]}-{_TYPES[tag[2:]]}"
