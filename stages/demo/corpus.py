"""The demonstration corpus: short posts with pictures, for which it is known what decides each answer.

Every mention (task "ner") or pair (task "re") belongs to one group:

    text         the words decide; the picture shows something else, nothing, or is missing
    vision       the words fit every type alike; the one deciding object (or pair) of the scene is the answer
    undecidable  the words fit every type alike, and the picture decides nothing or is missing; the gold
    answer
                 is drawn at random

A model that reads only text can therefore be right about one time in four on the last two groups. A model
that uses the picture is right on "vision" and no better than that on "undecidable": if it is better,
something leaks. For the same reason no word of a name and no scene occurs twice in a corpus, even in
different splits.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, TypeVar

from numpy.random import Generator

from ...manifests.files import make_folder, write_text
from ...manifests.schemas import SPLITS, TASKS
from ..base.tools import SILENT, Tools
from .scenes import DISTRACTORS, draw_scene, stream

__all__ = [
    "DEFAULT_SIZES",
    "OPEN_MENTIONS",
    "OPEN_PAIRS",
    "RELATION_SCENES",
    "TEXT_MENTIONS",
    "TEXT_PAIRS",
    "TYPE_SCENES",
    "write_demo_corpus",
]

DEFAULT_SIZES: Mapping[str, int] = MappingProxyType({"train": 900, "valid": 150, "test": 300})

# What a scene shows, and which answer that decides.
TYPE_SCENES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"PER": ("person",), "LOC": ("building",), "ORG": ("logo",), "MISC": ("trophy",)}
)
RELATION_SCENES: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "/per/per/peer": ("person", "person"),
        "/per/loc/place_of_residence": ("person", "building"),
        "/per/org/member_of": ("person", "logo"),
        "/per/misc/awarded": ("person", "trophy"),
    }
)

# What a sample's text contains: one group of clauses for each mention; "open" is a clause that fits every
# answer. The shares sum to 1.
_NER_TEXTS: Mapping[tuple[str, ...], float] = MappingProxyType(
    {("open",): 0.35, ("open", "text"): 0.15, ("text",): 0.25, ("text", "text"): 0.1, (): 0.15}
)
_RE_TEXTS: Mapping[tuple[str, ...], float] = MappingProxyType({("open",): 0.5, ("text",): 0.5})
_PICTURES: Mapping[str, float] = MappingProxyType({"relevant": 0.82, "irrelevant": 0.1, "missing": 0.08})

_MAX_OBJECTS = 3

_T = TypeVar("_T")

# ------------------------------------------------------------------------------------------------- the words

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


class _Names:
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
            syllables = [_pick(_ONSETS, rng) + _pick(_NUCLEI, rng) for _ in range(int(rng.integers(2, 4)))]
            word = ("".join(syllables) + _pick(_CODAS, rng)).capitalize()
            if word not in self._used:
                self._used.add(word)
                return word


# ----------------------------------------------------------------------------------------------- the samples


class _Draft(NamedTuple):
    """A sample before it is worded: a (group, answer) for each mention or for the pair, and its picture.

    kinds: what the picture shows; None where the picture is missing.
    """

    answers: list[tuple[str, str]]
    kinds: list[str] | None


def write_demo_corpus(
    folder: Path, task: str, *, seed: int = 0, sizes: Mapping[str, int] = DEFAULT_SIZES, tools: Tools = SILENT
) -> None:
    """Write `<split>.jsonl` for every split in `sizes` (rows per split) and `images/*.jpg` to `folder`.

    task: "ner" (rows of id, tokens, tags, image, groups) or "re" (id, tokens, head, tail, relation, image,
    groups; head and tail are half-open word ranges). `image` is a file name in `images`; for about 8% of the
    rows that file is missing on purpose. The same arguments write the same bytes. Raises ValueError for
    another task or split.
    """
    if task not in TASKS:
        raise ValueError(f"no demonstration corpus for the task {task!r}, expected one of {', '.join(TASKS)}")
    if unknown := set(sizes) - set(SPLITS):
        raise ValueError(f"unknown splits {sorted(unknown)}, expected some of {', '.join(SPLITS)}")
    images = folder / "images"
    make_folder(images)
    names = _Names()
    drawn: set[bytes] = set()
    bar = tools.bar(sum(sizes.values()), f"drawing the {task} corpus", "sample")
    for split in SPLITS:
        if split not in sizes:
            continue
        words, pictures = (
            stream(f"demo corpus: {task} {split} {part}", seed) for part in ("words", "pictures")
        )
        drafts = _drafts_ner(sizes[split], words) if task == "ner" else _drafts_re(sizes[split], words)
        rows = []
        for number, draft in enumerate(drafts):
            bar.update()
            name = f"{split}-{number:05d}"
            wording = _word_ner(draft, names, words) if task == "ner" else _word_re(draft, names, words)
            groups = [group for group, _ in draft.answers]
            rows.append({"id": name, **wording, "image": f"{name}.jpg", "groups": groups})
            path = images / f"{name}.jpg"
            if draft.kinds is None:
                # A picture left by another seed would make the missing one present.
                path.unlink(missing_ok=True)
                continue
            picture, _ = draw_scene(draft.kinds, pictures)
            content = hashlib.sha256(picture.tobytes()).digest()
            assert content not in drawn, "two streams gave the same scene"
            drawn.add(content)
            picture.save(path, quality=90)
        write_text(
            folder / f"{split}.jsonl", "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        )
    bar.close()


def _drafts_ner(count: int, rng: Generator) -> list[_Draft]:
    plans = _plans(count, _NER_TEXTS, rng)
    open_type = _balanced(
        list(TYPE_SCENES), sum("open" in clauses and picture == "relevant" for clauses, picture in plans), rng
    )
    text_type = _balanced(list(TEXT_MENTIONS), sum(clauses.count("text") for clauses, _ in plans), rng)
    drafts = []
    for clauses, picture in plans:
        # A relevant picture shows the answer of the open mention; in any other picture the scene decides
        # nothing.
        shown = (
            open_type.pop() if "open" in clauses and picture == "relevant" else _pick(list(TYPE_SCENES), rng)
        )
        open_group = "vision" if picture == "relevant" else "undecidable"
        answers = [
            (open_group, shown) if clause == "open" else ("text", text_type.pop()) for clause in clauses
        ]
        if rng.random() < 0.5:
            answers.reverse()
        drafts.append(_Draft(answers, _scene_kinds(TYPE_SCENES[shown], picture, rng)))
    return drafts


def _drafts_re(count: int, rng: Generator) -> list[_Draft]:
    plans = _plans(count, _RE_TEXTS, rng)
    open_relation = _balanced(
        list(RELATION_SCENES), sum(plan == (("open",), "relevant") for plan in plans), rng
    )
    text_relation = _balanced(list(TEXT_PAIRS), sum(clauses == ("text",) for clauses, _ in plans), rng)
    drafts = []
    for clauses, picture in plans:
        decided_by_scene = clauses == ("open",) and picture == "relevant"
        shown = open_relation.pop() if decided_by_scene else _pick(list(RELATION_SCENES), rng)
        if clauses == ("text",):
            answer = ("text", text_relation.pop())
        else:
            answer = ("vision" if decided_by_scene else "undecidable", shown)
        drafts.append(_Draft([answer], _scene_kinds(RELATION_SCENES[shown], picture, rng)))
    return drafts


def _plans(
    count: int, texts: Mapping[tuple[str, ...], float], rng: Generator
) -> list[tuple[tuple[str, ...], str]]:
    """Return `count` pairs of (clauses, kind of picture) in random order and exact shares.

    The pictures are shared out within the samples of each text.
    """
    plans = [
        (clauses, picture)
        for clauses, samples in zip(texts, _shared_out(count, list(texts.values())), strict=True)
        for picture, some in zip(_PICTURES, _shared_out(samples, list(_PICTURES.values())), strict=True)
        for _ in range(some)
    ]
    return _shuffled(plans, rng)


def _shared_out(count: int, shares: Sequence[float]) -> list[int]:
    """Return `count` divided into whole numbers in the ratio of `shares`, by the largest remainder."""
    exact = [count * share / sum(shares) for share in shares]
    parts = [int(part) for part in exact]
    by_remainder = sorted(range(len(shares)), key=lambda index: parts[index] - exact[index])
    for index in by_remainder[: count - sum(parts)]:
        parts[index] += 1
    return parts


def _scene_kinds(deciding: Sequence[str], picture: str, rng: Generator) -> list[str] | None:
    """Return the kinds of object in a picture, or None where the picture is missing.

    The kinds are `deciding` and perhaps distractors, or distractors alone.
    """
    if picture == "missing":
        return None
    shown = list(deciding) if picture == "relevant" else []
    fewest, most = (0, _MAX_OBJECTS - len(shown)) if shown else (1, _MAX_OBJECTS)
    return _shuffled(
        shown + [_pick(DISTRACTORS, rng) for _ in range(int(rng.integers(fewest, most + 1)))], rng
    )


def _word_ner(draft: _Draft, names: _Names, rng: Generator) -> dict[str, Any]:
    tokens: list[str] = []
    tags: list[str] = []

    def add(text: str, kind: str = "") -> None:
        for token in text.split():
            words = names.draw(rng) if token == "{X}" else [token]
            tokens.extend(words)
            tags.extend([f"B-{kind}"] + [f"I-{kind}"] * (len(words) - 1) if token == "{X}" else ["O"])

    add(_pick(_OPENERS, rng))
    for position, (group, kind) in enumerate(draft.answers):
        if position:
            add(_pick(_CONNECTORS, rng))
        add(_pick(TEXT_MENTIONS[kind] if group == "text" else OPEN_MENTIONS, rng), kind)
    if not draft.answers:
        add(_pick(_NO_MENTION, rng))
    add(_pick(_CLOSERS, rng))
    return {"tokens": tokens, "tags": tags}


def _word_re(draft: _Draft, names: _Names, rng: Generator) -> dict[str, Any]:
    [(group, relation)] = draft.answers
    clause = _pick(TEXT_PAIRS[relation] if group == "text" else OPEN_PAIRS, rng)
    tokens: list[str] = []
    ranges: dict[str, list[int]] = {}
    for token in f"{_pick(_OPENERS, rng)} {clause} {_pick(_CLOSERS, rng)}".split():
        words = names.draw(rng) if token in ("{A}", "{B}") else [token]
        ranges[token] = [len(tokens), len(tokens) + len(words)]
        tokens.extend(words)
    return {"tokens": tokens, "head": ranges["{A}"], "tail": ranges["{B}"], "relation": relation}


def _pick(options: Sequence[_T], rng: Generator) -> _T:
    return options[int(rng.integers(len(options)))]


def _shuffled(items: Sequence[_T], rng: Generator) -> list[_T]:
    return [items[int(index)] for index in rng.permutation(len(items))]


def _balanced(labels: Sequence[str], count: int, rng: Generator) -> list[str]:
    """Return `count` labels in random order; no label occurs more than once more than another."""
    return _shuffled([labels[index % len(labels)] for index in range(count)], rng)
