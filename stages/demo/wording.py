"""The texts of the generated corpora: clauses that decide an answer, clauses that fit any, and names."""

from collections.abc import Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from numpy.random import Generator

from .shares import pick

__all__ = [
    "OPEN_MENTIONS",
    "OPEN_PAIRS",
    "TEXT_GROUPS",
    "TEXT_MENTIONS",
    "TEXT_PAIRS",
    "Answer",
    "FewNames",
    "Names",
    "clause_words",
    "word_ner",
    "word_re",
]

Answer = tuple[str, str]
"""The group of a mention or of a pair, and its type or relation."""

TEXT_GROUPS: Collection[str] = ("text", "irrelevant", "missing")
"""The groups that the words decide; those of any other group fit every answer alike."""

# Each of these must read well with a person, a place, an organisation and a product or prize.
OPEN_MENTIONS = (
    "look at {X} this morning",
    "still thinking about {X}",
    "{X} again today",
    "everyone is talking about {X}",
    "so this is {X}",
    "can not stop staring at {X} right now",
    "guess what , {X} !",
    "finally {X}",
    "a quick picture of {X} for you all",
    "love {X} so much",
    "what do you think of {X} ?",
    "here is {X} once more",
    "nothing beats {X} today",
    "{X} looks great in this light",
    "my favourite thing this week : {X}",
    "throwback to {X}",
    "{X} , that is the tweet",
    "never heard of {X} before",
)

TEXT_MENTIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "PER": (
            "{X} scored twice tonight",
            "happy birthday to my brother {X}",
            "{X} said she is tired of waiting",
            "my neighbour {X} sings in the shower",
            "doctor {X} called me back",
            "{X} and his wife are expecting twins",
            "interviewing the actor {X} at noon",
            "{X} broke her left arm",
            "{X} forgot his umbrella",
            "our teacher {X} retires in june",
        ),
        "LOC": (
            "flying to {X} tomorrow",
            "heavy rain in {X} all day",
            "stuck in traffic on the way to {X}",
            "we spent a week in the city of {X}",
            "the mayor of {X} resigned",
            "the streets of {X} are empty",
            "greetings from sunny {X}",
            "the train from {X} is late",
            "the population of {X} has doubled",
            "hiking in the hills north of {X}",
        ),
        "ORG": (
            "{X} shares fell today",
            "{X} hires two thousand engineers",
            "the board of {X} met in secret",
            "{X} inc reports record profits",
            "customers of {X} want a refund",
            "the union at {X} calls a strike",
            "{X} was bought by a competitor",
            "the ceo of {X} stepped down",
            "regulators fined {X} last week",
            "{X} opens its third factory",
        ),
        "MISC": (
            "just unboxed the new {X}",
            "the battery of my {X} died",
            "reading the novel {X} in one night",
            "season two of {X} is on tv",
            "my {X} needs a software update",
            "the film {X} made me cry",
            "pre ordered the {X} in black",
            "the {X} charger does not fit",
            "downloaded {X} version three",
            "the song {X} is stuck in my head",
        ),
    }
)

_NO_MENTION = (
    "coffee first , then the rest",
    "why is it already monday",
    "the weather could be worse",
    "no plans for tonight",
    "need more sleep",
    "that was a long week",
    "best pizza in ages",
    "the bus was late again",
    "so much homework",
    "new shoes , who dis",
    "counting the days until summer",
    "i should really learn to cook",
)

# Each of these must read well with two persons, a person and a place, a person and an organisation, and a
# person and a prize.
OPEN_PAIRS = (
    "{A} and {B} again",
    "{A} with {B} this morning",
    "a quick picture of {A} and {B}",
    "{B} and {A} , what a day",
    "{A} x {B}",
    "look : {A} and {B}",
    "still thinking about {A} and {B}",
    "{A} next to {B} today",
    "so this is {B} with {A}",
    "guess what , {A} and {B} !",
    "everyone is talking about {A} and {B}",
    "throwback to {B} and {A}",
    "{A} plus {B} , that is the tweet",
    "what do you think of {A} and {B} ?",
    "nothing beats {A} with {B}",
    "here is {A} with {B} once more",
)

TEXT_PAIRS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "/per/per/peer": (
            "{A} is best friends with {B}",
            "{A} and {B} were classmates for years",
            "{A} and his colleague {B} share a desk",
            "{B} is the roommate of {A}",
            "{A} has sung in a duo with her friend {B} since school",
            "{A} and {B} are team mates and old friends",
        ),
        "/per/loc/place_of_residence": (
            "{A} lives in {B} now",
            "{A} just moved to {B} for good",
            "{A} bought a flat in downtown {B}",
            "the house of {A} in {B} has a red door",
            "in {B} , where {A} has lived since march",
            "{A} pays too much rent in {B}",
        ),
        "/per/org/member_of": (
            "{A} works for {B}",
            "{A} joined {B} as chief engineer",
            "{A} signed a contract with the company {B}",
            "{B} hired {A} as a manager",
            "{A} is on the board of {B}",
            "{A} , an employee of {B} , is on holiday",
        ),
        "/per/misc/awarded": (
            "{A} won the {B} prize",
            "{A} was awarded the {B}",
            "the jury gave the {B} medal to {A}",
            "{A} takes home the {B} award",
            "and the {B} goes to the winner {A}",
            "{A} received the {B} for her first book",
        ),
        "None": (
            "{A} has nothing to do with {B}",
            "nobody has ever linked {A} to {B}",
            "{A} never even heard of {B}",
            "first a post about {A} , later an unrelated one about {B}",
            "there is no connection between {B} and {A}",
            "{A} is one story , {B} a completely different one",
        ),
    }
)

