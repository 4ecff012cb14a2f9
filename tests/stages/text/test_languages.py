"""Texts in Chinese, Japanese, Arabic and German: their words, offsets, markers and limits."""

from pathlib import Path

import pytest
from hmnet_pipe.stages.text.limits import MARKERS
from hmnet_pipe.stages.text.subwords import Subwords
from hmnet_pipe.stages.text.words import split_words
from tokenizers.decoders import ByteLevel

# A text, its words, and the mention whose words the markers stand around.
TEXTS = {
    "Chinese": ("王芳住在上海。", "王 芳 住 在 上 海 。", "上海"),
    "Japanese": ("アダはロンドンで働く。", "ア ダ は ロ ン ド ン で 働 く 。", "ロンドン"),
    "Arabic": ("تعيش عائشة في القاهِرة، مصر.", "تعيش عائشة في القاهِرة ، مصر .", "القاهِرة"),
    "German": ("Jürgen zog nach Groß-Gerau!", "Jürgen zog nach Groß - Gerau !", "Groß-Gerau"),
}


@pytest.fixture(params=TEXTS)
def sample(request: pytest.FixtureRequest) -> tuple[str, list[str], str]:
    text, words, mention = TEXTS[request.param]
    return text, words.split(), mention


def words_of(text: str, mention: str) -> tuple[int, int]:
    """Return the range of words that a mention's characters are."""
    begin = text.index(mention)
    spans = split_words(text)
    inside = [i for i, (start, end) in enumerate(spans) if begin <= start and end <= begin + len(mention)]
    return inside[0], inside[-1] + 1


def test_words_are_those_of_the_language_and_lie_where_they_stand(
    sample: tuple[str, list[str], str],
) -> None:
    text, words, mention = sample
    spans = split_words(text)
    assert [text[start:end] for start, end in spans] == words
    first, last = words_of(text, mention)
    assert text[spans[first][0] : spans[last - 1][1]] == mention


def test_markers_stand_around_the_mention_and_a_limit_keeps_whole_words(
    sample: tuple[str, list[str], str], tiny_roberta: Path
) -> None:
    text, words, mention = sample
    reader = Subwords.of_encoder(tiny_roberta, "re")
    tokenizer = reader.tokenizer
    here, other = words_of(text, mention), (0, 1)
    (pair,) = reader.encode([words], [(here, other)], limit=150)
    opening, closing = (pair.input_ids.index(tokenizer.convert_tokens_to_ids(m)) for m in MARKERS[:2])
    between = ByteLevel().decode(tokenizer.convert_ids_to_tokens(pair.input_ids[opening + 1 : closing]))
    assert between.split() == words[slice(*here)]
    (whole,) = reader.encode([words], limit=150)
    (cut,) = reader.encode([words], limit=len(whole.input_ids) - 1)
    assert (whole.words, cut.words) == (len(words), len(words) - 1)
    assert cut.input_ids[-1] == whole.input_ids[-1]
    assert cut.input_ids[:-1] == whole.input_ids[: whole.positions[-1]]
