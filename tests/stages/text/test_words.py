"""Raw text becomes the same words as in the published corpora, and every character is in one of them."""

import ast
import random
import time
from pathlib import Path

import pytest
from hmnet_pipe.stages.prepare.formats.rows import Reading, TextFile
from hmnet_pipe.stages.prepare.formats.twitter import read_twitter
from hmnet_pipe.stages.text.words import (
    WORD_RULES,
    WORD_SETTINGS,
    recorded_rule,
    rule_for,
    rule_of_record,
    split_words,
)

# Of each kind what may stand alone or touch anything: right to left, without spaces, marks, emoji, links.
PIECES = [
    *"aZ_7.,:;!?#@&$%*/|-'\"()[]{}<>=+~^`\\\u2026\u2019\u201c\u201d\u00e9\u00df\u0130",
    *"\u05e9\u05dc\u05f4\u05f3\u0645\u0631\u060c\u061f\u200f\u200e\u202e\u2067\ufeff",  # Hebrew, Arabic
    *"\u6211\u4eac\u30a2\u3042\u0e01\u0e34\u0939\u093f\u094d\uac00\u1100\u1161\U00020000",  # Asian scripts
    *"\u0301\u20dd\u200d\u200c\u20e3\ufe0f\ufe0e\U0001f3fd\U000e0067\U000e007f",  # marks, selectors, skin
    *"\U0001f600\u2764\U0001f1eb\U0001f1f7\U0001f468\U0001f469\U0001f3f4\u20ac\u00bd\u2167\ue000\x00\ud800",
    *(" ", "  ", "\t", "\n", "\u00a0", "\u2028", "\u3000", "\x85", "\x1c", "\u200b"),
    *("https://t.co/ab", "http:", "http://", "www.", "t.co/", "h\u2026", "@ada", "#Rome", "&amp;", "&lt"),
    *("U.S.", "a@b.com", "$MSFT", "...", "--", "w/", "'s", "1\ufe0f\u20e3", "\U0001f1eb\U0001f1f7", "-->"),
]


def words_of(text: str, rule: str = "tweet") -> list[str]:
    return [text[start:end] for start, end in split_words(text, rule)]


@pytest.mark.parametrize("rule", WORD_RULES)
def test_every_character_that_is_no_space_is_in_exactly_one_word(rule: str) -> None:
    dice = random.Random(0)
    for length in (0, 1, 1, 2, 3, 5, 8, 30) * 150:
        text = "".join(dice.choices(PIECES, k=length))
        ranges = split_words(text, rule)
        inside = [at for start, end in ranges for at in range(start, end)]
        assert inside == [at for at, letter in enumerate(text) if not letter.isspace()], (text, ranges)
        assert all(start < end for start, end in ranges)


@pytest.mark.parametrize("rule", WORD_RULES)
def test_every_character_alone_is_a_word_unless_it_is_white_space(rule: str) -> None:
    for code in [*range(0x3100), *range(0xD7F0, 0xE010), *range(0xFE00, 0x10000), *range(0x1F1E0, 0x1F700)]:
        letter = chr(code)
        assert split_words(letter, rule) == ([] if letter.isspace() else [(0, 1)]), hex(code)


@pytest.mark.parametrize("rule", WORD_RULES)
def test_words_joined_by_spaces_are_split_into_the_same_words(rule: str) -> None:
    """So it is for words without what a rule joins, and for whatever words a rule itself makes of letters."""
    dice = random.Random(1)
    for _ in range(200):
        words = ["".join(dice.choices("abc\u05e9\u0645\u0939\u093f", k=dice.randint(1, 6))) for _ in range(5)]
        once = words_of(" ".join(words), rule)
        assert words_of(" ".join(once), rule) == once


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("See https://t.co/Ab1, (www.x.org/a_b).", "See https://t.co/Ab1 , ( www.x.org/a_b ) ."),
        ("http://t.co/8o\u2026 Irish h\u2026", "http://t.co/8o\u2026 Irish h\u2026"),
        (
            "ht\u2026 http:/\u2026 http://\u2026 http://t.c...",
            "ht\u2026 http:/\u2026 http://\u2026 http://t.c...",
        ),
        ("with\u2026 goodhttp://t.co/x", "with \u2026 good http://t.co/x"),
        ("bit.ly/xyz amazon.com, ada@b.com", "bit.ly/xyz amazon.com , ada@b.com"),
        ("RT@Ada_L: in#Roswell #Que-risa!", "RT @Ada_L : in #Roswell #Que-risa !"),
        ("R&amp;B &lt;3 &gt x& M&amp", "R &amp; B &lt; 3 &gt x & M &amp"),
        ("It's rock'n'roll, it\u2019s well-known", "It's rock'n'roll , it\u2019s well-known"),
        ("'quoted' -austin girl- he 's", "' quoted ' - austin girl - he 's"),
        ("no!! why?? well... -- *** //", "no ! ! why ? ? well ... -- *** //"),
        ("U.S.A. J.K. Rowling J.Paul etc.", "U.S.A. J.K. Rowling J . Paul etc ."),
        ("7:30pm 1,000.50 6/10 w/ $MSFT $2.99", "7:30pm 1,000.50 6/10 w/ $MSFT $ 2.99"),
        ("a->b --&gt c", "a -> b --&gt c"),
        ("#\u6211\u7231 \u6211\u7231iPhone7", "#\u6211\u7231 \u6211 \u7231 iPhone7"),
    ],
)
def test_what_the_rule_for_tweets_keeps_whole(text: str, words: str) -> None:
    assert words_of(text) == words.split(" ")


