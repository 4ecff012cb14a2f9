"""The diagnostic corpus is reproducible, and each group is decided by exactly one thing."""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hmnet_pipe.manifests.schemas import TASKS
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.stages.demo import diagnostic as diagnostic_module
from hmnet_pipe.stages.demo.corpus import RELATION_SCENES, TYPE_SCENES
from hmnet_pipe.stages.demo.cues import CUES, PATTERNS, Picture, Shown, draw_picture
from hmnet_pipe.stages.demo.diagnostic import GROUPS, drafts, write_diagnostic_corpus
from hmnet_pipe.stages.demo.scenes import DISTRACTORS, stream
from hmnet_pipe.stages.demo.wording import TEXT_GROUPS, clause_words
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.text.encoders.bert import load_encoder
from hmnet_pipe.stages.text.encoders.files import resolve_encoder
from hmnet_pipe.stages.text.subwords import Subwords
from PIL import Image, ImageChops
from sklearn.feature_extraction import DictVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline

from ...corpora import Corpus, clues, digests, mentions_of, read

SCENES = {"ner": TYPE_SCENES, "re": RELATION_SCENES}


@pytest.fixture(params=TASKS)
def worded(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Corpus:
    """Return the rows of a corpus whose pictures are noise: they cost nothing, and the words are the same."""

    def noise(picture: Picture, rng: np.random.Generator) -> Shown:
        pixels = rng.integers(0, 256, size=(4, 4, 3), dtype=np.uint8)
        return Shown(picture, Image.fromarray(pixels, "RGB"))

    monkeypatch.setattr(diagnostic_module, "draw_picture", noise)
    write_diagnostic_corpus(tmp_path, request.param)
    return read(tmp_path)


@pytest.mark.parametrize("task", TASKS)
def test_the_same_seed_writes_the_same_bytes_and_another_seed_others(task: str, tmp_path: Path) -> None:
    for name, seed in (("one", 3), ("two", 3), ("other", 4)):
        write_diagnostic_corpus(tmp_path / name, task, seed=seed, sizes={"train": 12, "test": 12})
    one, other = digests(tmp_path / "one"), digests(tmp_path / "other")
    assert one == digests(tmp_path / "two")
    shared = {name for name, digest in one.items() if digest in other.values()}
    assert shared == {"encoder/config.json", "encoder/tokenizer_config.json"}


def test_groups_have_their_shares_and_their_answers_are_balanced(worded: Corpus) -> None:
    for rows in worded.values():
        answers: dict[str, Counter[str]] = defaultdict(Counter)
        for row in rows:
            [(group, answer, _)] = mentions_of(row)
            answers[group][answer] += 1
        for group, share in GROUPS.items():
            counts = answers[group].values()
            assert sum(counts) == pytest.approx(share * len(rows), abs=1)
            assert max(counts) - min(counts) <= 1
        assert all("image" not in row for row in rows if row["groups"] == ["text"])


def test_no_word_tells_what_a_picture_decides(worded: Corpus) -> None:
    """A linear model of all that a text says is at chance in the groups of pictures, and right in others."""

    def accuracy(visual: bool) -> float:
        parts = []
        for split in ("train", "test"):
            mentions = [(row, *mention) for row in worded[split] for mention in mentions_of(row)]
            # Agreement has two answers, and chance is another.
            own = [each for each in mentions if (each[1] in CUES) == visual and each[1] != "agreement"]
            parts.append(
                ([clues(row["tokens"], names) for row, _, _, names in own], [each[2] for each in own])
            )
        model = make_pipeline(DictVectorizer(), LogisticRegression(C=1.0, max_iter=1000)).fit(*parts[0])
        return float(model.score(*parts[1]))

    assert accuracy(visual=False) > 0.9
    assert accuracy(visual=True) < 0.34  # 0.25 and 3.5 standard errors of 320 mentions


def test_names_are_few_and_those_of_every_split_and_answer(worded: Corpus) -> None:
    """A name of its own would tell a post from all others, and its answer could be learned by heart."""
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    for split, rows in worded.items():
        for row in rows:
            for group, answer, words in mentions_of(row):
                if group in CUES:
                    assert len(words) == len(set(words)) == (2 if "relation" in row else 1)
                    counts[split, answer].update(words)
    everyone = {name for found in counts.values() for name in found}
    assert len(everyone) == 12
    for (split, answer), found in counts.items():
        if split == "train":
            assert set(found) == everyone, answer
            assert max(found.values()) < 2 * min(found.values()), answer


def test_the_encoder_of_a_corpus_knows_all_its_words_and_no_more_than_they_need(
    worded: Corpus, tmp_path: Path
) -> None:
    task = "re" if "relation" in worded["test"][0] else "ner"
    config = preset("diagnostic", task=task, text=tmp_path, images=None, format="auto")
    folder = resolve_encoder(config.of(TrainSettings).encoder)
    words = sorted({word for rows in worded.values() for row in rows for word in row["tokens"]})
    reader = Subwords.of_encoder(folder, task)
    pairs = [((0, 1), (0, 1)) for _ in words] if task == "re" else None
    for word, text in zip(words, reader.encode([[word] for word in words], pairs, limit=128), strict=True):
        assert reader.unknown_id not in text.input_ids, word
    hf: Any = load_encoder(folder).config
    assert (hf.hidden_size, hf.num_hidden_layers) == (128, 4)
    assert hf.vocab_size < len(clause_words()) + 12 + 20


def deciding(picture: Picture) -> Hashable:
    """Return the one fact of a picture that decides."""
    match picture.cue:
        case "kind":
            return tuple(sorted(kind for kind in picture.kinds if kind not in DISTRACTORS))
        case "agreement":
            return len(set(picture.kinds)) == 1
        case _:
            return picture.pattern


OTHER_FACTS: dict[str, Callable[[Picture], Hashable]] = {
    "distractors": lambda picture: tuple(kind for kind in picture.kinds if kind in DISTRACTORS),
    "the first object": lambda picture: picture.kinds[0] if picture.cue == "agreement" else None,
    "how many": lambda picture: sum(kind in DISTRACTORS for kind in picture.kinds),
    "pattern": lambda picture: picture.pattern if picture.cue in ("kind", "agreement") else None,
}


@pytest.mark.parametrize("cue", CUES)
@pytest.mark.parametrize("task", TASKS)
def test_one_fact_of_a_picture_is_the_answer_and_no_other_goes_with_it(task: str, cue: str) -> None:
    posts = [
        (draft.picture, draft.answers[0][1])
        for draft in drafts(task, 6000, stream("test diagnostic", 0))
        if draft.answers[0][0] == cue and draft.picture is not None
    ]
    decides = {(deciding(picture), answer) for picture, answer in posts}
    answers = sorted({answer for _, answer in posts})
    assert len(decides) == len(answers) == (2 if cue == "agreement" else 4)
    for name, fact in OTHER_FACTS.items():
        if cue == "agreement" and name in ("distractors", "how many"):
            continue  # what decides
        of_answer: dict[str, Counter[Hashable]] = {answer: Counter() for answer in answers}
        for picture, answer in posts:
            of_answer[answer][fact(picture)] += 1
        for one, other in pairwise(of_answer.values()):
            for value in {**one, **other}:
                shares = one[value] / one.total(), other[value] / other.total()
                assert shares[0] == pytest.approx(shares[1], abs=0.16), (name, value)


def test_an_irrelevant_picture_shows_any_answer_of_any_cue(worded: Corpus) -> None:
    posts = [
        draft
        for draft in drafts("ner", 60000, stream("test diagnostic", 1))
        if draft.answers[0][0] == "irrelevant"
    ]
    shown = Counter(
        (draft.answers[0][1], draft.picture.cue, deciding(draft.picture)) for draft in posts if draft.picture
    )
    assert len({key[1:] for key in shown}) == 18
    for (answer, *_), count in shown.items():
        assert count == pytest.approx(len(posts) / 4 / 5 / (2 if _[0] == "agreement" else 4), rel=0.6), answer


def box_grown(box: tuple[int, int, int, int], share: float, side: int) -> tuple[int, int, int, int]:
    more = round(share * max(box[2] - box[0], box[3] - box[1]))
    return max(box[0] - more, 0), max(box[1] - more, 0), min(box[2] + more, side), min(box[3] + more, side)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("cue", ["detail", "texture"])
def test_a_pattern_changes_nothing_but_its_ball(cue: str, seed: int) -> None:
    shown = [draw_picture(Picture(cue, ("ball",), each), stream("test patterns", seed)) for each in PATTERNS]
    for one, other in pairwise(shown):
        assert one.boxes == other.boxes
        changed = ImageChops.difference(one.image, other.image).getbbox()
        assert changed == pytest.approx(one.boxes[0], abs=3)


@pytest.mark.parametrize("seed", range(6))
def test_bars_change_nothing_in_the_box_of_the_tree_or_near_it(seed: int) -> None:
    shown = [draw_picture(Picture("scene", ("tree",), each), stream("test bars", seed)) for each in PATTERNS]
    for one, other in pairwise(shown):
        assert one.boxes == other.boxes
        difference = ImageChops.difference(one.image, other.image)
        assert difference.getbbox() is not None
        assert difference.crop(box_grown(one.boxes[0], 0.06, one.image.width)).getbbox() is None


def test_a_detail_is_two_pixels_of_a_view_of_the_whole_picture_and_many_of_its_own() -> None:
    """The stripes are gone from the whole picture at the preset's side, and are there in the crop."""
    spread: dict[str, list[float]] = defaultdict(list)
    for seed in range(8):
        plain, striped = (
            draw_picture(Picture("detail", ("ball",), each), stream("test detail", seed))
            for each in PATTERNS[:2]
        )
        for name, box in (("whole", None), ("crop", plain.boxes[0])):
            one, other = (
                np.asarray(
                    each.image.convert("L").resize((112, 112), Image.Resampling.BILINEAR, box=box), float
                )
                for each in (plain, striped)
            )
            spread[name].append(float(np.abs(one - other).mean()))
    assert np.mean(spread["whole"]) < 1.0 < 10.0 < np.mean(spread["crop"])


def test_a_row_tells_its_group_and_missing_pictures_are_missing(tmp_path: Path) -> None:
    write_diagnostic_corpus(tmp_path, "ner", sizes={"train": 40})
    there = {path.name for path in (tmp_path / "images").iterdir()}
    rows: list[dict[str, Any]] = read(tmp_path)["train"]
    for row in rows:
        [group] = row["groups"]
        assert ("image" in row) == (group != "text")
        assert (row.get("image") in there) == (group not in ("text", "missing"))
    assert {row["groups"][0] for row in rows} == set(GROUPS)
    assert set(GROUPS) == {*CUES, *TEXT_GROUPS}
