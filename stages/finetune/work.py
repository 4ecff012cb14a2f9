"""One end-to-end training, from tables and images to a model's folder: what the stage `finetune` computes."""

import statistics
import time
from collections.abc import Iterable
from dataclasses import asdict, replace

import torch

from ...manifests.errors import InputError, StageError
from ...manifests.schemas import OUTCOMES
from ...manifests.tables import table_of, write_table
from ..base.arithmetic import autocast, resolve_device, resolve_precision
from ..base.tools import SILENT, Counts, Tools
from ..learning.batches import batches
from ..learning.fit import Data, config_of, fit, join, read_data
from ..systems.batch import Batch, ModelConfig
from ..systems.end_to_end import EndToEnd
from ..systems.hmnet import HMNeT
from ..text.encoders.files import resolve_encoder
from ..vision.backbones.torchvision import build_pyramid
from ..vision.pixels import Pixels
from .stage import Finetune

__all__ = ["finetune"]

# Batches that are timed before training, each after one that is not.
_TIMED = 3


def finetune(stage: Finetune, tools: Tools) -> Counts:
    """Train one system from pixels. All ranks call it; rank 0 writes. Images that could not be read are rows of the outcomes table."""
    if not stage.visual:
        raise InputError(
            f"{stage.system} reads no images: there is nothing to train end to end; use `hmnet-pipe train`"
        )
    ranks = join(stage)
    tools = tools if ranks.leads else SILENT
    extraction, s = stage.extraction, stage.finetune
    images, spec = extraction.images(), extraction.spec()
    pixels = Pixels(images, size=stage.extract.size, views=spec.views, decoders=s.decoders)
    data = read_data(stage, stage.recipe, pixels, tools)
    config = config_of(stage, data, spec)
    text = (
        _started(stage, config)
        if stage.start is not None
        else HMNeT.from_encoder(resolve_encoder(stage.settings.encoder), config)
    )
    with torch.random.fork_rng(
        devices=[]
    ):  # training then goes on as train's does: the same head, order and dropout
        backbone = build_pyramid(
            stage.extract.backbone, stage.extract.weights, stage.extract.pooled, recompute=s.recompute
        )
    model = EndToEnd(text, backbone, unfreeze=s.unfreeze, batch_norm=s.batch_norm, augment=s.augment)
    model.to(resolve_device(stage.settings.device))
    _say_cost(stage, model, data, pixels, tools)
    counts = fit(stage, stage.recipe, stage.rates, model, data, pixels, ranks, tools)
    failures = {key: reason for part in ranks.gather(pixels.failures) for key, reason in part.items()}
    if ranks.leads:
        used = {
            key
            for split in data.splits.values()
            for key in split.image_keys
            if key is not None and key in pixels
        }
        rows = [
            {"image_key": key, "status": "failed" if key in failures else "done", "reason": failures.get(key)}
            for key in sorted(used)
        ]
        write_table(stage.run.outcomes(stage.name), table_of(OUTCOMES, rows))
    return replace(counts, failed=len(failures))


def _started(stage: Finetune, config: ModelConfig) -> HMNeT:
    """The model that `--from` means, which must be of the same system, labels and features."""
    assert stage.start is not None
    model = HMNeT.from_pretrained(stage.start)
    ours, theirs = ({**asdict(one), "encoder": None} for one in (config, model.config))
    for one in (ours, theirs):  # how features are stored does not matter here
        one["features"] = {
            **(one["features"] or {}),
            "dtype": None,
            "levels": tuple((one["features"] or {}).get("levels", ())),
        }
    if different := [name for name in ours if ours[name] != theirs[name]]:
        name = different[0]
        raise StageError(
            f"{stage.start} was trained with {name} {theirs[name]!r}, and here it is {ours[name]!r}; train it again with these settings"
        )
    return model


def _say_cost(stage: Finetune, model: EndToEnd, data: Data, pixels: Pixels, tools: Tools) -> None:
    """Time some steps from pixels, and the same from their pyramids, and say what the cache would save. Nothing is learned from them."""
    split, size = data.splits["train"], stage.recipe.batch_size
    order = [
        list(range(start, min(start + size, len(split))))
        for start in range(0, min(len(split), (1 + _TIMED) * size), size)
    ]
    label_ids = {label: number for number, label in enumerate(data.labels)}
    made = list(
        batches(
            split,
            order,
            task=stage.task,
            pad_id=data.tokenizer.pad_token_id,
            label_ids=label_ids,
            visuals=pixels,
        )
    )
    device = next(model.parameters()).device
    buffers = {name: value.clone() for name, value in model.named_buffers()}
    with torch.random.fork_rng():
        model.train()
        precision = resolve_precision(stage.settings.precision, device)

        def seconds(items: Iterable[Batch]) -> float:
            times = []
            for batch in items:
                started = time.perf_counter()
                with autocast(device, precision):
                    value = model.loss(batch)
                torch.autograd.backward(value)
                value.item()  # waits for a GPU
                times.append(time.perf_counter() - started)
            return statistics.median(times[1:] or times)

        moved = [batch.to(device) for batch in made]
        slow = seconds(moved)
        with torch.no_grad():
            cached = [model.seen(batch) for batch in moved]
        fast = seconds(cached)
    model.zero_grad(set_to_none=True)
    for name, value in model.named_buffers():
        value.copy_(buffers[name])
    tools.say(
        f"{stage.name}: a step takes about {slow:.2f} s from pixels and {fast:.2f} s from the cache: expect an epoch of `hmnet-pipe train` "
        f"to be about {slow / fast:.1f} times as fast"
    )
