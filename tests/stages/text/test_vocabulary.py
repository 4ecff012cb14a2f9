"""The vocabulary of a training: its order, what vectors add, how words are found, and its file."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hmnet_pipe.manifests.errors import WeightsError
from hmnet_pipe.stages.text.encoders.words import WordTable
from hmnet_pipe.stages.text.vectors import Vectors
from hmnet_pipe.stages.text.vocabulary import PAD, UNKNOWN, VOCABULARY_FILE, Vocabulary, Words

TRAIN = [["the", "cat", "the", "No.12"], ["a", "Cat"]]


def vectors_of(*words: str) -> Vectors:
    return Vectors(2, {word: np.array([k, 1], np.float32) for k, word in enumerate(words, 1)})


def test_words_are_those_of_the_training_split_by_falling_count() -> None:
    vocabulary = Vocabulary.of(TRAIN, [["dog"]])
    assert list(vocabulary.words.items()) == [("the", 2), ("Cat", 1), ("No.12", 1), ("a", 1), ("cat", 1)]
    assert vocabulary.characters == ("t", "a", "e", "h")  # C, N, o, ... occur once, and c: unknown ones
    assert (vocabulary.word_ids, vocabulary.character_ids) == (7, 6)


def test_vectors_add_the_words_of_other_splits_that_have_one() -> None:
    vectors = vectors_of("dog", "no.00", "cat", "cow")
    vocabulary = Vocabulary.of(TRAIN, [["DOG", "Rome", "CAT", "No.34"]], vectors)
    assert list(vocabulary.words.items())[5:] == [("dog", 0), ("no.00", 0)]
    reader = Words(vocabulary)
    ids = {word: number for number, word in enumerate(vocabulary.words, 2)}
    assert reader.word_id("DOG") == ids["dog"]
    assert reader.word_id("CAT") == ids["cat"]
    assert reader.word_id("No.34") == ids["no.00"]
    assert reader.word_id("Rome") == reader.word_id("cow") == UNKNOWN


def test_a_word_is_found_as_it_is_then_in_lower_case_then_with_its_digits_as_0() -> None:
    reader = Words(Vocabulary({"Cat": 1, "cat": 1, "no.00": 3, "x1": 2}, ()))
    found = [reader.word_id(word) for word in ("Cat", "CAT", "No.57", "x1", "X1", "x2", "")]
    assert found == [2, 3, 4, 5, 5, UNKNOWN, UNKNOWN]


def test_a_text_is_the_ids_of_its_words_and_of_their_characters() -> None:
    reader = Words(Vocabulary({"at": 2, "cat": 1}, ("a", "t")))
    (text,) = reader.encode([["cat", "At", "a" * 60, ""]], limit=16)
    assert text.input_ids == [3, 2, UNKNOWN, UNKNOWN]
    assert text.positions == [0, 1, 2, 3]
    assert text.characters == [[UNKNOWN, 2, 3], [UNKNOWN, 3], [2] * 45, [UNKNOWN]]
    assert (text.words, text.spans) == (4, None)
    assert PAD not in text.input_ids


def test_a_long_text_keeps_its_first_words() -> None:
    reader = Words(Vocabulary.of([list("abcdef")]))
    (text,) = reader.encode([list("abcdef")], limit=4)
    assert text.input_ids == [reader.word_id(letter) for letter in "abcd"]
    assert text.words == len(text.characters) == 4


@pytest.mark.parametrize(
    ("head", "tail", "limit", "kept", "spans"),
    [
        ((1, 2), (7, 9), 10, "abcdefghij", ((1, 2), (7, 9))),
        ((1, 2), (7, 9), 6, "abcghi", ((1, 2), (4, 6))),  # of words as near, the later ones go
        ((7, 9), (1, 2), 6, "abcghi", ((4, 6), (1, 2))),
        ((0, 6), (8, 10), 4, "abci", ((0, 3), (3, 4))),  # an argument that does not fit keeps its start
    ],
)
def test_a_long_pair_keeps_the_words_next_to_both_arguments(
    head: tuple[int, int],
    tail: tuple[int, int],
    limit: int,
    kept: str,
    spans: tuple[tuple[int, int], tuple[int, int]],
) -> None:
    reader = Words(Vocabulary.of([list("abcdefghij")]))
    (text,) = reader.encode([list("abcdefghij")], [(head, tail)], limit=limit)
    assert text.input_ids == [reader.word_id(letter) for letter in kept]
    assert text.spans == spans


def test_a_saved_vocabulary_reads_as_it_did(tmp_path: Path) -> None:
    vocabulary = Vocabulary.of([["the", "the", "café", "é"]], [["dog"]], vectors_of("dog"))
    Words(vocabulary).save(tmp_path)
    read = Words.of_model(tmp_path).vocabulary
    assert list(read.words.items()) == list(vocabulary.words.items())
    assert read == vocabulary
    assert read.digest == vocabulary.digest
    other = Vocabulary(dict(list(vocabulary.words.items())[::-1]), vocabulary.characters)
    assert other.digest != vocabulary.digest  # the order is that of the ids


GOOD = {"words": ["a", "b"], "counts": [2, 1], "characters": ["a", "b"]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "damaged"),
        ("[]", "its words are not a list"),
        ("[" * 10_000, "damaged"),
        (json.dumps({**GOOD, "words": None}), "its words are not a list"),
        (json.dumps({**GOOD, "words": ["a", 1]}), "1 is not one of words"),
        (json.dumps({**GOOD, "words": ["a", "a"]}), "its words repeat"),
        (json.dumps({**GOOD, "counts": [1]}), "its counts are not one whole number a word"),
        (json.dumps({**GOOD, "counts": [1, True]}), "its counts are not one whole number a word"),
        (json.dumps({**GOOD, "counts": [1, -1]}), "its counts are not one whole number a word"),
        (json.dumps({**GOOD, "characters": ["a", "bc"]}), "'bc' is not one of characters"),
        (json.dumps({**GOOD, "characters": ["a", "a"]}), "its characters repeat"),
    ],
)
def test_a_damaged_vocabulary_is_one_sentence(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / VOCABULARY_FILE).write_text(content)
    with pytest.raises(WeightsError, match=f"{words}.*; train the model again") as raised:
        Vocabulary.load(tmp_path)
    assert "\n" not in str(raised.value)


def test_a_model_without_its_vocabulary_is_refused(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"holds no vocabulary\.json, and its model reads words"):
        Vocabulary.load(tmp_path)


def test_a_table_has_the_vectors_of_the_spelling_that_the_file_has() -> None:
    vectors = vectors_of("cat", "the")
    torch.manual_seed(0)
    table = WordTable.new(Vocabulary.of(TRAIN, (), vectors), 2, vectors)
    rows = dict(zip(["the", "Cat", "No.12", "a", "cat"], table.vectors.weight[2:].tolist(), strict=True))
    assert rows["the"] == [2, 1]
    assert rows["Cat"] == rows["cat"] == [1, 1]
    assert table.seen_once.tolist() == [False, False, False, True, True, True, True]
    assert table.vectors.weight[PAD].tolist() == [0, 0]
