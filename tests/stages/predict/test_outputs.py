"""Results as files, read back by the project's own readers where it has one."""

import csv
import json
import random
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.predict.inputs import posts_of
from hmnet_pipe.stages.predict.outputs import FILE_NAMES, FORMATS, encoded, results_in, write
from hmnet_pipe.stages.predict.posts import Post, words_of
from hmnet_pipe.stages.predict.results import Entity, PostImage, Relation, Result, Seen, WordTypes
from hmnet_pipe.stages.prepare.formats.jsonl import read_jsonl
from hmnet_pipe.stages.prepare.formats.rows import Reading, TextFile
from hmnet_pipe.stages.prepare.formats.twitter import read_twitter

PIECES = (
    *("Messi", "in", "#Paris", "@a_b", "don't", "IMGID:3", "{x}", '"', "'", "a,b", ";", "-DOCSTART-", "\\"),
    *(
        "\N{PARTY POPPER}",
        "\N{WHITE HEAVY CHECK MARK}\N{VARIATION SELECTOR-16}",
        "Zoe\N{COMBINING DIAERESIS}",
    ),
    *("שלום", "مرحبا", "\N{RIGHT-TO-LEFT OVERRIDE}x", "東京", "\N{ZERO WIDTH JOINER}"),
    *("\x00", "\x07", "\x1b[31m", "\x7f", "\x1c", "\x85", "\u2028", "\n", "\r\n", "\r", "\t", "  "),
)
GIVEN = ("New York", "New\nYork", "a\tb", "\tc", "d\r", "e\u2028f", "\n-DOCSTART- g", "IMGID: 4")


def _results(count: int, *, given: bool = False) -> Iterator[tuple[int, Result]]:
    """Yield results of random posts whose entities are whole words, and those words."""
    made, number = random.Random(16), 0
    while number < count:
        pieces = made.choices(PIECES + GIVEN * given, k=made.randint(1, 12))
        if given:
            post = Post(tokens=[piece for piece in pieces if piece.strip()])
        else:
            post = Post(made.choice(["", " "]).join(pieces))
        try:
            words = words_of(post, "tweet")
        except InputError:
            continue
        number += 1
        entities, at = [], 0
        while (at := at + made.randint(0, 3)) < len(words.tokens):
            end = min(at + made.randint(1, 3), len(words.tokens))
            first, last = words.characters((at, end))
            kind = made.choice(["PER", "Geo-Place", "類"])
            own = (at, end) if given else (None, None)
            entities.append(Entity(kind, words.text[first:last], first, last, made.random(), *own))
            at = end
        tokens = tuple(words.tokens) if given else None
        name = None if number % 3 else f"p{number}"
        yield number, Result(words.text, name, tokens, tuple(entities), more={"url": number})


def spans_of(tags: list[str]) -> list[tuple[str, int, int]]:
    spans: list[tuple[str, int, int]] = []
    for place, tag in enumerate(tags):
        if tag[0] == "B":
            spans.append((tag[2:], place, place + 1))
        elif tag[0] == "I":
            spans[-1] = (*spans[-1][:2], place + 1)
    return spans


@pytest.mark.parametrize("given", [False, True])
def test_conll_is_read_back_by_prepare_and_by_predict(tmp_path: Path, given: bool) -> None:
    results = list(_results(300, given=given))
    write("conll", results, tmp_path / "found.conll", words="tweet")
    drafts = read_twitter(TextFile.read(tmp_path / "found.conll"), Reading(labels="written"))
    posts = [post for _, post in posts_of(tmp_path / "found.conll")]
    assert len(drafts) == len(posts) == len(results)
    for (number, result), draft, post in zip(results, drafts, posts, strict=True):
        post_of = Post(tokens=result.tokens) if given else Post(result.text)
        words = words_of(post_of, "tweet")
        for kept, word in zip(draft.tokens, words.tokens, strict=True):
            assert len(kept) == len(word)
            assert kept == word or set(word) & set("\0\t\n\r\x1c\x85\u2028") or "DOCSTART" in word
        assert [
            (kind, *words.characters((first, last))) for kind, first, last in spans_of(draft.tags or [])
        ] == [(one.entity_group, one.start, one.end) for one in result.entities]
        assert isinstance(post, Post)
        assert (post.tokens, post.more["tags"]) == (draft.tokens, draft.tags)
        assert (draft.alone, post.id) == (result.id or str(number),) * 2


