"""What the encoder reads: whole words up to the limit, markers that no truncation takes away, and a sub-word
for every word.
"""

import random
from itertools import accumulate, chain
from pathlib import Path
from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import table_of
from hmnet_pipe.stages.learning.splits import encode_split
from hmnet_pipe.stages.text.encoders.bert import load_tokenizer
from hmnet_pipe.stages.text.limits import MARKERS, encode_pair, encode_words, special_tokens, word_pieces
from hmnet_pipe.stages.text.subwords import Subwords

SPECIAL = (901, 902)
MARKER_IDS = dict(zip(MARKERS, (911, 912, 913, 914), strict=True))
NAMES = {number: name for name, number in MARKER_IDS.items()} | {901: "<", 902: ">"}


def random_words(rng: random.Random, most: int = 12) -> list[list[int]]:
    """Return words of 1 to 4 sub-words, all sub-words different, so that each identifies its word."""
    numbers = iter(range(900))
    return [[next(numbers) for _ in range(rng.randint(1, 4))] for _ in range(rng.randint(1, most))]


def random_range(rng: random.Random, length: int) -> tuple[int, int]:
    start = rng.randrange(length)
    return start, rng.randint(start + 1, length)


def pair(pieces: Any, head: Any, tail: Any, limit: int = 99) -> Any:
    return encode_pair(pieces, head, tail, limit=limit, special=SPECIAL, markers=MARKER_IDS)