_CONNECTORS = (",", ".", "and", "but", "while", "meanwhile")
_OPENERS = ("", "", "", "wow ,", "ok ,", "well ,", "lol ,")
_CLOSERS = ("", "", "", "!", "...", "#mood", "#today", "lol")

_ONSETS = (
    "b",
    "br",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "k",
    "kr",
    "l",
    "m",
    "n",
    "p",
    "pl",
    "r",
    "s",
    "sk",
    "t",
    "tr",
    "v",
    "vl",
    "z",
)
_NUCLEI = ("a", "e", "i", "o", "u", "ai", "ou")
_CODAS = ("", "", "n", "l", "r", "x", "sk", "m")


class Names:
    """Invented names of one or two words.

    No word is given out twice, in any split, and no word depends on a type.
    """

    def __init__(self) -> None:
        self._used: set[str] = set()

    def draw(self, rng: Generator) -> list[str]:
        """Return the words of a new name."""
        return [self._word(rng) for _ in range(1 + int(rng.random() < 0.5))]

    def _word(self, rng: Generator) -> str:
        while True:
            syllables = [pick(_ONSETS, rng) + pick(_NUCLEI, rng) for _ in range(int(rng.integers(2, 4)))]
            word = ("".join(syllables) + pick(_CODAS, rng)).capitalize()
            if word not in self._used:
                self._used.add(word)
                return word


class FewNames(Names):
    """Invented names of one word out of a few, which come back in every split.

    With them a text tells no post from another, so that no answer can be learned by heart from it.
    """

    def __init__(self, count: int, rng: Generator) -> None:
        super().__init__()
        self.words = [self._word(rng) for _ in range(count)]
        self._last = ""

    def draw(self, rng: Generator) -> list[str]:
        """Return the word of a name, another one than the last time: the names of a pair differ."""
        self._last = pick([word for word in self.words if word != self._last], rng)
        return [self._last]


def clause_words() -> set[str]:
    """Return all words of posts but their names."""
    texts = [*OPEN_MENTIONS, *OPEN_PAIRS, *_NO_MENTION, *_CONNECTORS, *_OPENERS, *_CLOSERS]
    for clauses in (*TEXT_MENTIONS.values(), *TEXT_PAIRS.values()):
        texts.extend(clauses)
    return {word for text in texts for word in text.split() if not word.startswith("{")}


def word_ner(answers: Sequence[Answer], names: Names, rng: Generator) -> dict[str, Any]:
    """Return tokens and tags of a post with one mention for each of `answers`, with new names."""
    tokens: list[str] = []
    tags: list[str] = []

    def add(text: str, kind: str = "") -> None:
        for token in text.split():
            words = names.draw(rng) if token == "{X}" else [token]
            tokens.extend(words)
            tags.extend([f"B-{kind}"] + [f"I-{kind}"] * (len(words) - 1) if token == "{X}" else ["O"])

    add(pick(_OPENERS, rng))
    for position, (group, kind) in enumerate(answers):
        if position:
            add(pick(_CONNECTORS, rng))
        add(pick(TEXT_MENTIONS[kind] if group in TEXT_GROUPS else OPEN_MENTIONS, rng), kind)
    if not answers:
        add(pick(_NO_MENTION, rng))
    add(pick(_CLOSERS, rng))
    return {"tokens": tokens, "tags": tags}


def word_re(answers: Sequence[Answer], names: Names, rng: Generator) -> dict[str, Any]:
    """Return tokens, head, tail and relation of a post with the one pair of `answers`, with new names."""
    [(group, relation)] = answers
    clause = pick(TEXT_PAIRS[relation] if group in TEXT_GROUPS else OPEN_PAIRS, rng)
    tokens: list[str] = []
    ranges: dict[str, list[int]] = {}
    for token in f"{pick(_OPENERS, rng)} {clause} {pick(_CLOSERS, rng)}".split():
        words = names.draw(rng) if token in ("{A}", "{B}") else [token]
        ranges[token] = [len(tokens), len(tokens) + len(words)]
        tokens.extend(words)
    return {"tokens": tokens, "head": ranges["{A}"], "tail": ranges["{B}"], "relation": relation}
