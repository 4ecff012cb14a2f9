"""Texts encoded together, word by word once, are what each of them is alone."""

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.stages.learning.columns import taken
from hmnet_pipe.stages.text import encoded
from hmnet_pipe.stages.text.encoded import EncodedTexts, counted_pieces, lengths_of, shortened
from hmnet_pipe.stages.text.encoders.bert import load_tokenizer
from hmnet_pipe.stages.text.limits import MARKERS, EncodedText, encode_pair, encode_words, special_tokens
from hmnet_pipe.stages.text.subwords import Subwords
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast

# Some are written with spaces inside, as special tokens and markers, or as nothing that is left.
WORDS = [
    "Ada",
    "ada",
    "London",
    "xyz",
    "can't",
    "[E1]",
    "[SEP]",
    "</s>",
    "\u00a0",
    "a b",
    "你好",
    "\U0001f600",
    "é",
]


def metaspace(scheme: str) -> PreTrainedTokenizerFast:
    """Return a tokenizer as XLM-R and DeBERTa v3 have them: scores of pieces, of which some begin a word."""
    letters = "adonxyzlcAL'éE1[]SP</>b你好t"
    pieces = [
        ("<unk>", 0.0),
        ("<s>", 0.0),
        ("</s>", 0.0),
        ("<pad>", 0.0),
        ("\u2581", -3.0),
        ("\u2581a", -2.0),
    ]
    pieces += [("\u2581Ada", -1.0), ("on", -1.5), ("\u2581Lon", -1.2), ("don", -1.1)]
    pieces += [(letter, -4.0) for letter in dict.fromkeys(letters)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=0))
    tokenizer.normalizer = normalizers.NFKC()
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def together(tokenizer: Any, texts: Sequence[Sequence[str]]) -> list[list[list[int]]]:
    """Return the sub-words of each word as the tokenizer gives them for whole texts."""
    if not tokenizer.is_fast:
        return [
            [tokenizer.convert_tokens_to_ids(tokenizer.tokenize(word)) for word in text] for text in texts
        ]
    done = tokenizer(
        [list(text) for text in texts],
        is_split_into_words=True,
        add_special_tokens=False,
        split_special_tokens=True,
        verbose=False,
    )
    found = []
    for number, text in enumerate(texts):
        words: list[list[int]] = [[] for _ in text]
        for word, piece in zip(done.word_ids(number), done["input_ids"][number], strict=True):
            words[word].append(piece)
        found.append([word or [tokenizer.unk_token_id] for word in words])
    return found


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_roberta", "always", "first"])
@pytest.mark.parametrize("limit", [3, 9, 40])
def test_texts_encoded_together_are_those_encoded_one_by_one(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, kind: str, limit: int
) -> None:
    named = kind.startswith("tiny")
    tokenizer = load_tokenizer(request.getfixturevalue(kind)) if named else metaspace(kind)
    monkeypatch.setattr(encoded, "_AT_ONCE", 7)
    dice = random.Random(limit)
    texts = [dice.choices(WORDS, k=dice.randint(1, 12)) for _ in range(60)]
    special = special_tokens(tokenizer)
    alone = [encode_words(each, limit=limit, special=special) for each in together(tokenizer, texts)]
    found = Subwords(tokenizer).encode(texts, limit=limit)
    assert [*found] == alone
    assert found[-3:] == alone[-3:]
    check(found, alone, texts, tokenizer)
    assert not Subwords(tokenizer).encode([], limit=limit)


def check(
    found: Sequence[EncodedText], alone: list[EncodedText], texts: list[list[str]], tokenizer: Any
) -> None:
    assert isinstance(found, EncodedTexts)
    assert lengths_of(found) == lengths_of(alone) == [len(text.input_ids) for text in alone]
    numbers = [5, 0, 5, len(alone) - 1, 3]
    some = taken(found, numbers)
    assert isinstance(some, EncodedTexts), "a million texts taken as objects are 2 GB"
    assert [*some] == [alone[number] for number in numbers]
    assert lengths_of(some) == [len(alone[number].input_ids) for number in numbers]
    assert not taken(found, [])
    dropped = sum(text.words < len(words) for text, words in zip(alone, texts, strict=True))
    assert shortened(found, texts) == shortened(alone, texts) == dropped
    unknown = tokenizer.unk_token_id
    inner = [piece for text in alone for piece in text.input_ids[1:-1]]
    assert (
        counted_pieces(found, unknown) == counted_pieces(alone, unknown) == (inner.count(unknown), len(inner))
    )


@pytest.mark.parametrize("limit", [9, 40])
def test_pairs_encoded_together_are_those_encoded_one_by_one(tiny_encoder: Path, limit: int) -> None:
    reader = Subwords.of_encoder(tiny_encoder, "re")
    dice = random.Random(limit)
    texts = [dice.choices(WORDS, k=dice.randint(4, 12)) for _ in range(60)]
    pairs = [((0, dice.randint(1, 2)), (2, dice.randint(3, len(text)))) for text in texts]
    special = special_tokens(reader.tokenizer)
    markers = {marker: reader.tokenizer.convert_tokens_to_ids(marker) for marker in MARKERS}
    alone = [
        encode_pair(words, head, tail, limit=limit, special=special, markers=markers)
        for words, (head, tail) in zip(together(reader.tokenizer, texts), pairs, strict=True)
    ]
    found = reader.encode(texts, pairs, limit=limit)
    assert [*found] == alone
    check(found, alone, texts, reader.tokenizer)
    assert not reader.encode([], [], limit=limit)