def test_conll_moves_spans_to_words_and_gives_a_word_one_label() -> None:
    result = Result(
        "New Yorkers\nmeet", entities=(Entity("LOC", "York", 4, 8, 0.9), Entity("PER", "ers", 8, 11, 0.8))
    )
    failed = Result(" ", error="its text is white space only")
    found = b"".join(encoded("conll", [(1, result), (2, failed)]))
    assert found.decode() == "IMGID:1\nNew\tO\nYorkers\tB-LOC\nmeet\tO\n\n"


def test_jsonl_is_read_back_as_spans_and_as_posts(tmp_path: Path) -> None:
    results = list(_results(300))
    write("jsonl", results, tmp_path / "found.jsonl")
    lines = (tmp_path / "found.jsonl").read_bytes().decode().split("\n")[:-1]
    assert [json.loads(line) for line in lines] == [result.to_json() for _, result in results]
    spans = tmp_path / "spans.jsonl"
    spans.write_text(
        "\n".join(
            json.dumps(
                {
                    "text": one["text"],
                    "spans": [
                        {"start": span["start"], "end": span["end"], "type": span["entity_group"]}
                        for span in one["entities"]
                    ],
                }
            )
            for one in map(json.loads, lines)
        )
    )
    drafts = read_jsonl(TextFile.read(spans), "ner", Reading(words="tweet", strict_spans=True))
    for (_, result), draft in zip(results, drafts, strict=True):
        offsets = draft.offsets or []
        assert [
            (kind, offsets[first][0], offsets[last - 1][1])
            for kind, first, last in spans_of(draft.tags or [])
        ] == [(one.entity_group, one.start, one.end) for one in result.entities]
    posts = [post for _, post in posts_of(tmp_path / "found.jsonl")]
    for (_, result), post in zip(results, posts, strict=True):
        assert isinstance(post, Post)
        assert (post.text, post.id, post.more["url"]) == (result.text, result.id, result.more["url"])


def test_a_result_is_read_back_whole(tmp_path: Path) -> None:
    whole = replace(
        related(),
        tokens=("Ada\nL", "in", "Oslo"),
        objects=(Seen("dog", 0.5, (1.0, 2.0, 3.25, 4.0)),),
        image=PostImage("missing", "away", name="a.jpg"),
        truncated=True,
        error="none",
        left_out=3,
        marginals=(WordTypes("in", 6, 8, {"O": 0.75, "PER": 0.25}),),
        explanation={"over": "views"},
    )
    readings = (Entity("ORG", "Ada", 0, 3, 0.05), Entity("O", "Ada\nL", 0, 5, 0.0))
    first, last = whole.entities[0], whole.relations[0]
    whole = replace(
        whole,
        entities=(replace(first, alternatives=readings), *whole.entities[1:]),
        relations=(replace(last, alternatives=(("in", 0.125),)), *whole.relations[1:]),
    )
    least = Result("a\u2028\x85\r b")
    write("jsonl", [(1, whole), (2, least)], tmp_path / "found.jsonl")
    assert list(results_in(tmp_path / "found.jsonl")) == [(1, whole), (2, least)]


def test_half_a_character_stays_in_json_and_breaks_no_format(tmp_path: Path) -> None:
    result = Result("half \ud83d", error="its text holds half a character")
    (line,) = encoded("jsonl", [(1, result)])
    assert json.loads(line)["text"] == "half \ud83d"
    for format in FORMATS:
        if format != "spacy":
            write(format, [(1, result)], tmp_path / FILE_NAMES[format])
    assert (tmp_path / "brat" / "0000001.txt").read_bytes() == b"half ?"


def test_csv_is_a_row_for_each_entity(tmp_path: Path) -> None:
    results = list(_results(300))
    write("csv", results, tmp_path / "found.csv")
    with (tmp_path / "found.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [tuple(row.values()) for row in rows] == [
        (
            result.id or str(number),
            str(one.start),
            str(one.end),
            one.entity_group,
            one.word,
            str(round(one.score, 6)),
        )
        for number, result in results
        for one in result.entities
    ]


