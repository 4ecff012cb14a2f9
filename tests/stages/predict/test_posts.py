"""Posts as words with their characters, and results as people read them."""

from typing import Any

import pytest
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.stages.predict.posts import Post, words_of
from hmnet_pipe.stages.predict.results import Entity, PostImage, Result

EMOJI = "\N{PARTY POPPER} Zoe\N{COMBINING DIAERESIS} \N{FAMILY} in Oslo"


@pytest.mark.parametrize("text", ["Messi arrives in Paris!", EMOJI, "שלום פריז", "  two  spaces "])
def test_characters_of_words_are_those_of_the_text(text: str) -> None:
    words = words_of(Post(text), "simple")
    assert [text[start:end] for start, end in words.offsets] == words.tokens
    assert words.characters((0, len(words.tokens))) == (
        text.index(words.tokens[0]),
        text.rindex(words.tokens[-1]) + len(words.tokens[-1]),
    )


def test_words_that_are_given_stay_and_their_text_joins_them() -> None:
    words = words_of(Post(tokens=["a", "b-c", "!"]), "simple")
    assert words.text == "a b-c !"
    assert [words.text[start:end] for start, end in words.offsets] == ["a", "b-c", "!"]
    assert words.covering("head", (1, 2)) == (1, 2)


def test_a_given_word_of_white_space_is_one_as_for_training() -> None:
    assert words_of(Post(tokens=["a", "\u00a0", "b"]), "simple").characters((1, 3)) == (2, 5)


@pytest.mark.parametrize(
    ("post", "reason"),
    [
        (Post(), "no text"),
        (Post(""), "empty"),
        (Post(" \n\t"), "white space only"),
        (Post("half \ud83d"), "lone surrogate"),
        (Post(tokens=[]), "no list of words"),
        (Post(tokens=["a", ""]), "no list of words"),
        (Post(tokens=["\u00a0"]), "no list of words"),
        (Post(tokens=["a", 3]), "no list of words"),  # type: ignore[list-item]
        (Post(text=3), "no text"),  # type: ignore[arg-type]
    ],
)
def test_what_has_no_words_is_refused_with_the_reason(post: Post, reason: str) -> None:
    with pytest.raises(InputError, match=reason):
        words_of(post, "simple")


def test_a_result_has_the_keys_of_hugging_face_and_what_the_post_came_with() -> None:
    entity = Entity("PER", "Messi", 0, 5, 0.98)
    result = Result("Messi <b>", "7", entities=(entity,), image=PostImage("missing", "away"), more={"url": 1})
    assert result.to_json() == {
        "url": 1,
        "id": "7",
        "text": "Messi <b>",
        "entities": [{"entity_group": "PER", "word": "Messi", "start": 0, "end": 5, "score": 0.98}],
        "relations": [],
        "objects": [],
        "image_status": "missing",
        "image_reason": "away",
        "truncated": False,
    }
    assert result.to_displacy()["ents"] == [{"start": 0, "end": 5, "label": "PER"}]
    assert result._repr_html_().startswith('<div><mark title="PER 0.98">Messi')
    assert "&lt;b&gt;" in result._repr_html_()


@pytest.mark.parametrize("tokens", ["Ann in Paris", b"Ann", 7])
def test_tokens_that_are_no_list_are_refused_and_not_read_as_letters(tokens: Any) -> None:
    with pytest.raises(InputError, match="its tokens are no list of words"):
        words_of(Post(tokens=tokens), "space")


@pytest.mark.parametrize("span", [("0", "3"), "ab", (0,), (0, 1, 2), 5, (0.0, 3.0)])
def test_a_range_that_is_no_two_numbers_is_refused(span: Any) -> None:
    with pytest.raises(InputError, match="head must be a start and an end"):
        words_of(Post("Ann in Paris"), "space").covering("head", span)
