"""What a run reads from outside besides its data: weights, and the user's scene graphs, trees and parser.

Each is compared with the lock's before anything is computed. What lay at a place of another machine is named
here by an option of `reproduce`.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ...manifests.errors import HmnetPipeError, InputError, WeightsError
from ...stages.dependencies.settings import DependencySettings
from ...stages.dependencies.stage import parser_digest, trees_digest
from ...stages.detect.boxes import boxes_digest
from ...stages.detect.settings import DetectSettings
from ...stages.extract.settings import ExtractSettings
from ...stages.learning.recipe import TrainSettings
from ...stages.learning.words import vectors_digest
from ...stages.prepare.formats.voc import VocFolder
from ...stages.prepare.settings import PrepareSettings
from ...stages.scenes.settings import SceneSettings
from ...stages.scenes.stage import graph_digest
from ...stages.text.encoders.files import encoder_digest, resolve_encoder
from ...stages.vision.weights import digest_of
from ..run.config import RunConfig

__all__ = ["OPTIONS", "Outside", "outside_of", "put_options"]

OPTIONS = {
    "encoder": ("train", "encoder"),
    "vectors": ("train", "vectors"),
    "detector_weights": ("detect", "weights"),
    "mention_boxes": ("prepare", "mention_boxes"),
    "boxes": ("detect", "boxes"),
    "annotations": ("detect", "annotations"),
    "backbone_weights": ("extract", "weights"),
    "graphs": ("scenes", "graphs"),
    "graph_features": ("scenes", "features"),
    "parser_model": ("dependencies", "model"),
}
"""By the options of `reproduce`, the table and key of run.toml that each decides."""


def _encoder(settings: TrainSettings) -> str:
    return encoder_digest(resolve_encoder(settings.encoder))


def _vectors(settings: TrainSettings) -> str:
    return vectors_digest(settings).get("vectors", "")


def _detector(settings: DetectSettings) -> str:
    return digest_of("detector", settings.detector, settings.weights)


def _backbone(settings: ExtractSettings) -> str:
    return digest_of("backbone", settings.backbone, settings.weights)


def _graphs(name: str, config: RunConfig) -> str:
    return graph_digest(config.of(SceneSettings), name)


def _mention_boxes(config: RunConfig) -> str:
    return VocFolder.read(Path(config.of(PrepareSettings).mention_boxes)).digest


def _boxes(name: str, config: RunConfig) -> str:
    return boxes_digest(config.of(DetectSettings), name)


# By the name of a digest in records: how it is called, the option, and the digest of what is there. The
# weights are among a stage's weights, and the files among the inputs of the stage that reads them.
_Known = Mapping[str, tuple[str, str, Callable[[RunConfig], str]]]
_WEIGHTS: _Known = {
    "encoder": ("encoder", "--encoder FOLDER", lambda config: _encoder(config.of(TrainSettings))),
    "vectors": ("vectors", "--vectors FILE", lambda config: _vectors(config.of(TrainSettings))),
    "detector": (
        "detector",
        "--detector-weights FILE or FOLDER",
        lambda config: _detector(config.of(DetectSettings)),
    ),
    "backbone": (
        "backbone",
        "--backbone-weights FILE or FOLDER",
        lambda config: _backbone(config.of(ExtractSettings)),
    ),
    "parser": (
        "parser's model",
        "--parser-model FOLDER",
        lambda config: parser_digest(config.of(DependencySettings)),
    ),
}
_FILES: Mapping[str, _Known] = {
    "prepare": {
        "mention_boxes": ("folder of boxes of mentions", "--mention-boxes FOLDER", _mention_boxes),
    },
    "detect": {
        name: (called, option, partial(_boxes, name))
        for name, called, option in (
            ("boxes", "file of boxes", "--boxes FILE"),
            ("annotations", "file of COCO's annotations", "--annotations FILE"),
        )
    },
    "scenes": {
        name: (called, option, partial(_graphs, name))
        for name, called, option in (
            ("graphs", "file of scene graphs", "--graphs FILE"),
            ("labels", "file beside the scene graphs", "--graphs FILE"),
            ("features", "file of their features", "--graph-features FILE"),
        )
    },
    "dependencies": {
        "trees": (
            "file of trees",
            "--parser-model FILE",
            lambda config: trees_digest(config.of(DependencySettings)),
        )
    },
}


@dataclass(frozen=True)
class Outside:
    """A file or folder from outside: how it is called, its digest in the lock, and the digest of ours.

    option: of `reproduce`, which names another one.
    """

    called: str
    option: str
    locked: str
    here: str


def outside_of(wanted: Mapping[str, Any], config: RunConfig) -> Iterator[Outside]:
    """Yield everything from outside that the stages of a lock used, each once.

    Raises WeightsError or InputError, with the digest and the option, for what is not here.
    """
    seen = set()
    for stage, locked in wanted["stages"].items():
        known = {"weights": _WEIGHTS, "inputs": _FILES.get(stage, {})}
        for group, of_group in known.items():
            for name, digest in locked.get(group, {}).items():
                if name not in of_group or name in seen:
                    continue
                seen.add(name)
                called, option, ours = of_group[name]
                try:
                    yield Outside(called, option, digest, ours(config))
                except HmnetPipeError as error:
                    kind = WeightsError if group == "weights" else InputError
                    raise kind(
                        f"the {called} of the lock, with the digest {digest}, is not here; give it with "
                        f"{option} ({error})"
                    ) from error


def put_options(tables: dict[str, dict[str, Any]], options: Mapping[str, str | None]) -> None:
    """Put what options name into the tables of a run.toml, a path of this machine as an absolute one."""
    for name, given in options.items():
        if given is not None:
            table, key = OPTIONS[name]
            tables.setdefault(table, {})[key] = str(Path(given).resolve()) if Path(given).exists() else given
