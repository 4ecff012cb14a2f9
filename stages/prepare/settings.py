"""The settings of the prepare stage."""

from dataclasses import MISSING, dataclass
from pathlib import Path

from ...manifests.errors import InputError
from ...manifests.schemas import TASKS
from ...manifests.trial import MOST_SEED
from ..base.settings import check_settings, setting
from ..learning.negative import NEGATIVE_NAMES
from ..text.words import AUTO, WORD_RULES, WORD_SETTINGS, rule_for
from .formats.rows import LABELS
from .readers import FORMAT_NAMES, Reading

__all__ = ["PrepareSettings"]


@dataclass(frozen=True)
class PrepareSettings:
    """The table [prepare] of run.toml. `task` is "ner" or "re"; in the file it stands above the tables."""

    text: Path = setting(MISSING, "folder with one text file per split")
    task: str = setting(MISSING, "ner or re", one_of=TASKS)
    images: Path | None = setting(None, "folder of the images; leave it out to use text only")
    format: str = setting(
        "auto",
        f"one of {', '.join(FORMAT_NAMES)}; auto decides by the files' names and contents",
        one_of=FORMAT_NAMES,
    )
    words: str = setting(
        AUTO,
        f"how raw text becomes words: {', '.join(WORD_RULES)}; "
        "auto: tweet for the layouts of Twitter and MNRE, otherwise simple",
        one_of=WORD_SETTINGS,
    )
    strict_spans: bool = setting(False, "refuse spans of characters that are not whole words")
    column: int = setting(
        0, "column of the labels in a .txt file; 0: the only one after the word", at_least=0, at_most=1000
    )
    labels: str = setting("auto", f"labels of a .txt file, one of {', '.join(LABELS)}", one_of=LABELS)
    negative: str = setting(
        "", f"for relations: the one that says that there is none; empty: one of {', '.join(NEGATIVE_NAMES)}"
    )
    deal_images: int = setting(
        0,
        "deal out random images of the folder in place of the texts' own, by this seed; 0: no",
        at_least=0,
        at_most=MOST_SEED,
    )
    deal_share: float = setting(
        1.0, "with deal_images: the share of the samples that are dealt one", at_least=0, at_most=1
    )

    images_from: str = setting(
        "", "tar files or an address that images are copied from into the folder of images; empty: none"
    )
    mention_boxes: str = setting(
        "",
        "folder with the boxes of mentions, an XML file (Pascal VOC) for each image; empty: none",
        words=("",),
    )

    def __post_init__(self) -> None:
        check_settings("prepare", self)
        if self.mention_boxes and (self.task != "ner" or self.images is None):
            lacking = "a run without images has" if self.task == "ner" else "relations have"
            remedy = (
                "name the folder of images with --images, or leave it out"
                if self.task == "ner"
                else "leave it out"
            )
            raise InputError(f"--mention-boxes: {lacking} no boxes of mentions; {remedy}")

    @property
    def reading(self) -> Reading:
        """Return what these settings say about how texts are read."""
        return Reading(rule_for(self.words, "jsonl"), self.strict_spans, self.column, self.labels)