def as_text(ids: list[int], words: str = "abcdefghij") -> str:
    """Return ids as letters: sub-word 10 * w + k of word w is the w-th letter."""
    return " ".join(NAMES.get(number) or words[number // 10] for number in ids)


# Entities.


def test_every_word_has_its_first_sub_word_and_only_whole_words_are_kept() -> None:
    text = encode_words([[1, 2], [3], [4, 5, 6], [7]], limit=99, special=SPECIAL)
    assert text.input_ids == [901, 1, 2, 3, 4, 5, 6, 7, 902]
    assert text.positions == [1, 3, 4, 7]
    assert text.words == 4
    cut = encode_words([[1, 2], [3], [4, 5, 6], [7]], limit=7, special=SPECIAL)
    # The third word would need 8 sub-words; the fourth, which would fit in its place, is not read out of
    # order.
    assert cut.input_ids == [901, 1, 2, 3, 902]
    assert (cut.positions, cut.words) == ([1, 3], 2)


@pytest.mark.parametrize("extra", [0, 1])
def test_the_limit_counts_special_tokens(extra: int) -> None:
    text = encode_words([[1, 2], [3, 4]], limit=6 - extra, special=SPECIAL)
    assert text.words == 2 - extra
    assert len(text.input_ids) == 6 - 2 * extra


def test_a_first_word_longer_than_the_limit_stays_with_its_beginning() -> None:
    text = encode_words([[1, 2, 3, 4], [5]], limit=5, special=SPECIAL)
    assert (text.input_ids, text.positions, text.words) == ([901, 1, 2, 3, 902], [1], 1)


def test_as_many_words_from_the_start_as_fit_for_any_words_and_limit() -> None:
    rng = random.Random(0)
    for _ in range(500):
        pieces, limit = random_words(rng), rng.randint(3, 30)
        text = encode_words(pieces, limit=limit, special=SPECIAL)
        pieces[0] = pieces[0][: limit - 2]
        ends = [0, *accumulate(map(len, pieces))]
        kept = max(words for words, end in enumerate(ends) if end + 2 <= limit)
        assert text.words == kept
        assert text.input_ids == [901, *chain(*pieces[:kept]), 902]
        assert [text.input_ids[position] for position in text.positions] == [
            word[0] for word in pieces[:kept]
        ]


# Relations: where the markers go.


@pytest.mark.parametrize(
    ("head", "tail", "expected"),
    [
        ((0, 1), (3, 4), "< [E1] a [/E1] b c [E2] d [/E2] >"),
        ((3, 4), (0, 1), "< [E2] a [/E2] b c [E1] d [/E1] >"),
        ((0, 2), (2, 4), "< [E1] a b [/E1] [E2] c d [/E2] >"),  # touching
        ((2, 4), (0, 2), "< [E2] a b [/E2] [E1] c d [/E1] >"),
        ((0, 4), (1, 2), "< [E1] a [E2] b [/E2] c d [/E1] >"),  # nested
        ((1, 2), (0, 4), "< [E2] a [E1] b [/E1] c d [/E2] >"),
        ((0, 3), (0, 1), "< [E1] [E2] a [/E2] b c [/E1] d >"),  # nested, same start
        ((0, 1), (0, 3), "< [E2] [E1] a [/E1] b c [/E2] d >"),
        ((1, 4), (3, 4), "< a [E1] b c [E2] d [/E2] [/E1] >"),  # nested, same end
        ((3, 4), (1, 4), "< a [E2] b c [E1] d [/E1] [/E2] >"),
        ((1, 3), (1, 3), "< a [E1] [E2] b c [/E2] [/E1] d >"),  # identical
        ((0, 3), (1, 4), "< [E1] a [E2] b c [/E1] d [/E2] >"),  # overlapping
        ((1, 4), (0, 3), "< [E2] a [E1] b c [/E2] d [/E1] >"),
    ],
)
def test_markers_enclose_both_arguments_however_they_lie(
    head: tuple[int, ...], tail: tuple[int, ...], expected: str
) -> None:
    text = pair([[0], [10], [20], [30]], head, tail)
    assert as_text(text.input_ids) == expected
    assert [as_text([text.input_ids[position]]) for position in text.positions] == ["<", "[E1]", "[E2]"]
    assert text.words == 4


@pytest.mark.parametrize(
    ("head", "tail", "last"),
    [((0, 1), (2, 3), "[/E2]"), ((2, 3), (0, 1), "[/E1]"), ((0, 3), (2, 3), "[/E1]")],
)
@pytest.mark.parametrize("limit", [99, 9, 8])
def test_a_closing_marker_stays_where_the_argument_ends_the_text(
    head: tuple[int, ...], tail: tuple[int, ...], last: str, limit: int
) -> None:
    text = pair([[0], [10], [20]], head, tail, limit)
    assert sorted(number for number in text.input_ids if number in MARKER_IDS.values()) == [
        911,
        912,
        913,
        914,
    ]
    assert text.input_ids[-2:] == [MARKER_IDS[last], SPECIAL[1]]


# Relations: what truncation takes.


def test_the_words_farthest_from_both_arguments_go_first() -> None:
    pieces = [[0], [10], [20, 21], [30], [40], [50]]
    assert (
        as_text(pair(pieces, (1, 2), (3, 4), limit=12).input_ids) == "< a [E1] b [/E1] c c [E2] d [/E2] e >"
    )
    assert as_text(pair(pieces, (1, 2), (3, 4), limit=11).input_ids) == "< a [E1] b [/E1] c c [E2] d [/E2] >"
    assert as_text(pair(pieces, (1, 2), (3, 4), limit=8).input_ids) == "< [E1] b [/E1] [E2] d [/E2] >"


@pytest.mark.parametrize("limit", [2, 6, 7])
def test_a_limit_without_room_for_markers_and_arguments_is_refused(limit: int) -> None:
    with pytest.raises(InputError, match=f"max_length {limit} .* at least 8"):
        pair([[0], [10]], (0, 1), (1, 2), limit)


def between(ids: list[int], opening: str, closing: str) -> list[int]:
    inside = ids[ids.index(MARKER_IDS[opening]) + 1 : ids.index(MARKER_IDS[closing])]
    return [number for number in inside if number < 900]


def test_no_marker_is_lost_to_any_limit_and_what_is_lost_is_farthest() -> None:
    rng = random.Random(1)
    shortened = 0
    for _ in range(3000):
        pieces = random_words(rng)
        head, tail = random_range(rng, len(pieces)), random_range(rng, len(pieces))
        limit = rng.randint(8, 40)
        text = pair(pieces, head, tail, limit)
        ids = text.input_ids
        assert len(ids) <= limit
        assert (ids[0], ids[-1]) == SPECIAL
        assert sorted(number for number in ids if number > 900) == [901, 902, 911, 912, 913, 914]
        assert text.positions == [0, ids.index(911), ids.index(913)]
        # Whole words, in order, each on the right side of every marker.
        written = [number for number in ids if number < 900]
        kept = [word for word in range(len(pieces)) if pieces[word][0] in written]
        assert written == list(chain(*(pieces[word] for word in kept)))
        assert text.words == len(kept)
        for (start, end), opening, closing in ((head, "[E1]", "[/E1]"), (tail, "[E2]", "[/E2]")):
            assert ids.index(MARKER_IDS[opening]) < ids.index(MARKER_IDS[closing])
            assert between(ids, opening, closing) == list(
                chain(*(pieces[word] for word in kept if start <= word < end))
            )
        # Nothing goes without need, and nothing goes before what is farther away.
        dropped = [word for word in range(len(pieces)) if word not in kept]
        if dropped:
            shortened += 1
            arguments = {*range(*head), *range(*tail)}
            far = [min(abs(word - other) for other in arguments) for word in range(len(pieces))]
            assert min(far[word] for word in dropped) >= max((far[word] for word in kept), default=0)
            nearest = min(dropped, key=lambda word: (far[word], word))
            assert len(written) + len(pieces[nearest]) > limit - 6
            if sum(len(pieces[word]) for word in arguments) <= limit - 6:
                assert arguments <= set(kept)
    assert 500 < shortened < 2500


# From words to sub-words.


@pytest.mark.parametrize("nothing", ["\u00a0", "\u200b", "\ufeff", "\u00ad", " ", "\u200d\u200d"])
def test_a_word_that_gives_no_sub_word_is_unknown_and_shifts_no_other(
    tiny_encoder: Path, nothing: str
) -> None:
    tokenizer = load_tokenizer(tiny_encoder)
    assert tokenizer(nothing, add_special_tokens=False)["input_ids"] == []
    ada, london = (tokenizer.convert_tokens_to_ids(word) for word in ("ada", "london"))
    unknown = [tokenizer.unk_token_id]
    assert word_pieces(tokenizer, [["ada", nothing, "london"], [nothing]]) == [
        [[ada], unknown, [london]],
        [unknown],
    ]
    assert word_pieces(tokenizer, [[nothing, nothing, "ada", nothing]]) == [
        [unknown, unknown, [ada], unknown]
    ]


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_roberta"])
def test_each_word_has_the_sub_words_that_it_has_alone(request: pytest.FixtureRequest, kind: str) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind))
    rng = random.Random(0)
    words = [
        "Ada",
        "ada",
        "London",
        "xyz",
        "U.S.",
        "#cat@sat",
        "Zürich",
        "你好",
        "can't",
        "RT",
        "@user",
        "https://t.co/x",
        "\U0001f600",
    ]
    for _ in range(20):
        texts = [rng.choices(words, k=rng.randint(1, 9)) for _ in range(4)]
        alone = {word: tokenizer(word, add_special_tokens=False)["input_ids"] for word in words}
        assert word_pieces(tokenizer, texts) == [[alone[word] for word in text] for text in texts]


