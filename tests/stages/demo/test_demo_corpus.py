"""The demonstration corpus is reproducible, and no text decides what only the picture is said to decide."""

import hashlib
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.manifests.schemas import SPLITS, TASKS
from hmnet_pipe.stages.demo import corpus as corpus_module
from hmnet_pipe.stages.demo import scenes as scenes_module
from hmnet_pipe.stages.demo.corpus import DEFAULT_SIZES, RELATION_SCENES, TYPE_SCENES, write_demo_corpus
from hmnet_pipe.stages.demo.scenes import DECIDING_KINDS, KINDS, draw_scene, stream
from hmnet_pipe.stages.demo.wording import OPEN_MENTIONS, OPEN_PAIRS, TEXT_MENTIONS, TEXT_PAIRS
from PIL import Image, ImageChops
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from ...corpora import Corpus, clues, digests, mentions_of, read

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=TASKS)
def written(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[str, Path, Corpus]:
    """Return a corpus of the default sizes: its task, folder and rows."""
    folder = tmp_path_factory.mktemp(request.param)
    write_demo_corpus(folder, request.param)
    return request.param, folder, read(folder)


def wording_of(row: dict[str, Any]) -> str:
    """Return a row's text with every name replaced by one X."""
    names = {word for _, _, words in mentions_of(row) for word in words}
    return re.sub(r"\bX X\b", "X", " ".join("X" if token in names else token for token in row["tokens"]))


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(task: str, tmp_path: Path) -> None:
    sizes = {"train": 24, "valid": 8, "test": 8}
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write_demo_corpus(tmp_path / name, task, seed=seed, sizes=sizes)
    assert digests(tmp_path / "one") == digests(tmp_path / "two")
    assert not set(digests(tmp_path / "one").values()) & set(digests(tmp_path / "other").values())


def test_a_corpus_written_over_another_is_the_same_as_one_written_afresh(tmp_path: Path) -> None:
    sizes = {"train": 60}
    write_demo_corpus(tmp_path / "over", "ner", seed=1, sizes=sizes)
    write_demo_corpus(tmp_path / "over", "ner", seed=2, sizes=sizes)
    write_demo_corpus(tmp_path / "fresh", "ner", seed=2, sizes=sizes)
    assert digests(tmp_path / "over") == digests(tmp_path / "fresh")


@pytest.mark.parametrize(("task", "sizes"), [("pos", {"train": 1}), ("ner", {"dev": 1})])
def test_an_unknown_task_or_split_is_refused(task: str, sizes: dict[str, int], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected"):
        write_demo_corpus(tmp_path, task, sizes=sizes)
    assert not list(tmp_path.iterdir())


def test_every_split_has_its_size_and_well_formed_rows(written: tuple[str, Path, Corpus]) -> None:
    task, _, corpus = written
    assert {split: len(rows) for split, rows in corpus.items()} == dict(DEFAULT_SIZES)
    ids = [row["id"] for rows in corpus.values() for row in rows]
    assert len(set(ids)) == len(ids)
    for rows in corpus.values():
        for row in rows:
            mentions_of(row)
            if task == "ner":
                assert len(row["tokens"]) == len(row["tags"])
            else:
                (start, end), (tail_start, tail_end) = row["head"], row["tail"]
                assert 0 <= start < end <= len(row["tokens"])
                assert 0 <= tail_start < tail_end <= len(row["tokens"])
                assert end <= tail_start or tail_end <= start


def test_no_name_word_occurs_twice(written: tuple[str, Path, Corpus]) -> None:
    _, _, corpus = written
    words = Counter(
        word for rows in corpus.values() for row in rows for _, _, names in mentions_of(row) for word in names
    )
    assert max(words.values()) == 1


def test_no_picture_occurs_twice(written: tuple[str, Path, Corpus]) -> None:
    _, folder, _ = written
    pixels = [
        hashlib.sha256(np.asarray(Image.open(path)).tobytes()).digest()
        for path in sorted((folder / "images").iterdir())
    ]
    assert len(set(pixels)) == len(pixels) > 900


def test_answers_that_the_picture_decides_are_balanced(written: tuple[str, Path, Corpus]) -> None:
    task, _, corpus = written
    for split in SPLITS:
        answers = Counter(
            answer for row in corpus[split] for group, answer, _ in mentions_of(row) if group == "vision"
        )
        assert set(answers) == set(TYPE_SCENES if task == "ner" else RELATION_SCENES)
        assert max(answers.values()) - min(answers.values()) <= 1


def test_the_shares_of_groups_and_pictures_are_as_documented(written: tuple[str, Path, Corpus]) -> None:
    _, folder, corpus = written
    for rows in corpus.values():
        missing = [row for row in rows if not (folder / "images" / row["image"]).exists()]
        assert len(missing) / len(rows) == pytest.approx(0.08, abs=0.015)
        open_rows = [row for row in rows if {"vision", "undecidable"} & set(row["groups"])]
        assert len(open_rows) / len(rows) == pytest.approx(0.5, abs=0.01)
        undecidable = [row for row in rows if "undecidable" in row["groups"]]
        assert len(undecidable) / len(open_rows) == pytest.approx(0.18, abs=0.02)
        assert not [row for row in missing if "vision" in row["groups"]]


def test_open_wordings_are_no_text_wordings_and_all_occur_with_every_answer(
    written: tuple[str, Path, Corpus],
) -> None:
    task, _, corpus = written
    by_answer = TEXT_MENTIONS if task == "ner" else TEXT_PAIRS
    templates = OPEN_MENTIONS if task == "ner" else OPEN_PAIRS
    assert len(set(templates)) == len(templates) >= 12
    all_templates = [*templates, *(text for texts in by_answer.values() for text in texts)]
    assert len(set(all_templates)) == len(all_templates)
    answers_of: dict[str, set[str]] = {template: set() for template in templates}
    for row in (row for rows in corpus.values() for row in rows):
        text = f" {wording_of(row)} "
        for group, answer, _ in mentions_of(row):
            if group != "text":
                # "X again today" is also found in a longer wording that ends like it, so the longest one
                # found is the row's.
                found = [template for template in templates if f" {re.sub('{.}', 'X', template)} " in text]
                answers_of[max(found, key=len)].add(answer)
    assert all(len(answers) == 4 for answers in answers_of.values()), answers_of


def test_a_classifier_of_the_text_is_at_chance_exactly_where_the_picture_decides(
    written: tuple[str, Path, Corpus],
) -> None:
    """A linear model of the words around the name, and of its letters and lengths, would use any leak."""
    _, _, corpus = written

    def examples(split: str, open_mention: bool) -> tuple[list[dict[str, int]], list[str]]:
        features, answers = [], []
        for row in corpus[split]:
            for group, answer, words in mentions_of(row):
                if (group != "text") == open_mention:
                    features.append(clues(row["tokens"], words))
                    answers.append(answer)
        return features, answers

    accuracy = {}
    for open_mention in (False, True):
        model = make_pipeline(DictVectorizer(), LogisticRegression(C=1.0, max_iter=1000))
        model.fit(*examples("train", open_mention))
        accuracy[open_mention] = model.score(*examples("test", open_mention))
    assert accuracy[False] > 0.95
    assert accuracy[True] < 0.36  # 0.25 and 3.5 standard errors of 200 mentions


@pytest.mark.parametrize("task", TASKS)
def test_scenes_show_what_their_group_says(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vision: exactly the deciding objects of the answer; undecidable: distractors; text: any objects."""
    drawn: list[list[str]] = []

    def draw(kinds: Sequence[str], rng: np.random.Generator) -> tuple[Image.Image, list[Any]]:
        drawn.append(list(kinds))
        return Image.fromarray(rng.integers(0, 256, size=(8, 8, 3), dtype=np.uint8), "RGB"), []

    monkeypatch.setattr(corpus_module, "draw_scene", draw)
    write_demo_corpus(tmp_path, task, sizes={"test": 1000})
    rows = [row for row in read(tmp_path)["test"] if (tmp_path / "images" / row["image"]).exists()]
    scenes = TYPE_SCENES if task == "ner" else RELATION_SCENES
    answer_of_scene = {tuple(sorted(kinds)): answer for answer, kinds in scenes.items()}
    pairs: Counter[tuple[str, str]] = Counter()
    for row, kinds in zip(rows, drawn, strict=True):
        assert 1 <= len(kinds) <= 3
        deciding = tuple(sorted(kind for kind in kinds if kind in DECIDING_KINDS))
        shown = answer_of_scene[deciding] if deciding else "nothing"
        for group, answer, _ in mentions_of(row):
            if group == "vision":
                assert shown == answer
            elif group == "undecidable":
                assert shown == "nothing"
            else:
                pairs[answer, shown] += 1
    text_answers = TEXT_MENTIONS if task == "ner" else TEXT_PAIRS
    agreeing = sum(count for (answer, shown), count in pairs.items() if answer == shown)
    expected = (
        sum(count for (answer, shown), count in pairs.items() if answer in scenes and shown in scenes) / 4
    )
    assert {answer for answer, _ in pairs} == set(text_answers)
    assert agreeing == pytest.approx(expected, rel=0.3)


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_hold_their_object_and_nothing_more(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The box is where the scene differs from the one without the object, before the camera's noise."""
    monkeypatch.setattr(scenes_module, "photograph", lambda scene, rng: scene)
    for number in range(20):
        empty, _ = draw_scene([], stream("test boxes", number))
        picture, [(drawn, box)] = draw_scene([kind], stream("test boxes", number))
        assert drawn == kind
        changed = ImageChops.difference(empty, picture).getbbox()
        assert changed == pytest.approx(box, abs=1.01)
        assert 24 <= max(box[2] - box[0], box[3] - box[1]) <= 153


def test_objects_of_a_scene_lie_inside_it_and_hardly_overlap() -> None:
    for number in range(60):
        picture, objects = draw_scene(KINDS[number % 3 : number % 3 + 4], stream("test overlap", number))
        covered = np.zeros((picture.height, picture.width), dtype=int)
        for _, (x0, y0, x1, y1) in objects:
            assert 0 <= x0 < x1 <= picture.width
            assert 0 <= y0 < y1 <= picture.height
            covered[y0:y1, x0:x1] += 1
        assert np.count_nonzero(covered > 1) <= 0.05 * np.count_nonzero(covered)


def test_colours_do_not_tell_kinds_apart() -> None:
    """A linear model of the mean colour of objects, and of its spread, is at chance."""
    features, kinds = [], []
    for number in range(480):
        picture, [(kind, (x0, y0, x1, y1))] = draw_scene([KINDS[number % 6]], stream("test colours", number))
        middle = np.asarray(picture)[
            (y0 * 2 + y1) // 3 : (y0 + y1 * 2) // 3, (x0 * 2 + x1) // 3 : (x0 + x1 * 2) // 3
        ]
        features.append(middle.mean(axis=(0, 1)))
        kinds.append(kind)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(features[:320], kinds[:320])
    assert model.score(features[320:], kinds[320:]) < 0.27  # 1/6 and 3.5 standard errors of 160 objects


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(ValueError, match="unicorn"):
        draw_scene(["unicorn"], stream("test"))
