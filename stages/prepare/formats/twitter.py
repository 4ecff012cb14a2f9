"""Twitter-2015 and Twitter-2017 as published by Yu et al. (2020).

A tweet is a line `IMGID:<id>`, lines `token<TAB>label` and a blank line.
"""

from collections import Counter
from dataclasses import dataclass, field

from ....manifests.fingerprint import digest_json
from .rows import Draft, Line, TextFile, open_mentions, shorten

__all__ = ["read_twitter"]

# Twitter-2015 calls OTHER what Twitter-2017 calls MISC; the literature scores them as one type.
_TYPES = {"PER": "PER", "LOC": "LOC", "ORG": "ORG", "MISC": "MISC", "OTHER": "MISC"}
_HEADER = "IMGID:"


@dataclass
class _Tweet:
    line: Line
    image_id: str
    tokens: list[str] = field(default_factory=list)
    tags: list[str] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)

    @property
    def digest(self) -> str:
        return digest_json([self.tokens, self.tags])


def read_twitter(file: TextFile) -> list[Draft]:
    """Return the tweets of one file.

    The id is the image id, followed by a digest of words and tags where tweets share an image. Raises
    InputError that names the line.
    """
    tweets = _tweets(file)
    shared = Counter(tweet.image_id for tweet in tweets)
    drafts = []
    for tweet in tweets:
        digest = tweet.digest
        tags, reasons = open_mentions(tweet.tags)
        drafts.append(
            Draft(
                line=tweet.line,
                name=tweet.image_id if shared[tweet.image_id] == 1 else f"{tweet.image_id}-{digest[:8]}",
                digest=digest,
                tokens=tweet.tokens,
                tags=tags,
                image=f"{tweet.image_id}.jpg",
                repairs=[(tweet.lines[index], reason) for index, reason in reasons.items()],
            )
        )
    return drafts


def _tweets(file: TextFile) -> list[_Tweet]:
    tweets: list[_Tweet] = []
    inside = False
    for number, text in enumerate(file.lines, start=1):
        line = Line(file, number)
        if text.startswith(_HEADER) and "\t" not in text:
            if not (image_id := text.removeprefix(_HEADER).strip()):
                raise line.error(f'expected "{_HEADER}<image id>", found no id; add it, or remove the tweet')
            tweets.append(_Tweet(line, line.text("IMGID", image_id)))
            inside = True
        elif not text.strip(" "):
            inside = False
        else:
            token, tag = _word(line, text)
            if not inside:
                raise line.error(
                    f'expected "{_HEADER}<image id>" before the first word of a tweet, found {shorten(text)}'
                )
            tweets[-1].tokens.append(token)
            tweets[-1].tags.append(tag)
            tweets[-1].lines.append(line)
    for tweet in tweets:
        if not tweet.tokens:
            raise tweet.line.error(
                f"tweet {tweet.image_id} has no words; add its words below this line, or remove the line"
            )
    return tweets


def _word(line: Line, text: str) -> tuple[str, str]:
    """Return the word and its tag.

    A word of white space alone, such as U+00A0, is a word: dropping it would shift the published counts.
    """
    token, tab, label = text.partition("\t")
    if not token or not tab or "\t" in label:
        raise line.error(f'expected "token<TAB>label", found {shorten(text)}')
    label = label.strip()
    prefix, _, kind = label.partition("-")
    if label == "O":
        return token, label
    if prefix not in ("B", "I") or kind not in _TYPES:
        raise line.error(
            f"expected the label O, or B- or I- with one of {', '.join(_TYPES)}, found {shorten(label)}"
        )
    return token, f"{prefix}-{_TYPES[kind]}"