def test_a_roberta_word_begins_with_its_space_wherever_it_stands(tiny_roberta: Path) -> None:
    tokenizer = load_tokenizer(tiny_roberta)
    pieces = word_pieces(tokenizer, [["ada", "is", "ada"]])[0]
    assert pieces[0] == pieces[2]
    assert all(tokenizer.convert_ids_to_tokens(word[0]).startswith("Ġ") for word in pieces)


@pytest.mark.parametrize(
    ("kind", "names"), [("tiny_encoder", ["[CLS]", "[SEP]"]), ("tiny_roberta", ["<s>", "</s>"])]
)
def test_texts_are_framed_as_the_tokenizer_frames_them(
    request: pytest.FixtureRequest, kind: str, names: list[str]
) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind))
    assert tokenizer.convert_ids_to_tokens(list(special_tokens(tokenizer))) == names


@pytest.mark.parametrize("kind", ["tiny_encoder", "tiny_roberta"])
def test_markers_are_one_new_sub_word_each_and_survive_saving(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str
) -> None:
    tokenizer = load_tokenizer(request.getfixturevalue(kind))
    before = len(tokenizer)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    tokenizer.save_pretrained(tmp_path)
    for one in (tokenizer, load_tokenizer(tmp_path)):
        assert [one.convert_tokens_to_ids(marker) for marker in MARKERS] == [
            before,
            before + 1,
            before + 2,
            before + 3,
        ]
        assert word_pieces(one, [["ada", "sat"]]) == word_pieces(
            load_tokenizer(request.getfixturevalue(kind)), [["ada", "sat"]]
        )


def relation_sample(tokens: list[str], head: tuple[int, int], tail: tuple[int, int]) -> dict[str, Any]:
    return {
        "id": "1",
        "split": "train",
        "task": "re",
        "tokens": tokens,
        "head": head,
        "tail": tail,
        "relation": "None",
    }


def encode_relation(tiny_encoder: Path, *sample: Any, limit: int = 64) -> tuple[Any, Any]:
    tokenizer = load_tokenizer(tiny_encoder)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    split = encode_split(
        table_of(SAMPLES, [relation_sample(*sample)]),
        "train",
        Subwords(tokenizer),
        task="re",
        max_length=limit,
    )
    return tokenizer, split.texts[0]


def test_a_relation_sample_is_written_with_its_markers(tiny_encoder: Path) -> None:
    tokenizer, text = encode_relation(
        tiny_encoder, ["Ada", "\u200b", "lives", "in", "London"], (4, 5), (0, 2)
    )
    names = tokenizer.convert_ids_to_tokens(text.input_ids)
    assert names == [
        "[CLS]",
        "[E2]",
        "ada",
        "[UNK]",
        "[/E2]",
        "lives",
        "in",
        "[E1]",
        "london",
        "[/E1]",
        "[SEP]",
    ]
    assert text.positions == [0, 7, 1]


@pytest.mark.parametrize("word", ["[E1]", "[/E2]"])
def test_a_word_spelled_like_a_marker_is_no_marker(tiny_encoder: Path, word: str) -> None:
    tokenizer, text = encode_relation(tiny_encoder, [word, "is", "ada", "in", "london"], (2, 3), (4, 5))
    names = tokenizer.convert_ids_to_tokens(text.input_ids)
    assert [names.count(marker) for marker in MARKERS] == [1, 1, 1, 1]
    assert names[text.positions[1] + 1] == "ada"
