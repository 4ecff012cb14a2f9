"""Scoring a trained model on any split, of its own run or of another run's data, with the images as they are or shuffled."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ...cache.reader import FeatureCache
from ...cache.spec import FeatureSpec
from ...manifests.errors import InputError, StageError
from ...manifests.files import write_text
from ...manifests.run import RunFolder
from ...manifests.schemas import SAMPLES
from ...manifests.tables import read_table, write_table
from ..base.arithmetic import resolve_device, resolve_precision
from ..base.tools import SILENT, Tools
from ..learning.batches import Visuals
from ..learning.predictions import predict_split, predictions_table, score_split
from ..learning.scores import Scores
from ..learning.splits import encode_split, shuffled_images
from ..systems.end_to_end import BACKBONE_FILE, EndToEnd
from ..systems.folder import load_system
from ..text.encoders.bert import load_tokenizer
from ..vision.pixels import Pixels
from ..vision.plan import ViewPlan
from .explanation import explanations_table

__all__ = ["evaluate"]


def evaluate(
    folder: Path,
    data: RunFolder,
    *,
    split: str = "test",
    shuffle_images: bool = False,
    shuffle_seed: int = 0,
    explain: bool = False,
    plan: ViewPlan | None = None,
    device: str = "auto",
    precision: str = "auto",
    tools: Tools = SILENT,
) -> tuple[Scores, Path]:
    """Score the model in `folder` on a split of the run `data`. Returns the scores and the file that they were written to.

    The scores and the predictions go into the model's folder as evaluation-<split>[-shuffled].json and .parquet, and with `explain`
    what the model looked at as explanation-<split>[-shuffled].parquet.
    A model that finetune made sees pixels: it needs `plan`, the views that extract would see of `data`.
    Raises InputError where the split has no sample or the labels are of another task, StageError where the features are others.
    """
    from_pixels = (folder / BACKBONE_FILE).is_file()
    model = (EndToEnd.from_pretrained if from_pixels else load_system)(folder).to(resolve_device(device))
    config = model.config
    samples = read_table(data.samples, SAMPLES, "prepare")
    tasks = set(samples.column("task").to_pylist())
    if tasks - {config.task}:
        raise InputError(
            f"{folder} was trained for task {config.task}, and {data.samples} holds samples for {', '.join(sorted(tasks))}"
        )
    tokenizer = load_tokenizer(folder / "tokenizer")
    chosen = encode_split(samples, split, tokenizer, task=config.task, max_length=config.max_length)
    if not len(chosen):
        raise InputError(
            f"{data.samples} has no {split} split; it has {', '.join(sorted(set(samples.column('split').to_pylist())))}"
        )
    visuals: Visuals | None = None
    if from_pixels:
        visuals = _pixels(data, plan, config.features)
    elif config.levels:
        visuals = _features(data, config.features)
    if shuffle_images:
        if visuals is None:
            raise InputError(f"{config.system} reads no images, so that they cannot be shuffled")
        chosen = shuffled_images(chosen, shuffle_seed)
    arithmetic = resolve_precision(precision, next(model.parameters()).device)
    predicted = predict_split(
        model, chosen, visuals=visuals, pad_id=tokenizer.pad_token_id, precision=arithmetic, tools=tools
    )
    scores = score_split(chosen, predicted, config.task)
    name = f"{split}{'-shuffled' if shuffle_images else ''}"
    if data.path.resolve() not in folder.resolve().parents:
        name += f"-of-{data.path.resolve().name}"
    result: dict[str, Any] = {
        "system": config.system,
        "split": split,
        "shuffled_images": shuffle_images,
        "scores": scores,
    }
    if explain:
        if visuals is None:
            raise InputError(
                f"{config.system} reads no images: there is no gate and no attention to views to explain"
            )
        looked = explanations_table(
            model, chosen, visuals=visuals, pad_id=tokenizer.pad_token_id, precision=arithmetic, tools=tools
        )
        write_table(folder / f"explanation-{name}.parquet", looked)
    write_table(folder / f"evaluation-{name}.parquet", predictions_table(chosen, predicted, visuals))
    path = folder / f"evaluation-{name}.json"
    write_text(path, json.dumps(result, indent=2) + "\n")
    return scores, path


def _features(data: RunFolder, trained_on: dict[str, Any] | None) -> FeatureCache:
    """The features of `data`, which must be made as those that the model was trained on: same backbone, weights and transform."""
    cache = FeatureCache(data.features())
    _check(str(data.features()), cache.spec, trained_on, ("dtype",))
    return cache


def _pixels(data: RunFolder, plan: ViewPlan | None, trained_on: dict[str, Any] | None) -> Pixels:
    """Return the pixels of the planned views, which must be as many and of the size that the model was trained on."""
    if plan is None:
        raise InputError(
            "a model that finetune made sees pixels: give the plan of the views that it shall see, "
            "as the extract stage of their run makes it"
        )
    _check(str(data.config), plan.spec, trained_on, ("dtype", "weights"))  # the model brings its own weights
    return Pixels(plan.images, transform=plan.spec.transform, views=plan.spec.views, decoders=2)


def _check(where: str, spec: FeatureSpec, trained_on: dict[str, Any] | None, but: Sequence[str]) -> None:
    if trained_on is None:
        return
    made, wanted = spec.to_json(), FeatureSpec.from_json(trained_on).to_json()
    for field, value in wanted.items():
        if field not in (*but, "precision") and made[field] != value:
            raise StageError(
                f"the features of {where} have {field} {made[field]!r}, and the model was trained on {value!r}; "
                "extract them with the model's settings first"
            )