@pytest.mark.parametrize(
    "words",
    [
        ["\u05e6\u05d4\u05f4\u05dc", ","],
        ["\u0645\u0631\u062d\u0628\u0627", "\u060c", "#\u0645\u0631_\u0628\u0643", "!"],
        ["#\u0939\u093f\u0928\u094d\u0926\u0940", "!", "e\u0301t-e\u0301"],
        ["\U0001f468\u200d\U0001f469\u200d\U0001f467", "\U0001f44d\U0001f3fd"],  # a family, a brown thumb
        ["\U0001f1eb\U0001f1f7", "\U0001f1e9\U0001f1ea", "1\ufe0f\u20e3", "2\u20e3"],  # flags, keycaps
        ["\u2764\ufe0f", "\U0001f3f4\U000e0067\U000e0062\U000e007f", "!"],  # a heart, a flag by tags
    ],
)
def test_words_of_other_scripts_and_emoji_are_whole(words: list[str]) -> None:
    assert words_of("".join(words)) == words


@pytest.mark.parametrize(
    "piece", ["a.", "a-", "http://", "&a", "h", "#a'", "\U0001f600\u200d", "w/", "\u0301", "-"]
)
def test_the_time_of_the_rule_for_tweets_is_linear(piece: str) -> None:
    """A post that is made to be slow is not: 20 times the text takes about 20 times as long, never 400."""

    def seconds(text: str) -> float:
        started = time.process_time()
        split_words(text, "tweet")
        return time.process_time() - started

    short = min(seconds(piece * 1_000) for _ in range(3))
    assert seconds(piece * 20_000) < 100 * max(short, 1e-4)


def test_twitter_2015_is_split_as_it_was(data: Path) -> None:
    files = [TextFile.read(data / "twitter2015" / f"{split}.txt") for split in ("train", "valid")]
    files += [
        TextFile.read(data / "twitter2015_pairs" / f"{split}.txt") for split in ("train", "valid", "test")
    ]
    tweets = [draft.tokens for file in files for draft in read_twitter(file, Reading(labels="twitter"))]
    shares = {
        rule: sum(words_of(" ".join(words), rule) == words for words in tweets) / len(tweets)
        for rule in ("simple", "tweet")
    }
    assert len(tweets) > 5000
    assert shares["tweet"] > 0.96, shares
    assert shares["simple"] < 0.01, shares  # which is why tweets have a rule of their own


def test_mnre_is_split_almost_as_it_was(data: Path) -> None:
    lines = (data / "mnre" / "mnre_train.txt").read_text("utf-8").splitlines()
    texts = [ast.literal_eval(line)["token"] for line in lines if line.strip()]
    assert sum(words_of(" ".join(words)) == words for words in texts) / len(texts) > 0.92


def test_a_rule_follows_from_the_setting_and_the_format() -> None:
    assert rule_for("auto", "jsonl") == rule_for("auto", "a format of your own") == "simple"
    assert {rule_for("auto", format) for format in ("twitter", "mnre")} == {"tweet"}
    assert [rule_for(rule, "twitter") for rule in WORD_RULES] == list(WORD_RULES)
    assert rule_for("spaces", "jsonl") == "punctuation"


def test_a_record_leads_back_to_the_rule_and_says_what_it_said_before() -> None:
    for format in ("jsonl", "twitter", "mnre"):
        for words in WORD_SETTINGS:
            name = recorded_rule(words, format)
            assert rule_of_record({"format": format, "words": name}) == rule_for(words, format)
    assert [recorded_rule(name, "jsonl") for name in ("auto", "spaces", "characters")] == [
        "auto",
        "spaces",
        "characters",
    ]
    assert rule_of_record({"format": "twitter"}) == rule_of_record({"format": "mnre"}) == "tweet"
