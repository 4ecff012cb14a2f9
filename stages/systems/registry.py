"""The systems by the names that users type: what planning must know of one. Importing this needs no torch."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ...manifests.errors import InputError, unknown_name
from .variants import VARIANTS

__all__ = [
    "BACKBONE_FILE",
    "RELATION_HEADS",
    "SUBWORDS",
    "SYSTEMS",
    "TEMPERATURE_FILE",
    "TEXTS",
    "WORDS",
    "SystemInfo",
    "system_for",
    "system_info",
]

BACKBONE_FILE = "backbone.safetensors"
"""In the folder of a model that was trained from pixels: the weights of its backbone."""

TEMPERATURE_FILE = "temperature.json"
"""In the folder of a model: the temperature that its probabilities are made with, where one is kept."""

SUBWORDS, WORDS = TEXTS = ("subwords", "words")
"""The sub-words of a pretrained encoder, or words and their characters by vocabularies of the training."""

RELATION_HEADS = ("markers", "cls")
BOTH_TASKS = ("ner", "re")


@dataclass(frozen=True)
class SystemInfo:
    """The facts of a system that are known without building it.

    tasks: what it can be trained for.
    reads: the feature set that it reads, by name; none: no features.
    build: where its class is, "module:class" in this folder, imported only when a model is built.
    text: what it reads of a text, one of TEXTS.
    objects: whether it reads the labels and boxes of detected objects.
    graphs: which graphs it reads, of "scenes" and "dependencies".
    options: the options of its configuration that tell it from others of its class.
    word_dim: the features of its word vectors where no file decides, for a system on words.
    finetunes: whether it can be trained from pixels.
    paper: where it was published.
    replaces: what of the paper is replaced by what, for docs/systems.md.
    version: raised where the same inputs would now train another model, so that trainings are made again.
    """

    name: str
    tasks: tuple[str, ...]
    reads: tuple[str, ...]
    build: str
    text: str = SUBWORDS
    objects: bool = False
    graphs: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)
    word_dim: int = 200
    finetunes: bool = False
    paper: str = ""
    replaces: str = ""
    version: int = 1

    @property
    def is_visual(self) -> bool:
        """Return whether the system reads anything of images."""
        return bool(self.reads) or self.objects or "scenes" in self.graphs

    def feature_set(self, asked: str = "") -> str | None:
        """Return the feature set that a training reads, `asked` or its own; None: it reads no features."""
        return (asked or self.reads[0]) if self.reads else None


SYSTEMS: dict[str, SystemInfo] = {
    info.name: info
    for info in (
        *(
            SystemInfo(name, BOTH_TASKS, ("pyramid",), "hmnet:HMNeT", finetunes=True, paper="HMNeT")
            for name in VARIANTS
        ),
        *(
            SystemInfo(
                name,
                ("ner",),
                ("grid",),
                "adapcoatt:AdapCoAtt",
                options=options,
                paper="Zhang et al., AAAI 2018; with BERT in Yu et al., ACL 2020",
                replaces="VGG-16's cells by those of the cached backbone's last level",
            )
            for name, options in (
                ("adapcoatt-bert-crf", {}),
                ("adapcoatt-bert-crf-concat", {"score": "concat"}),
            )
        ),
        SystemInfo(
            "umt",
            BOTH_TASKS,
            ("grid",),
            "umt:UMT",
            paper="Yu et al., ACL 2020",
            replaces="random crops of the image by the whole of it, without augmentation",
        ),
        SystemInfo(
            "umgf",
            BOTH_TASKS,
            ("vector",),
            "umgf:UMGF",
            paper="Zhang et al., AAAI 2021 (listed as retracted)",
            replaces="visual grounding by detected objects, and a trained backbone by a frozen one",
        ),
        SystemInfo(
            "visualbert",
            BOTH_TASKS,
            ("vector",),
            "visualbert:VisualBERT",
            paper="Li et al., 2019; for these tasks in Chen et al., 2020",
            replaces="a detector's regions by those of the cached backbone, and its pretraining by BERT's "
            "where the encoder is no VisualBERT",
        ),
        *(
            SystemInfo(
                name,
                ("re",),
                ("vector",),
                "scene:BertSG",
                graphs=("scenes",),
                options=options,
                paper="Zheng et al., ACM MM 2021, without code; after MEGA's input path",
                replaces="objects of a scene-graph model by those of the detector, and their features by the "
                "backbone's, unless you bring scene graphs",
            )
            for name, options in (
                ("bert-sg", {}),
                ("bert-sg-att", {"fusion": "attention"}),
                ("bert-sg-edges", {"edges": True}),
            )
        ),
        *(
            SystemInfo(
                name,
                ("re",),
                ("vector",),
                "scene:MEGA",
                graphs=graphs,
                options=options,
                paper="Zheng et al., ACM MM 2021",
                replaces="the scene-graph model by spatial relations of detected objects, and its features "
                "by the backbone's, unless you bring scene graphs; CoreNLP by a parser of your choice",
            )
            for name, graphs, options in (
                ("mega", ("scenes", "dependencies"), {}),
                ("mega-shuffled", ("scenes", "dependencies"), {"structural": "shuffled"}),
                ("mega-unaligned", ("scenes",), {"structural": "off"}),
            )
        ),
        SystemInfo("bert-crf", ("ner",), (), "text_only:TextOnly", paper="Yu et al., ACL 2020"),
        SystemInfo(
            "bert-labels",
            BOTH_TASKS,
            (),
            "text_only:BertLabels",
            objects=True,
            options={"labels_as_text": True},
            paper="a control: bert-crf or mtb with the labels of objects behind the text",
        ),
        SystemInfo(
            "cnn-bilstm-crf",
            ("ner",),
            (),
            "cnn_bilstm_crf:CnnBilstmCrf",
            text=WORDS,
            paper="Ma and Hovy, ACL 2016",
            replaces="GloVe by vectors that are learned, where no file is named",
        ),
        SystemInfo(
            "hbilstm-crf",
            ("ner",),
            (),
            "hbilstm_crf:HBilstmCrf",
            text=WORDS,
            paper="Lample et al., NAACL 2016",
            replaces="skip-n-gram vectors by those of a file in GloVe's format, or by ones that are learned",
        ),
        SystemInfo(
            "ocsga",
            ("ner",),
            (),
            "ocsga:OCSGA",
            text=WORDS,
            objects=True,
            paper="Wu et al., ACM MM 2020",
            replaces="Mask R-CNN's objects by those of the cached detector; GloVe by vectors that are "
            "learned, where no file is named",
        ),
        SystemInfo(
            "mtb",
            ("re",),
            (),
            "text_only:TextOnly",
            version=2,
            paper="Soares et al., ACL 2019",
            replaces="its pretraining by that of the encoder that is named",
        ),
        *(
            SystemInfo(
                name,
                ("re",),
                (),
                "pcnn:PCNN",
                text=WORDS,
                options=options,
                word_dim=50,
                paper="Zeng et al., EMNLP 2015",
                replaces="word2vec vectors by those of a file in GloVe's format, or by ones that are learned",
            )
            for name, options in (("pcnn", {}), ("pcnn-double-dropout", {"double_dropout": True}))
        ),
    )
}


def system_info(name: str) -> SystemInfo:
    """Return the facts of the system `name`. Raises InputError for an unknown one."""
    if name not in SYSTEMS:
        raise unknown_name("system", name, SYSTEMS)
    return SYSTEMS[name]


def system_for(system: str, task: str) -> SystemInfo:
    """Return the facts of `system`, which is to be trained for `task`.

    Raises InputError for an unknown system or one made for the other task.
    """
    info = system_info(system)
    if task not in info.tasks:
        fitting = ", ".join(name for name, other in SYSTEMS.items() if task in other.tasks)
        raise InputError(f"system {system!r} is not one of those for task {task!r}: {fitting}")
    return info
