"""Mentions with their probabilities, of short and of long texts, against the whole model and enumeration."""

import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path

import pytest
from hmnet_pipe.stages.learning.opened import OpenModel
from hmnet_pipe.stages.predict.posts import Post, Words, words_of
from hmnet_pipe.stages.predict.work import OUTSIDE, Given, Mention, PostFound, Wanted, find_mentions
from hmnet_pipe.stages.systems.marginals import span_types
from hmnet_pipe.stages.text.subwords import Subwords
from seqeval.metrics.sequence_labeling import get_entities

from ...oracle import log_sum_exp, path_score, valid_sequences
from ...rigs import chain_of, config_of, model_of

WORDS = [words_of(Post(" ".join(f"w{i % 7}" for i in range(count))), "simple") for count in (2, 4, 40, 57)]


@pytest.fixture(scope="module")
def opened(tiny_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> OpenModel:
    """A model with random weights that reads 12 sub-words."""
    reader = Subwords.of_encoder(tiny_encoder, "ner")
    config = config_of("bert-crf")
    config = replace(config, max_length=12, encoder={**config.encoder, "vocab_size": len(reader.tokenizer)})
    model = model_of(config).eval()
    return OpenModel(tmp_path_factory.mktemp("no-temperature"), model, reader, "fp32", from_pixels=False)


def given(words: list[Words]) -> Given:
    return Given([str(i) for i in range(len(words))], words, [None] * len(words), None)


def test_a_long_text_is_read_whole_in_windows_and_cut_otherwise(opened: OpenModel) -> None:
    wanted = Wanted(recall=0.0, types=True, alternatives=2)
    cut = find_mentions(opened, given(WORDS), wanted, windows=False)
    assert [one.whole for one in cut] == [True, True, False, False]
    assert max(one.span[1] for one in cut[3].mentions) <= 12
    found = find_mentions(opened, given(WORDS), wanted)
    assert all(one.whole for one in found)
    for one, words in zip(found, WORDS, strict=True):
        # With a threshold of 0 every word is of some mention, and none of two.
        covered = [word for mention in one.mentions for word in range(*mention.span)]
        assert len(covered) == len(set(covered))
        assert len(covered) > 0.9 * len(words.tokens)
        assert len(one.types) == len(words.tokens)
        for mention in one.mentions:
            assert len(mention.others) == 2
            for other in mention.others:
                assert other.span[0] < mention.span[1]
                assert mention.span[0] < other.span[1]
    assert found[:2] == cut[:2]


def test_scores_are_those_of_the_chain_and_both_thresholds_hold(opened: OpenModel) -> None:
    short = given(WORDS[:2])
    split = short.split(opened)

    def chains(batch):  # type: ignore[no-untyped-def]
        scored = opened.model.scored(batch)
        types = span_types(opened.config.labels)
        return [
            {name: scored.chain.spans(*numbers)[place] for name, numbers in types.items()}
            for place in range(len(batch.ids))
        ]

    expected = short.over(opened, split, chains)
    found = find_mentions(opened, short, Wanted(recall=0.02))
    assert sum(len(one.mentions) for one in found) > 2
    for one, spans in zip(found, expected, strict=True):
        for mention in one.mentions:
            score = float(spans[mention.type][mention.span[0], mention.span[1] - 1])
            assert mention.score == pytest.approx(score, abs=1e-12)
    kept = find_mentions(opened, short, Wanted(min_score=0.05, recall=0.05))
    assert all(mention.score >= 0.05 for one in kept for mention in one.mentions)
    without = find_mentions(opened, short, Wanted(min_score=1.0))
    assert without == [PostFound([], []), PostFound([], [])]
    assert isinstance(found[0].mentions[0], Mention)


def test_readings_and_types_of_words_are_those_of_the_enumeration(opened: OpenModel) -> None:
    short = given(WORDS[:2])
    emissions = short.over(opened, short.split(opened), lambda batch: list(opened.model(batch).double()))
    names = opened.config.labels
    crf = chain_of(opened.model.crf)  # type: ignore[arg-type]
    most = 10_000
    wanted = Wanted(recall=0.0, types=True, alternatives=most)
    for one, scores, words in zip(find_mentions(opened, short, wanted), emissions, WORDS, strict=False):
        rows = scores[: len(words.tokens)].detach().numpy()
        types: list[dict[str, float]] = [{} for _ in words.tokens]
        spans: dict[tuple[str, int, int], float] = {}
        paths = list(valid_sequences(names, len(rows)))
        total = log_sum_exp([path_score(path, rows, crf) for path in paths])
        outside: dict[tuple[int, int], float] = {}
        for path in paths:
            probability = math.exp(path_score(path, rows, crf) - total)
            tags = [names[number] for number in path]
            for word, tag in zip(types, tags, strict=True):
                word[tag[2:] or OUTSIDE] = word.get(tag[2:] or OUTSIDE, 0.0) + probability
            for kind, first, last in get_entities(tags):
                spans[kind, first, last + 1] = spans.get((kind, first, last + 1), 0.0) + probability
            for first, last in combinations(range(len(tags) + 1), 2):
                if set(tags[first:last]) == {OUTSIDE}:
                    outside[first, last] = outside.get((first, last), 0.0) + probability
        assert one.types == [pytest.approx(word, abs=1e-9) for word in types]
        assert [sum(word.values()) for word in one.types] == pytest.approx([1.0] * len(types), abs=1e-9)
        for mention in one.mentions:
            start, end = mention.span
            readings = {
                (kind, first, last): value
                for (kind, first, last), value in spans.items()
                if first < end and start < last and (kind, first, last) != (mention.type, start, end)
            }
            readings[OUTSIDE, start, end] = outside[start, end]
            found = {(other.type, *other.span): other.score for other in mention.others}
            assert found == pytest.approx(readings, abs=1e-9)
            assert [other.score for other in mention.others] == sorted(found.values(), reverse=True)
            # Every sequence has some reading of a word: mentions that hold it, or none.
            of_word = [value for (_, first, last), value in spans.items() if first <= start < last]
            assert sum(of_word) + one.types[start][OUTSIDE] == pytest.approx(1.0, abs=1e-9)
    few = find_mentions(opened, short, replace(wanted, alternatives=3))
    for one, every in zip(few, find_mentions(opened, short, wanted), strict=True):
        assert [mention.others for mention in one.mentions] == [
            mention.others[:3] for mention in every.mentions
        ]
