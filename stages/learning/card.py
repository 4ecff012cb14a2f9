"""The model card: README.md in a model's folder, with the front matter that model hubs read.

The same training writes the same card: no time, no name and no path of a machine is in it. It is no output of
a training that a record holds, so that people may write their own.
"""

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from ...manifests.files import read_text, write_text
from ...manifests.printable import in_markdown, markdown_table
from ...manifests.record import StageRecord
from ..systems.batch import ModelConfig
from ..systems.hub import CARD
from ..systems.registry import SUBWORDS, system_info
from ..text.encoders.files import DEMO_ENCODER

__all__ = ["card_of", "keep_card"]

_NOTE = "written by hmnet-pipe, which writes it anew unless it is edited"
_MARKER = re.compile(rf"\n<!-- {_NOTE}: ([0-9a-f]{{64}}) -->\n\Z")
_PUBLISHED = re.compile(r"\b(Twitter-20\d\d|MNRE-2)\b")
_TASKS = {
    "ner": ("entities", "token-classification", "named-entity-recognition"),
    "re": ("relations", "text-classification", "relation-extraction"),
}


def keep_card(folder: Path, text: str) -> bool:
    """Write a card into a model's folder, and return True; return False where a person's is there.

    That one stays: a card is a person's where its last line does not hold the digest of the text above it.
    """
    path = folder / CARD
    try:
        there = read_text(path)
    except FileNotFoundError:
        there = None
    except (OSError, ValueError):
        return False
    if there is not None:
        marker = _MARKER.search(there)
        if marker is None or _digest(there[: marker.start()]) != marker[1]:
            return False
    write_text(path, f"{text}\n<!-- {_NOTE}: {_digest(text)} -->\n")
    return True


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def card_of(
    title: str,
    config: ModelConfig,
    metrics: Mapping[str, Any],
    recipe: Mapping[str, Any],
    prepared: StageRecord | None,
) -> str:
    """Return the card of a model.

    title: the training's. metrics: as in metrics.json. recipe: the settings of the training. prepared: the
    record of the stage that read the data, where there is one.
    """
    details = _details(prepared)
    what, pipeline, tag = _TASKS[config.task]
    data = {split: str(name) for split, name in details.get("data", {}).items()}
    published = sorted({found[1] for name in data.values() if (found := _PUBLISHED.search(name))})
    encoder = str(recipe["encoder"])
    reads_pieces = system_info(config.system).text == SUBWORDS
    head = ModelCardData(
        library_name="hmnet-pipe",
        pipeline_tag=pipeline,
        base_model=encoder if reads_pieces and _is_on_hub(encoder) else None,
        tags=["hmnet-pipe", "multimodal", tag, config.system],
        datasets=[name.lower() for name in published] or None,
        model_name=title,
        eval_results=_results(title, pipeline, tag, metrics, published) or None,
    )
    parts = [
        f"---\n{head.to_yaml()}\n---",
        f"# {in_markdown(title)}",
        f"A model of hmnet-pipe that finds {what} in texts with images. "
        f"System: {in_markdown(config.system)}. It knows {', '.join(_known(config))}.",
        "## Use",
        '```console\nhmnet-pipe predict FOLDER --text "Messi arrives in Paris" --image photo.jpg\n```',
        "```python\n"
        "from hmnet_pipe import Predictor\n\n"
        'find = Predictor.from_pretrained("FOLDER")  # or "user/name" on the hub\n'
        'found = find("Messi arrives in Paris", image="photo.jpg")\n'
        "```",
        "## Scores",
        *(part for split in ("test", "valid") for part in _scores(split, metrics.get(split))),
        "## Data",
        *_data(details, data),
        "## Recipe",
        markdown_table(("setting", "value"), _settings(recipe, metrics)),
        "## What made its visual features",
        *_visual(config),
        "## Limits",
        "\n".join(f"- {line}" for line in _limits(config, what)),
    ]
    return "\n\n".join(parts) + "\n"


def _details(prepared: StageRecord | None) -> Mapping[str, Any]:
    """Return what prepare counted and recognised."""
    details = prepared.facts.get("counts", {}).get("details", {}) if prepared is not None else {}
    return details if isinstance(details, dict) else {}


