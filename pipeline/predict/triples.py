"""How well a model of entities and one of relations find a run's relations together, from the text alone.

Where the mentions are given, as in the scores of `evaluate`, a relation model names the relation of a pair.
Here the pairs have to be found as well, and what that costs is told apart: the same model on the gold
mentions, of which every pair is asked about.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError
from ...manifests.files import write_text
from ...manifests.run import RunFolder
from ...manifests.schemas import IMAGES, SAMPLES
from ...manifests.tables import read_table
from ...stages.base.tools import SILENT, Tools
from ...stages.evaluate.recorded import evaluation_name
from ...stages.learning.negative import negative_relation
from ...stages.predict.posts import Post
from ...stages.predict.results import Result
from ...stages.predict.work import Mention
from ...stages.text.limits import Span
from .predictor import Predictor
from .relations import types_of

__all__ = ["Triple", "evaluate_together", "score_triples", "triples_table"]


@dataclass(frozen=True)
class Triple:
    """A relation between two mentions of a text: their words, and their types where these are known."""

    head: Span
    tail: Span
    relation: str
    types: tuple[str, str] | None = None


@dataclass(frozen=True)
class _Text:
    """A text of a split with its gold triples and mentions."""

    post: Post
    gold: frozenset[Triple]
    mentions: tuple[Mention, ...]


def score_triples(predictor: Predictor, data: RunFolder, split: str, tools: Tools = SILENT) -> dict[str, Any]:
    """Score the relations that two models find together in a split of relations.

    Return, each with precision, recall and F1 over triples of a text: "boundary", where both mentions and the
    relation are right; "strict", where the mentions' types are right too, or None where no relation says
    them; "gold mentions", by boundary, from the gold mentions. And "mentions": the recall of gold mentions.
    Raises InputError where the models or the split are not of relations.
    """
    if predictor.entities is None or predictor.relations is None:
        raise InputError("relations are found from the text by a model of entities and one of relations")
    texts = _texts(data, split, negative_relation(predictor.relations.config.labels))
    posts = [text.post for text in texts]
    found = predictor.found(posts, tools)
    gold_mentions = predictor.found(posts, tools, [list(text.mentions) for text in texts])
    typed = any(triple.types for text in texts for triple in text.gold)
    gold = [text.gold for text in texts]
    mentions = [{mention.span for mention in text.mentions} for text in texts]
    spans = [{_span(entity) for entity in result.entities} for result in found]
    return {
        "texts": len(texts),
        "boundary": _scores(gold, [_triples(result) for result in found], typed=False),
        "strict": _scores(gold, [_triples(result) for result in found], typed=True) if typed else None,
        "gold mentions": _scores(gold, [_triples(result) for result in gold_mentions], typed=False),
        "mentions": sum(len(one & two) for one, two in zip(mentions, spans, strict=True))
        / max(1, sum(map(len, mentions))),
        "pairs left out": sum(result.left_out for result in found),
    }


def _texts(data: RunFolder, split: str, negative: str | None) -> list[_Text]:
    """Return the texts of a split, each once, with the triples of all its samples."""
    samples = [row for row in read_table(data.samples, SAMPLES).to_pylist() if row["split"] == split]
    if not samples or any(row["task"] != "re" for row in samples):
        raise InputError(f"{data.samples} has no {split} split of relations")
    paths = {row["key"]: row["path"] for row in read_table(data.images, IMAGES).to_pylist()}
    groups: dict[tuple[tuple[str, ...], str | None], list[Mapping[str, Any]]] = {}
    for row in samples:
        groups.setdefault((tuple(row["tokens"]), row["image_key"]), []).append(row)
    texts = []
    for (tokens, key), rows in groups.items():
        triples, mentions = set(), dict[Span, str]()
        for row in rows:
            head, tail = tuple(row["head"]), tuple(row["tail"])
            types = types_of(row["relation"])
            for span, type_ in zip((head, tail), types or ("", ""), strict=True):
                mentions[span] = mentions.get(span) or type_
            if row["relation"] != negative:
                triples.add(Triple(head, tail, row["relation"], types))
        ordered = tuple(Mention(type_, span, 1.0) for span, type_ in sorted(mentions.items()))
        image = paths.get(key) if key is not None else None
        texts.append(_Text(Post(tokens=tokens, image=image), frozenset(triples), ordered))
    return texts


def _span(entity: Any) -> Span:
    return entity.token_start, entity.token_end


def _triples(result: Result) -> set[Triple]:
    found = set()
    for one in result.relations:
        assert isinstance(one.head, int)
        assert isinstance(one.tail, int)
        head, tail = result.entities[one.head], result.entities[one.tail]
        types = head.entity_group.casefold(), tail.entity_group.casefold()
        found.add(Triple(_span(head), _span(tail), one.relation, types))
    return found


def _scores(
    gold: Sequence[frozenset[Triple]], found: Sequence[set[Triple]], *, typed: bool
) -> dict[str, float]:
    """Return micro scores over the triples of all texts; typed: the types count."""

    def facts(triples: Any) -> set[tuple[Any, ...]]:
        return {(one.head, one.tail, one.relation, one.types if typed else None) for one in triples}

    correct = sum(len(facts(one) & facts(two)) for one, two in zip(gold, found, strict=True))
    predicted, wanted = sum(map(len, found)), sum(map(len, gold))
    precision, recall = correct / predicted if predicted else 0.0, correct / wanted if wanted else 0.0
    f1 = 2 * precision * recall / (precision + recall) if correct else 0.0
    return {"precision": precision, "recall": recall, "f1": f1, "support": wanted}


def triples_table(scores: Mapping[str, Any]) -> str:
    """Return the scores as a table for people."""
    lines = [f"{'':<26}{'precision':>10}{'recall':>10}{'F1':>10}{'support':>10}"]
    names = {
        "boundary": "mentions and relation",
        "strict": "and the mentions' types",
        "gold mentions": "from gold mentions",
    }
    for name, words in names.items():
        if (one := scores[name]) is not None:
            numbers = "".join(f"{one[key]:>10.4f}" for key in ("precision", "recall", "f1"))
            lines.append(f"{words:<26}{numbers}{one['support']:>10}")
    lines.append(f"{scores['mentions']:.1%} of the gold mentions are found in {scores['texts']} texts")
    return "\n".join(lines)


def evaluate_together(
    entities: str, relations: Path, data: RunFolder, split: str, tools: Tools, *, types: bool = True
) -> tuple[dict[str, Any], Path]:
    """Score two models together; return the scores and the file that holds them, beside the second model.

    types: whether relations whose names say the types of their arguments are restricted to them.
    """
    predictor = Predictor.from_pretrained(entities, relations=relations, types=types)
    scores = score_triples(predictor, data, split, tools)
    own = data.path.resolve() in relations.resolve().parents
    name = evaluation_name(split, shuffled_images=False, other_run=None if own else data.path.resolve().name)
    path = relations / f"pipeline-{name}{'' if types else '-no-types'}.json"
    values = {"entities": entities, "split": split, "types": types, **scores}
    write_text(path, json.dumps(values, indent=2) + "\n")
    return scores, path
