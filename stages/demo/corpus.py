"""The demonstration corpus: short posts with pictures, for which it is known what decides each answer.

Every mention (task "ner") or pair (task "re") belongs to one group:

    text         the words decide; the picture shows something else, nothing, or is missing
    vision       the words fit every type alike; the one deciding object (or pair) of the scene is the answer
    undecidable  the words fit every type alike, and the picture decides nothing or is missing; the gold
                 answer is drawn at random

A model that reads only text can therefore be right about one time in four on the last two groups. A model
that uses the picture is right on "vision" and no better than that on "undecidable": if it is better,
something leaks. For the same reason no word of a name and no scene occurs twice in a corpus, even in
different splits.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from numpy.random import Generator

from ..base.tools import SILENT, Tools
from .posts import Draft, write_corpus
from .scenes import DISTRACTORS, draw_scene
from .shares import balanced, pick, shared_out, shuffled
from .wording import TEXT_MENTIONS, TEXT_PAIRS, Answer, Names

__all__ = ["DEFAULT_SIZES", "RELATION_SCENES", "TYPE_SCENES", "write_demo_corpus"]

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


def write_demo_corpus(
    folder: Path, task: str, *, seed: int = 0, sizes: Mapping[str, int] = DEFAULT_SIZES, tools: Tools = SILENT
) -> None:
    """Write the corpus of a task to `folder`, as `write_corpus` does.

    About 8% of the pictures are missing on purpose.
    """
    write_corpus(
        folder,
        task,
        name="demo",
        seed=seed,
        sizes=sizes,
        draft=lambda task, count, rng: (_drafts_ner if task == "ner" else _drafts_re)(count, rng),
        draw=lambda kinds, rng: draw_scene(kinds, rng)[0],
        names=Names(),
        tools=tools,
    )


def _drafts_ner(count: int, rng: Generator) -> list[Draft[list[str]]]:
    plans = _plans(count, _NER_TEXTS, rng)
    open_type = balanced(
        list(TYPE_SCENES), sum("open" in clauses and picture == "relevant" for clauses, picture in plans), rng
    )
    text_type = balanced(list(TEXT_MENTIONS), sum(clauses.count("text") for clauses, _ in plans), rng)
    drafts = []
    for clauses, picture in plans:
        # A relevant picture shows the answer of the open mention; in any other picture the scene decides
        # nothing.
        shown = (
            open_type.pop() if "open" in clauses and picture == "relevant" else pick(list(TYPE_SCENES), rng)
        )
        open_group = "vision" if picture == "relevant" else "undecidable"
        answers: list[Answer] = [
            (open_group, shown) if clause == "open" else ("text", text_type.pop()) for clause in clauses
        ]
        if rng.random() < 0.5:
            answers.reverse()
        drafts.append(Draft(answers, _scene_kinds(TYPE_SCENES[shown], picture, rng)))
    return drafts


def _drafts_re(count: int, rng: Generator) -> list[Draft[list[str]]]:
    plans = _plans(count, _RE_TEXTS, rng)
    open_relation = balanced(
        list(RELATION_SCENES), sum(plan == (("open",), "relevant") for plan in plans), rng
    )
    text_relation = balanced(list(TEXT_PAIRS), sum(clauses == ("text",) for clauses, _ in plans), rng)
    drafts = []
    for clauses, picture in plans:
        decided_by_scene = clauses == ("open",) and picture == "relevant"
        shown = open_relation.pop() if decided_by_scene else pick(list(RELATION_SCENES), rng)
        if clauses == ("text",):
            answer = ("text", text_relation.pop())
        else:
            answer = ("vision" if decided_by_scene else "undecidable", shown)
        drafts.append(Draft([answer], _scene_kinds(RELATION_SCENES[shown], picture, rng)))
    return drafts


def _plans(
    count: int, texts: Mapping[tuple[str, ...], float], rng: Generator
) -> list[tuple[tuple[str, ...], str]]:
    """Return `count` pairs of (clauses, kind of picture) in random order and exact shares.

    The pictures are shared out within the samples of each text.
    """
    plans = [
        (clauses, picture)
        for clauses, samples in zip(texts, shared_out(count, list(texts.values())), strict=True)
        for picture, some in zip(_PICTURES, shared_out(samples, list(_PICTURES.values())), strict=True)
        for _ in range(some)
    ]
    return shuffled(plans, rng)


def _scene_kinds(deciding: Sequence[str], picture: str, rng: Generator) -> list[str] | None:
    """Return the kinds of object in a picture, or None where the picture is missing.

    The kinds are `deciding` and perhaps distractors, or distractors alone.
    """
    if picture == "missing":
        return None
    shown = list(deciding) if picture == "relevant" else []
    fewest, most = (0, _MAX_OBJECTS - len(shown)) if shown else (1, _MAX_OBJECTS)
    return shuffled(shown + [pick(DISTRACTORS, rng) for _ in range(int(rng.integers(fewest, most + 1)))], rng)