def _known(config: ModelConfig) -> list[str]:
    types = [label[2:] for label in config.labels if label.startswith("B-")]
    return [in_markdown(name) for name in (types if config.task == "ner" else config.labels)]


def _results(
    title: str, pipeline: str, tag: str, metrics: Mapping[str, Any], published: Sequence[str]
) -> list[EvalResult]:
    """Return the scores as hubs read them."""
    name = " and ".join(published) or "data of its own"
    return [
        EvalResult(
            task_type=pipeline,
            task_name=tag,
            dataset_type=name.lower().replace(" ", "-"),
            dataset_name=name,
            dataset_split=split,
            metric_type=metric,
            metric_value=metrics[split][metric],
        )
        for split in ("test", "valid")
        if metrics.get(split) is not None
        for metric in ("f1", "precision", "recall")
    ]


def _scores(split: str, scores: Mapping[str, Any] | None) -> list[str]:
    """Return the table of a split's scores: overall, per type and per group."""
    if scores is None:
        return []
    named = [
        ("overall", scores),
        *scores["per_type"].items(),
        *((f"group {name}", row) for name, row in scores["per_group"].items()),
    ]
    rows = [
        (name, *(f"{row[key]:.4f}" for key in ("precision", "recall", "f1")), str(row["support"]))
        for name, row in named
    ]
    return [f"On the {split} split:", markdown_table(("", "precision", "recall", "F1", "gold"), rows)]


def _data(details: Mapping[str, Any], data: Mapping[str, str]) -> list[str]:
    if not data:
        return ["It is not recorded what the model was trained on."]
    found = "mentions" if "mentions per split" in details else "relations"
    samples, labels = (details.get(f"{what} per split", {}) for what in ("samples", found))
    rows = [
        (
            split,
            str(samples.get(split, 0)),
            ", ".join(f"{name} {count}" for name, count in labels.get(split, {}).items()),
            known,
        )
        for split, known in data.items()
    ]
    table = markdown_table(("split", "samples", found, "what it is [digest]"), rows)
    dealt = details.get("samples with a random image")
    random = f" Of the samples, {dealt} were dealt a random image in place of their own." if dealt else ""
    return [table, f"Images: {details.get('images', 'not recorded')}.{random}"]


def _settings(recipe: Mapping[str, Any], metrics: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the settings that say something of the model, and nothing of a machine."""
    of_machine = ("device", "cuda_graphs", "processes", "tensorboard")
    # Where something lies on a machine is not said, but its name is.
    shown = {
        name: Path(value).name if name in ("encoder", "vectors") and not _is_on_hub(value) else value
        for name, value in recipe.items()
        if name not in of_machine and value != ""
    }
    rows = [(name, str(value)) for name, value in shown.items()]
    return [*rows, ("best epoch", str(metrics["best_epoch"]))]


def _is_on_hub(encoder: str) -> bool:
    """Return whether an encoder was named as the hub does, and not by its folder."""
    name = r"[A-Za-z0-9][\w.-]*"
    is_name = re.fullmatch(f"({name}/)?{name}", encoder) is not None
    return is_name and encoder != DEMO_ENCODER and not Path(encoder).exists()


def _visual(config: ModelConfig) -> list[str]:
    if config.features is None:
        return ["It reads no features of images."]
    rows = [
        (kind, *((f"weights of {name}", value[:12]) if group == "weights" else (name, str(value))))
        for kind in ("detect", "extract")
        for group in ("parameters", "weights")
        for name, value in config.made_by.get(kind, {}).get(group, {}).items()
    ] or [("extract", name, str(value)) for name, value in config.features.items()]
    return [markdown_table(("stage", "", "value"), rows)]


def _limits(config: ModelConfig, what: str) -> Iterable[str]:
    yield f"It knows no other {what} than those above, as its training data annotate them."
    yield f"Texts were read up to {config.max_length} sub-words or words; what stands beyond was not seen."
    if config.features is not None:
        yield "Images must be made into features as above: others move its scores in unknown ways."
    yield "Its scores are those of one training on one data set; other data give others, usually lower ones."
    yield "It repeats what is one-sided in its data, and is not meant for decisions about people."
