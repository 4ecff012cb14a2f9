"""Scores of relations whose mentions are found as well, against a count by hand."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import IMAGES, SAMPLES
from hmnet_pipe.manifests.tables import table_of, write_table
from hmnet_pipe.pipeline.predict.relations import allowed
from hmnet_pipe.pipeline.predict.triples import score_triples, triples_table
from hmnet_pipe.stages.predict.results import Entity, Relation, Result

BORN, KNOWS, NONE = "/per/loc/born", "/per/per/knows", "None"
WORDS = ["Ada", "met", "Bob", "in", "Oslo"]


def sample(id_: str, head: int, tail: int, relation: str) -> dict[str, Any]:
    facts = {"head": [head, head + 1], "tail": [tail, tail + 1], "relation": relation}
    return {"id": id_, "split": "test", "task": "re", "tokens": WORDS, **facts}


@pytest.fixture
def data(tmp_path: Path) -> RunFolder:
    run = RunFolder(tmp_path)
    rows = [sample("1", 0, 2, KNOWS), sample("2", 0, 4, BORN), sample("3", 2, 4, NONE)]
    write_table(run.samples, table_of(SAMPLES, rows))
    write_table(run.images, table_of(IMAGES, []))
    return run


@dataclass
class _Config:
    labels: tuple[str, ...] = (NONE, BORN, KNOWS)


@dataclass
class _Model:
    config: _Config


class Told:
    """What two models find: told by the test."""

    entities = relations = _Model(_Config())

    def __init__(self, found: Result, from_gold: Result) -> None:
        self._found, self._from_gold = found, from_gold

    def found(self, posts: list[Any], tools: Any, mentions: list[Any] | None = None) -> list[Result]:
        assert [post.tokens for post in posts] == [tuple(WORDS)]  # three samples, one text
        if mentions is None:
            return [self._found]
        assert [(one.type, one.span) for one in mentions[0]] == [
            ("per", (0, 1)),
            ("per", (2, 3)),
            ("loc", (4, 5)),
        ]
        return [self._from_gold]


def entity(type_: str, word: int) -> Entity:
    return Entity(type_, WORDS[word], 0, 1, 1.0, word, word + 1)


def relation(name: str, head: int, tail: int) -> Relation:
    return Relation(name, head, tail, 1.0, (1.0,))


def test_triples_are_counted_by_mentions_by_types_and_from_gold_mentions(data: RunFolder) -> None:
    # Found: Ada as an organisation, Oslo as a place, and "met"; one triple right but for a type, one wrong.
    entities = (entity("ORG", 0), entity("PER", 1), entity("LOC", 4))
    found = Result("", entities=entities, relations=(relation(BORN, 0, 2), relation(KNOWS, 0, 1)))
    gold = (entity("per", 0), entity("per", 2), entity("loc", 4))
    from_gold = Result("", entities=gold, relations=(relation(KNOWS, 0, 1), relation(BORN, 0, 2)))
    scores = score_triples(Told(found, from_gold), data, "test")  # type: ignore[arg-type]
    assert scores["boundary"] == {"precision": 0.5, "recall": 0.5, "f1": 0.5, "support": 2}
    assert scores["strict"] == {"precision": 0.0, "recall": 0.0, "f1": 0.0, "support": 2}
    assert scores["gold mentions"]["f1"] == 1.0
    assert scores["mentions"] == pytest.approx(2 / 3)
    assert "from gold mentions" in triples_table(scores)
    with pytest.raises(InputError, match="no valid split"):
        score_triples(Told(found, from_gold), data, "valid")  # type: ignore[arg-type]


def test_a_type_that_is_not_known_fits_every_relation() -> None:
    probabilities = {NONE: 0.2, BORN: 0.3, KNOWS: 0.5}
    assert allowed(probabilities, NONE, "PER", "") == pytest.approx(probabilities)
    assert allowed(probabilities, NONE, "PER", "loc") == pytest.approx({NONE: 0.4, BORN: 0.6})
