"""MNRE as published by Zheng et al. (2021), in both versions.

Each line is a Python literal: a sentence with a pair and its relation.
"""

import ast
import warnings
from pathlib import PurePosixPath
from typing import Any

from ....manifests.fingerprint import digest_json
from ...text.written import shorten
from .rows import Draft, Line, TextFile

__all__ = ["read_mnre"]

# The first version of MNRE writes the negative relation in lower case; the scores follow the second version.
_NEGATIVE = {"none": "None"}
_KEYS = ("token", "h", "t", "img_id", "relation")


def read_mnre(file: TextFile) -> list[Draft]:
    """Return the pairs of one file.

    The id is the image's stem and a digest of words, pair and relation, because many rows share an image. The
    `name` of an entity is ignored: it repeats the words of `pos`, and in the first version of MNRE not even
    exactly. Raises InputError that names the line.
    """
    with warnings.catch_warnings():
        # The parser would print a warning for each "\_" in a tweet.
        warnings.simplefilter("ignore")
        return [_draft(Line(file, number), text) for number, text in file.numbered if text.strip()]


def _draft(line: Line, text: str) -> Draft:
    record = _literal(line, text)
    tokens = line.tokens("token", record["token"])
    head, tail = (
        line.span(f"{key} pos", _position(line, key, record[key]), len(tokens), "words") for key in ("h", "t")
    )
    written = line.text("relation", record["relation"])
    relation = _NEGATIVE.get(written, written)
    # The first version writes some names as numbers, without a suffix.
    image = line.name("img_id", record["img_id"])
    digest = digest_json([tokens, head, tail, relation])
    return Draft(
        line=line,
        name=f"{PurePosixPath(image).stem}-{digest[:8]}",
        digest=digest,
        tokens=tokens,
        head=head,
        tail=tail,
        relation=relation,
        image=image,
        repairs=[]
        if relation == written
        else [(line, f"relation {written} is the negative relation, read as {relation}")],
    )


def _literal(line: Line, text: str) -> dict[str, Any]:
    """Return the dictionary that the line writes.

    ast.literal_eval only parses and never evaluates, but it fails with many kinds of errors.
    """
    try:
        record = ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError) as error:
        if text.startswith("IMGID:") or "\t" in text:
            raise line.error(
                "looks like words with labels, which are for entities; give --task ner"
            ) from error
        raise line.error(
            f"expected a Python literal {{'token': [...], ...}}, found {shorten(text)}"
        ) from error
    if isinstance(record, dict) and set(_KEYS) - record.keys() == {"img_id"}:
        raise line.error(
            "'img_id' is missing, as in OpenNRE's format; give --format opennre for relations without images"
        )
    if not isinstance(record, dict) or not set(_KEYS) <= record.keys():
        raise line.error(f"expected a dictionary with the keys {', '.join(_KEYS)}, found {shorten(text)}")
    return record


def _position(line: Line, key: str, entity: Any) -> Any:
    if not isinstance(entity, dict) or "pos" not in entity:
        line.fail(key, "a dictionary with the key 'pos'", entity)
    return entity["pos"]
