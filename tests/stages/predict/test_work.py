"""Mentions with their probabilities, of short and of long texts, against the whole model and enumeration."""

from dataclasses import replace
from pathlib import Path

import pytest
from hmnet_pipe.stages.learning.opened import OpenModel
from hmnet_pipe.stages.predict.posts import Post, Words, words_of
from hmnet_pipe.stages.predict.work import Given, Mention, find_mentions
from hmnet_pipe.stages.systems.marginals import span_types
from hmnet_pipe.stages.text.subwords import Subwords

from ...rigs import config_of, model_of

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
    cut = find_mentions(opened, given(WORDS), recall=0.0, windows=False)
    assert [whole for _, whole in cut] == [True, True, False, False]
    assert max(one.span[1] for one in cut[3][0]) <= 12
    found = find_mentions(opened, given(WORDS), recall=0.0)
    assert all(whole for _, whole in found)
    for (mentions, _), words in zip(found, WORDS, strict=True):
        # With a threshold of 0 every word is of some mention, and none of two.
        covered = [word for one in mentions for word in range(*one.span)]
        assert len(covered) == len(set(covered))
        assert len(covered) > 0.9 * len(words.tokens)
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
    found = find_mentions(opened, short, recall=0.02)
    assert sum(len(mentions) for mentions, _ in found) > 2
    for (mentions, _), spans in zip(found, expected, strict=True):
        for one in mentions:
            assert one.score == pytest.approx(float(spans[one.type][one.span[0], one.span[1] - 1]), abs=1e-12)
    kept = find_mentions(opened, short, min_score=0.05, recall=0.05)
    assert all(one.score >= 0.05 for mentions, _ in kept for one in mentions)
    without = find_mentions(opened, short, min_score=1.0)
    assert [mentions for mentions, _ in without] == [[], []]
    assert isinstance(found[0][0][0], Mention)
