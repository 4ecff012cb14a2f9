"""What a report shows, as plain data: its printers are the HTML page and the files of figures.

None is shown as not known, and `why` says what is missing and what makes it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...stages.evaluate.examined import Examined
from ...stages.learning.errors import Entity
from ..run.trainings import Spread

__all__ = [
    "Box",
    "Calibrated",
    "CaseShown",
    "Curve",
    "DataFacts",
    "Drawn",
    "ErrorSample",
    "Errors",
    "Gates",
    "GroupUse",
    "ImageUse",
    "Photo",
    "Provenance",
    "Report",
    "RunReport",
    "ScoreRow",
    "StageFact",
    "Story",
]


@dataclass(frozen=True)
class ScoreRow:
    """A row of the table: trainings that differ in seed and subset alone.

    scores: precision, recall and f1 on the split, and valid_f1. each: F1 on the split by training. best: the
    names of the scores that no other row exceeds. difference: from text alone, as
    pipeline.run.trainings.differences makes it. per_type: F1 by type.
    """

    name: str
    system: str
    is_visual: bool
    trainings: int
    scores: Mapping[str, Spread | None]
    each: tuple[float, ...]
    best: frozenset[str]
    difference: Mapping[str, Any] | None
    per_type: Mapping[str, Spread]


@dataclass(frozen=True)
class GroupUse:
    """F1 of one group of mentions, or of all, with the images as they are, dealt out at random, and gone."""

    group: str
    support: int
    as_is: float
    shuffled: float | None
    without: float | None


@dataclass(frozen=True)
class ImageUse:
    """What one training loses where its images are shuffled, and where they are gone."""

    name: str
    title: str
    is_visual: bool
    groups: tuple[GroupUse, ...]


@dataclass(frozen=True)
class ErrorSample:
    """One error with its sample: what should be there and what was said, with their words."""

    id: str
    gold: str | None
    gold_words: str
    predicted: str | None
    predicted_words: str
    probability: float | None
    text: str | None


@dataclass(frozen=True)
class Errors:
    """The errors of one training. report: as stages.learning.errors makes it. samples: by kind, the first.

    file: that of all errors, "" where they are kept in none.
    """

    title: str
    report: Mapping[str, Any]
    samples: Mapping[str, tuple[ErrorSample, ...]]
    file: str


@dataclass(frozen=True)
class Box:
    """An object of a photo: its view's number, and its sides as shares of the photo's."""

    view: int
    label: str
    score: float
    sides: tuple[float, float, float, float]


@dataclass(frozen=True)
class Drawn:
    """A box that a person drew for a mention: how it is called, and its sides as those of Box."""

    label: str
    sides: tuple[float, float, float, float]


@dataclass(frozen=True)
class Photo:
    """A thumbnail as a data URI, and its size in pixels; no URI where it is not shown.

    boxes: of the detected objects. drawn: of the sample's mentions.
    """

    uri: str | None
    width: int
    height: int
    boxes: tuple[Box, ...]
    drawn: tuple[Drawn, ...] = ()


@dataclass(frozen=True)
class CaseShown:
    """A sample with everything that there is to see of it.

    gold: its answers. said: those of each training, by its title. pair: head and tail of a relation,
    half-open.
    """

    id: str
    tokens: tuple[str, ...] | None
    gold: tuple[Entity, ...]
    said: Mapping[str, tuple[Entity, ...]]
    pair: tuple[tuple[int, int], tuple[int, int]] | None
    photo: Photo | None
    examined: Examined | None
    answer: Entity


@dataclass(frozen=True)
class Story:
    """The cases of one group, with the rule by which they were chosen."""

    group: str
    title: str
    rule: str
    cases: tuple[CaseShown, ...]


@dataclass(frozen=True)
class Gates:
    """The mean gate probabilities over a split. values: [view][layer][level]. samples: of each view."""

    views: tuple[str, ...]
    values: tuple[tuple[tuple[float, ...], ...], ...]
    samples: tuple[int, ...]


@dataclass(frozen=True)
class Curve:
    """Loss and validation F1 of one training by epoch."""

    name: str
    seed: int
    best_epoch: int
    epochs: tuple[int, ...]
    loss: tuple[float | None, ...]
    valid_f1: tuple[float | None, ...]


@dataclass(frozen=True)
class Calibrated:
    """How far the probabilities of one training can be trusted. report: of stages.learning.calibration."""

    title: str
    report: Mapping[str, Any]


@dataclass(frozen=True)
class DataFacts:
    """What the run was made of.

    splits: of each split its samples, those with an image, its words, and what is known of it. mentions: of
    each split the mentions (or relations) of each type. lengths: how many mentions have 1, 2, ... words.
    problems: kind, reason and how many. labels: detected labels, most frequent first. truncated: of each
    split, how many texts the shown model reads in part.
    """

    splits: Mapping[str, Mapping[str, Any]]
    mentions: Mapping[str, Mapping[str, int]]
    lengths: Mapping[int, int]
    images: int
    problems: tuple[tuple[str, str, int], ...]
    labels: tuple[tuple[str, int], ...]
    objects: int | None
    truncated: Mapping[str, int] | None = None


@dataclass(frozen=True)
class StageFact:
    """A finished stage: its fingerprint, when, in how many seconds and by which version it was made."""

    name: str
    fingerprint: str
    finished: str
    seconds: float | None
    version: str


@dataclass(frozen=True)
class Provenance:
    """What the run was made from. machines: each kind that a stage ran on. lock: the text of its lock."""

    stages: tuple[StageFact, ...]
    versions: Mapping[str, str]
    machines: tuple[str, ...]
    lock: str | None
    why_no_lock: str
    commands: tuple[str, ...]


@dataclass(frozen=True)
class RunReport:
    """All that is shown of one run. split: the one that is scored. shown: the training that is looked into.

    setting: the name of its row. grounding: as stages.evaluate.grounding makes it, or None. counts: each
    type, how many the gold has of it, and how many were predicted. why: of a part that is missing, by its
    name, the reason.
    """

    name: str
    task: str
    split: str
    shown: str
    setting: str
    against: str | None
    rows: tuple[ScoreRow, ...]
    types: Mapping[str, int]
    notes: tuple[str, ...]
    uses: tuple[ImageUse, ...]
    kinds: tuple[tuple[str, Mapping[str, int]], ...]
    errors: Errors | None
    stories: tuple[Story, ...]
    gates: Gates | None
    curves: tuple[Curve, ...]
    calibrated: Calibrated | None
    grounding: Mapping[str, Any] | None
    counts: tuple[tuple[str, int, int], ...]
    data: DataFacts
    provenance: Provenance
    why: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Report:
    """A report of one run or several. command: makes it again. version: of hmnet-pipe."""

    runs: tuple[RunReport, ...]
    command: str
    version: str
    made: str