def related() -> Result:
    entities = (Entity("PER", "Ada\nL", 0, 5, 0.9), Entity("LOC", "Oslo", 9, 13, 0.8))
    relations = (
        Relation("/per/loc/born", 0, 1, 0.5, (0.9, 0.8, 0.7)),
        Relation("in", (0, 3), (9, 13), 0.25, (0.25,)),
    )
    image = PostImage("none", name="a.jpg")
    return Result("Ada\nL in Oslo", "7", entities=entities, relations=relations, image=image)


def test_brat_has_mentions_and_relations_with_newlines_as_spaces(tmp_path: Path) -> None:
    write("brat", [(12, related())], tmp_path / "brat")
    assert sorted(path.name for path in (tmp_path / "brat").iterdir()) == ["0000012.ann", "0000012.txt"]
    assert (tmp_path / "brat" / "0000012.txt").read_text() == "Ada L in Oslo"
    assert (tmp_path / "brat" / "0000012.ann").read_text().split("\n") == [
        "T1\tPER 0 5\tAda L",
        "#1\tAnnotatorNotes T1\tscore 0.900000",
        "T2\tLOC 9 13\tOslo",
        "#2\tAnnotatorNotes T2\tscore 0.800000",
        "R1\tper_loc_born Arg1:T1 Arg2:T2",
        "T3\thead 0 3\tAda",
        "T4\ttail 9 13\tOslo",
        "R2\tin Arg1:T3 Arg2:T4",
        "",
    ]


def test_brat_offsets_are_those_of_its_text(tmp_path: Path) -> None:
    results = list(_results(60))
    write("brat", results, tmp_path)
    for number, result in results:
        text = (tmp_path / f"{number:07}.txt").read_bytes().decode()
        lines = (tmp_path / f"{number:07}.ann").read_bytes().decode().splitlines()
        assert len(text) == len(result.text)
        assert len(lines) == 2 * len(result.entities)
        for line, one in zip(lines[::2], result.entities, strict=True):
            _, place, word = line.split("\t")
            _, start, end = place.split(" ")
            assert (int(start), int(end), text[int(start) : int(end)]) == (one.start, one.end, word)


def test_label_studio_has_tasks_with_predictions() -> None:
    empty = replace(related(), id=None, entities=(), relations=())
    tasks = json.loads(b"".join(encoded("label-studio", [(1, related()), (2, empty)], model="abc")))
    assert tasks[1] == {
        "data": {"id": 2, "text": "Ada\nL in Oslo", "image": "a.jpg"},
        "predictions": [{"model_version": "abc", "result": []}],
    }
    assert tasks[0]["data"]["id"] == "7"
    (prediction,) = tasks[0]["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("abc", 0.8)
    regions: dict[str, Any] = {one["id"]: one for one in prediction["result"] if one["type"] == "labels"}
    assert regions["e0"]["value"] == {"start": 0, "end": 5, "text": "Ada\nL", "labels": ["PER"]}
    links = [one for one in prediction["result"] if one["type"] == "relation"]
    assert [
        (one["labels"], *(regions[one[end]]["value"]["text"] for end in ("from_id", "to_id")))
        for one in links
    ] == [(["/per/loc/born"], "Ada\nL", "Oslo"), (["in"], "Ada", "Oslo")]
    assert json.loads(b"".join(encoded("label-studio", []))) == []


def test_what_cannot_be_written_is_refused_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="format 'xml' is not one of jsonl, conll"):
        encoded("xml", [])
    with pytest.raises(InputError, match="give a folder"):
        encoded("brat", [])
    monkeypatch.setitem(sys.modules, "spacy", None)
    with pytest.raises(InputError, match=r"pip install 'hmnet-pipe\[spacy\]'"):
        write("spacy", [(1, related())], tmp_path / "found.spacy")
    assert not list(tmp_path.iterdir())


def test_results_are_written_as_they_come() -> None:
    seen: list[int] = []

    def results() -> Iterator[tuple[int, Result]]:
        for number in range(1, 4):
            seen.append(number)
            yield number, related()

    for format in ("jsonl", "conll", "label-studio"):
        seen.clear()
        next(encoded(format, results()))
        assert seen == [1]
