"""The diagnostic corpus: posts in groups, each group decided by one thing, so that systems are told apart.

Every mention (task "ner") or pair (task "re") belongs to one group. The words decide in

    text        there is no picture
    missing     a picture is named and is not there
    irrelevant  the picture shows what would decide another mention, of whatever type

In the other groups the words fit every type alike, and the picture decides by what `cues` names: kind,
detail, scene, texture or agreement. Types are equally frequent in every group, and nothing but the group's
own cue depends on them. A system that does not see the cue is therefore right about one time in four, and one
time in two in "agreement", which has two answers.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from numpy.random import Generator

from ..base.tools import SILENT, Tools
from ..text.encoders.files import OWN_ENCODER
from .corpus import RELATION_SCENES, TYPE_SCENES
from .cues import CUES, PATTERNS, Picture, draw_picture
from .encoder import write_encoder
from .posts import Draft, write_corpus
from .scenes import DISTRACTORS, stream
from .shares import balanced, pick, shared_out, shuffled
from .wording import TEXT_GROUPS, TEXT_MENTIONS, TEXT_PAIRS, FewNames, clause_words

__all__ = ["DIAGNOSTIC_SIZES", "GROUPS", "write_diagnostic_corpus"]

DIAGNOSTIC_SIZES: Mapping[str, int] = MappingProxyType({"train": 6000, "valid": 400, "test": 500})

# Words of a post are names, openers and clauses: with few names, no text tells one post from another.
_NAMES = 12

# Fine textures differ faintly: a model learns them by heart from its noisiest level where there are few.
GROUPS: Mapping[str, float] = MappingProxyType(
    {
        "kind": 0.07,
        "detail": 0.09,
        "scene": 0.11,
        "texture": 0.4,
        "agreement": 0.13,
        "irrelevant": 0.1,
        "missing": 0.05,
        "text": 0.05,
    }
)
"""The share of each group; they sum to 1."""


def write_diagnostic_corpus(
    folder: Path,
    task: str,
    *,
    seed: int = 0,
    sizes: Mapping[str, int] = DIAGNOSTIC_SIZES,
    tools: Tools = SILENT,
) -> None:
    """Write the corpus of a task to `folder`, as `write_corpus` does, with its text encoder."""
    names = FewNames(_NAMES, stream("diagnostic corpus: names", seed))
    write_encoder(
        folder / OWN_ENCODER, {*clause_words(), *names.words}, stream("diagnostic corpus: encoder", seed)
    )
    write_corpus(
        folder,
        task,
        name="diagnostic",
        seed=seed,
        sizes=sizes,
        draft=drafts,
        draw=lambda picture, rng: draw_picture(picture, rng).image,
        names=names,
        tools=tools,
    )


def drafts(task: str, count: int, rng: Generator) -> list[Draft[Picture]]:
    """Return `count` posts of a task in random order, in the shares of GROUPS, types balanced in each."""
    scenes = TYPE_SCENES if task == "ner" else RELATION_SCENES
    found = []
    for group, some in zip(GROUPS, shared_out(count, list(GROUPS.values())), strict=True):
        if group in TEXT_GROUPS:
            for answer in balanced(list(TEXT_MENTIONS if task == "ner" else TEXT_PAIRS), some, rng):
                shown = _picture(pick(list(CUES), rng), pick(list(scenes), rng), scenes, rng)
                found.append(
                    Draft([(group, answer)], shown if group == "irrelevant" else None, group != "text")
                )
        else:
            for answer in balanced(_answers(group, scenes), some, rng):
                found.append(Draft([(group, answer)], _picture(group, answer, scenes, rng)))
    return shuffled(found, rng)


def _answers(cue: str, scenes: Mapping[str, Any]) -> list[str]:
    """Return the types or relations that a cue decides between: two things agree or do not."""
    return list(scenes)[: 2 if cue == "agreement" else None]


def _picture(cue: str, answer: str, scenes: Mapping[str, Sequence[str]], rng: Generator) -> Picture:
    """Return a picture whose cue decides for `answer`; all else is drawn at random."""
    number = list(scenes).index(answer)
    match cue:
        case "kind":
            others = [pick(DISTRACTORS, rng) for _ in range(int(rng.integers(2)))]
            return Picture(cue, tuple(shuffled([*scenes[answer], *others], rng)))
        case "agreement":
            first, other = shuffled(DISTRACTORS, rng)
            return Picture(cue, (first, first if number % 2 == 0 else other))
        case "scene":
            return Picture(cue, ("tree",), PATTERNS[number])
        case _:
            return Picture(cue, ("ball",), PATTERNS[number])
