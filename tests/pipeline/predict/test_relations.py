"""Which pairs a model of relations is asked about, and which answers are kept."""

import pytest
from hmnet_pipe import Predictor
from hmnet_pipe.manifests.errors import InputError
from hmnet_pipe.pipeline.predict.command import model_meant
from hmnet_pipe.pipeline.predict.relations import allowed, answers, questions
from hmnet_pipe.stages.predict.posts import Post, words_of
from hmnet_pipe.stages.predict.work import Mention, PairFound, pairs_of

POST = Post("Ada met Bob in Oslo")
WORDS = words_of(POST, "simple")
ADA, BOB, OSLO = (
    Mention("PER", (0, 1), 0.9),
    Mention("PER", (2, 3), 0.5),
    Mention("LOC", (4, 5), 0.8),
)
BORN, KNOWS, NONE = "/per/loc/born", "/per/per/knows", "None"


def said(born: float, knows: float) -> PairFound:
    return PairFound({NONE: 1 - born - knows, BORN: born, KNOWS: knows}, whole=True)


def test_every_pair_is_asked_about_in_both_orders_and_the_most_probable_first() -> None:
    asked, left_out = questions(POST, WORDS, [ADA, BOB, OSLO], 2)
    assert left_out == 1  # Bob and Oslo, 0.4
    assert [pair.numbers for pair in asked] == [(0, 1), (1, 0), (0, 2), (2, 0)]
    assert (asked[2].head, asked[2].tail) == ((0, 1), (4, 5))
    assert pairs_of([], 5) == ([], 0)


def test_a_given_pair_is_asked_about_alone_and_without_mentions_one_is_needed() -> None:
    given = Post(POST.text, head=(0, 3), tail=(15, 19))
    asked, left_out = questions(given, WORDS, None, 5)
    assert [(pair.head, pair.tail, pair.numbers) for pair in asked] == [((0, 1), (4, 5), None)]
    assert left_out == 0
    [relation] = answers(asked, [said(0.1, 0.2)], WORDS, [], NONE, types=True)
    assert (relation.relation, relation.head, relation.tail) == (NONE, (0, 3), (15, 19))
    assert relation.score == pytest.approx(0.7)
    with pytest.raises(InputError, match="no head and tail"):
        questions(POST, WORDS, None, 5)
    for head in ((3, 4), (5, 5), (-1, 2), (0, 99)):  # white space, empty, outside
        with pytest.raises(InputError, match="head"):
            questions(Post(POST.text, head=head, tail=(15, 19)), WORDS, None, 5)


def test_of_both_orders_the_one_that_is_less_likely_negative_counts() -> None:
    asked, _ = questions(POST, WORDS, [ADA, OSLO], 5)
    mentions = [ADA, OSLO]
    [relation] = answers(asked, [said(0.2, 0.0), said(0.9, 0.0)], WORDS, mentions, NONE, types=False)
    assert (relation.head, relation.tail) == (1, 0)
    assert relation.factors == pytest.approx((0.8, 0.9, 0.9))
    assert relation.score == pytest.approx(0.8 * 0.9 * 0.9)
    assert relation.negative == pytest.approx(0.1)
    assert answers(asked, [said(0.2, 0.0), said(0.1, 0.0)], WORDS, mentions, NONE, types=False) == []


def test_relations_that_name_their_types_hold_between_these_alone() -> None:
    asked, _ = questions(POST, WORDS, [ADA, OSLO], 5)
    found = [said(0.3, 0.5), said(0.6, 0.3)]
    [relation] = answers(asked, found, WORDS, [ADA, OSLO], NONE, types=True)
    assert (relation.relation, relation.head) == (BORN, 0)  # nothing holds from a place to a person
    assert relation.factors[-1] == pytest.approx(0.3 / 0.5)
    untyped = {NONE: 0.2, "born in": 0.3, KNOWS: 0.5}
    assert allowed(untyped, NONE, "LOC", "PER") == untyped


def test_a_name_that_no_file_can_have_is_one_sentence() -> None:
    name = model_meant("x" * 300, "hmnet", 1)
    with pytest.raises(InputError, match="is no model"):
        Predictor.from_pretrained(name)
