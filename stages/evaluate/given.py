"""Predictions of others on a split of a run, from JSON lines, scored as a model's own are."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from ...manifests.errors import InputError
from ...manifests.files import read_text, reason_of
from ...manifests.schemas import PREDICTIONS, SAMPLES
from ...manifests.tables import read_table, table_of
from ..learning.negative import negative_relation
from ..learning.predictions import score_split
from ..learning.splits import Split, read_split

__all__ = ["score_given"]

_TAG = re.compile(r"O|[BI]-\S+")
_REMEDY = (
    "give one line for each sample of the split, in any order with its id, or all in the order of the split"
)
_MOST_BYTES = 2**30


def score_given(
    path: Path, samples: Path, split: str, *, task: str, negative: str = ""
) -> tuple[dict[str, Any], pa.Table]:
    """Return the scores of the predictions in `path`, and their table (manifests.schemas.PREDICTIONS).

    samples: the run's table. A line is a JSON object with `id` and, for entities, `tags`, one for each word,
    or `entities`, each with `type`, `start` and `end` in words (half-open), or as `hmnet-pipe predict`
    writes them; for relations `relation`. Lines without ids are in the order of the split. Raises InputError,
    which names file and line, for anything else, and where a sample has no prediction or two.
    """
    table = read_table(samples, SAMPLES, "prepare")
    gold = read_split(table, split, task=task)
    if not len(gold):
        raise InputError(f"{samples} holds no {split} split; choose another with --split")
    predicted = _predicted(path, gold, task)
    known = negative_relation(table.column("relation").unique().to_pylist(), negative)
    scores = score_split(gold, predicted, task, known)
    rows = zip(gold.ids, gold.tokens, gold.gold, predicted, gold.image_keys, strict=True)
    names = ("id", "tokens", "gold", "predicted", "has_image")
    return scores, table_of(
        PREDICTIONS,
        ({**dict(zip(names, (*row, key is not None), strict=True)), "split": split} for *row, key in rows),
    )


def _predicted(path: Path, gold: Split, task: str) -> list[list[str]]:
    """Return the labels of each sample, in the order of the split."""
    numbers = {id_: number for number, id_ in enumerate(gold.ids)}
    found: dict[int, list[str]] = {}
    lines = list(_lines(path))
    named = sum("id" in values for _, values in lines)
    if named not in (0, len(lines)):
        raise InputError(f"{path}: {named} of {len(lines)} lines have an id; {_REMEDY}")
    if not named and len(lines) != len(gold):
        raise InputError(
            f"{path} has {len(lines)} lines without ids, and the split {gold.name} {len(gold)} samples; "
            f"{_REMEDY}"
        )
    for order, (where, values) in enumerate(lines):
        number = numbers.get(values["id"]) if named else order
        if number is None:
            raise InputError(f"{where}: the split {gold.name} has no sample {values['id']!r}; {_REMEDY}")
        if number in found:
            raise InputError(f"{where}: {values['id']!r} has a prediction already; {_REMEDY}")
        read = _tags if task == "ner" else _relation
        found[number] = read(where, values, gold.tokens[number])
    if missing := [id_ for number, id_ in enumerate(gold.ids) if number not in found]:
        raise InputError(
            f"{path} holds no prediction of {len(missing)} samples of {gold.name} ({missing[0]}, ...); "
            f"{_REMEDY}"
        )
    return [found[number] for number in range(len(gold))]


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each line that is not empty as a JSON object, with its place."""
    try:
        text = read_text(path, _MOST_BYTES)
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({reason_of(error)}); give a file of JSON lines") from error
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path}, line {number}"
        try:
            values = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where} is not JSON ({reason_of(error)}); {_REMEDY}") from error
        if not isinstance(values, dict) or not isinstance(values.get("id", ""), str):
            raise InputError(f"{where} is no JSON object with an id that is a text; {_REMEDY}")
        yield where, values


def _relation(where: str, values: Mapping[str, Any], tokens: Sequence[str]) -> list[str]:
    relation = values.get("relation")
    if not isinstance(relation, str):
        raise InputError(f"{where} has no `relation` that is a text; give one")
    return [relation]


def _tags(where: str, values: Mapping[str, Any], tokens: Sequence[str]) -> list[str]:
    """Return one BIO tag for each word, of `tags` or of `entities`."""
    tags = values.get("tags")
    if tags is None:
        return _of_entities(where, values.get("entities"), len(tokens))
    if not isinstance(tags, list) or not all(isinstance(tag, str) and _TAG.fullmatch(tag) for tag in tags):
        raise InputError(
            f"{where}: `tags` must be a list of BIO tags, such as O, B-PER, I-PER; give one for each word"
        )
    if len(tags) != len(tokens):
        raise InputError(
            f"{where} has {len(tags)} tags, and the sample {len(tokens)} words; give one for each word"
        )
    return tags


def _of_entities(where: str, entities: Any, words: int) -> list[str]:
    if not isinstance(entities, list) or not all(isinstance(one, dict) for one in entities):
        raise InputError(f"{where} has neither `tags`, one for each word, nor a list of `entities`")
    tags = ["O"] * words
    for one in entities:
        kind = one.get("type", one.get("entity_group"))
        if "entity_group" in one and "token_start" not in one:
            raise InputError(f"{where}: its entities count characters; predict the samples as words")
        start, end = (one.get(f"token_{side}", one.get(side)) for side in ("start", "end"))
        if not isinstance(kind, str) or not _TAG.fullmatch(f"B-{kind}"):
            raise InputError(f"{where}: an entity has no `type` that is a word; give it one")
        if type(start) is not int or type(end) is not int or not 0 <= start < end <= words:
            raise InputError(
                f"{where}: {kind} from {start!r} to {end!r} is no range of the sample's {words} words; "
                "`start` and `end` count words, from 0, and the end is outside"
            )
        if set(tags[start:end]) != {"O"}:
            raise InputError(
                f"{where}: {kind} from {start} to {end} overlaps another entity; keep one of them"
            )
        tags[start:end] = [f"B-{kind}", *[f"I-{kind}"] * (end - start - 1)]
    return tags
