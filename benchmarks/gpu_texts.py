"""What a GPU makes of training and prediction, with CUDA graphs and without: a part of benchmarks/gpu.py."""

import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_turns import Measured, Sizes, halved, take_turns
from hmnet_pipe.cache.reader import FeatureCache
from hmnet_pipe.stages.base.arithmetic import resolve_precision
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning.batches import Visuals, batches, bucketed_order
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.loop import Task, Trainer
from hmnet_pipe.stages.learning.predictions import predict_split
from hmnet_pipe.stages.learning.ranks import Ranks
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import Split
from hmnet_pipe.stages.systems.batch import Batch, ModelConfig
from hmnet_pipe.stages.systems.build import build_system
from hmnet_pipe.stages.text.encoders.bert import encoder_from_config
from hmnet_pipe.stages.text.limits import EncodedText
from torch import Tensor, nn
from train_speed import LABELS, SPEC, make_cache
from transformers import BertConfig, BertModel

__all__ = ["measure_texts"]

PLAIN, GRAPHS, COMPILED = "step by step", "CUDA graphs", "CUDA graphs and torch.compile"


@dataclass(frozen=True)
class Material:
    """What the contenders train on, and where."""

    split: Split
    cache: FeatureCache
    encoder: BertConfig
    device: torch.device
    folder: Path

    def batches(self, order: list[list[int]], visuals: Visuals | None = None) -> list[Batch]:
        labels = {label: number for number, label in enumerate(LABELS)}
        given: dict[str, Any] = {"task": "ner", "pad_id": 0, "label_ids": labels, "device": self.device}
        return list(batches(self.split, order, visuals=visuals, **given))

    def trainer(self, system: str, settings: TrainSettings) -> Trainer:
        """Return a training of a system with random weights, as `hmnet-pipe train` makes it."""
        torch.manual_seed(1)
        levels, visuals = (SPEC.levels, self.cache) if system == "hmnet" else ((), None)
        config = ModelConfig(system, "ner", LABELS, levels, "markers", 128, {}, None)
        model = build_system(config, encoder_from_config(self.encoder.to_dict()))
        splits = {"train": self.split, "valid": self.split.take([])}
        task = Task(system, settings, 1, splits, visuals, 0, settings.rates, None)
        checkpoints = Checkpoints(self.folder / system, every=math.inf)
        return Trainer(task, model.to(self.device), checkpoints, Ranks())


def make_split(samples: int) -> Split:
    """Return tweets of random words with tags, each with an image of its own."""
    rng = np.random.default_rng(0)
    lengths = rng.normal(28, 10, samples).clip(8, 100).astype(int).tolist()
    texts: list[EncodedText] = []
    gold: list[list[str]] = []
    for length in lengths:
        words = int(length * 0.6)
        ids = [2, *rng.integers(1000, 30000, length - 2).tolist(), 3]
        texts.append(EncodedText(ids, sorted(rng.choice(range(1, length - 1), words, False).tolist()), words))
        tags = rng.integers(0, 5, words)
        gold.append([LABELS[2 * tag - 1] if tag else "O" for tag in tags])
    names, keys = [str(i) for i in range(samples)], [f"{i:064x}" for i in range(samples)]
    tokens = [["word"] * len(tags) for tags in gold]
    return Split("train", names, tokens, gold, [[] for _ in names], keys, texts)


class Bare(nn.Module):
    """transformers' BERT with a linear head, as its own token classification is."""

    def __init__(self, config: BertConfig, device: torch.device) -> None:
        super().__init__()
        self.bert = BertModel(config, add_pooling_layer=False)
        self.head = nn.Linear(config.hidden_size, len(LABELS))
        self.to(device)
        fused = device.type in ("cuda", "cpu")
        self.optimizer = torch.optim.AdamW(self.parameters(), lr=3e-5, fused=fused)

    def scores(self, batch: Batch) -> Tensor:
        made = self.bert(input_ids=batch.input_ids, attention_mask=batch.attention_mask)
        scores: Tensor = self.head(made.last_hidden_state)
        return scores

    def step(self, batch: Batch) -> None:
        with halved(batch.input_ids.device):
            # One label a sub-word: some of the words', and as many numbers as sub-words.
            labels = batch.input_ids % len(LABELS)
            loss = nn.functional.cross_entropy(self.scores(batch).flatten(0, 1), labels.flatten())
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


def measure_texts(
    folder: Path, sizes: Sizes, device: torch.device
) -> tuple[dict[str, Measured], dict[str, Measured], dict[str, Any]]:
    """Return the rates of training and of prediction, and what else there is to know of training."""
    split = make_split(sizes.samples)
    cache = make_cache(folder / "features", [key for key in split.image_keys if key is not None])
    on = Material(split, cache, BertConfig(**sizes.encoder), device, folder)
    precision = resolve_precision("bf16", device)
    settings = TrainSettings(epochs=1000, batch_size=sizes.batch, precision=precision, device=str(device))
    lengths = [len(text.input_ids) for text in split.texts]
    order = bucketed_order(lengths, sizes.batch, torch.Generator().manual_seed(1))
    by_length = sorted(range(len(split)), key=lambda i: lengths[i])
    plain = Bare(on.encoder, device)
    ready = [batch.to(device) for batch in on.batches(order)]
    read = [
        batch.to(device) for batch in on.batches([by_length[i : i + 64] for i in range(0, len(split), 64)])
    ]

    def bare_training() -> int:
        plain.train()
        for batch in ready:
            plain.step(batch)
        return len(split)

    def bare_prediction() -> int:
        plain.eval()
        with torch.inference_mode(), halved(device):
            for batch in read:
                plain.scores(batch).argmax(dim=-1).tolist()
        return len(split)

    training: dict[str, Callable[[], int]] = {"torch, BERT and a linear head": bare_training}
    prediction: dict[str, Callable[[], int]] = {"torch, BERT and a linear head": bare_prediction}
    facts: dict[str, Any] = {}
    for system in ("bert-crf", "hmnet"):
        for way in ways_of(device, sizes.compiled and system == "bert-crf"):
            trainer = on.trainer(system, replace(settings, cuda_graphs=way != PLAIN))
            if way == COMPILED:
                encoder: Any = trainer.model.encoder
                encoder.compile(dynamic=True)
            else:
                prediction[f"predict {system}"] = prediction_by(trainer, split)
            training[f"train {system}, {way}"] = epoch_of(trainer)
            parts = parts_of(trainer, on, order[:10])
            facts[f"{system}, {way}"] = {**record_all(trainer), "ms a batch": parts}
        if device.type == "cuda":
            few = replace(on, split=split.take(list(range(16 * sizes.batch))))
            facts[f"{system}, numbers equal to the last bit"] = is_equal(system, settings, few)
    print(facts, file=sys.stderr, flush=True)
    return (
        take_turns("train", "samples", training, sizes.rounds, device),
        take_turns("predict", "samples", prediction, sizes.rounds, device),
        facts,
    )


def ways_of(device: torch.device, compiled: bool) -> list[str]:
    """Return the ways in which a system is trained on a device."""
    return [PLAIN, GRAPHS, *[COMPILED] * compiled] if device.type == "cuda" else [PLAIN]


def prediction_by(trainer: Trainer, split: Split) -> Callable[[], int]:
    def predict() -> int:
        visuals = trainer.task.visuals
        predict_split(trainer.model, split, visuals=visuals, pad_id=0, precision=trainer.precision)
        return len(split)

    return predict


def epoch_of(trainer: Trainer) -> Callable[[], int]:
    def train() -> int:
        trainer.progress.batch = 0
        return trainer.train_epoch(SILENT.bar(0, "", ""), lambda name, value, step: None)

    return train


def record_all(trainer: Trainer) -> dict[str, Any]:
    """Train some epochs, in which most shapes of batches are recorded, and return what that costs."""
    if trainer._replays is None:
        return {}
    before = torch.cuda.mem_get_info()[0]
    started = time.perf_counter()
    for _ in range(3):
        epoch_of(trainer)()
    torch.cuda.synchronize()
    return {
        "graphs": trainer._replays.count,
        "seconds of the first three epochs": time.perf_counter() - started,
        "GiB taken meanwhile": (before - torch.cuda.mem_get_info()[0]) / 2**30,
    }


def parts_of(trainer: Trainer, on: Material, order: list[list[int]]) -> dict[str, float]:
    """Return the milliseconds of the parts of a batch, each alone and waited for."""

    def timed(work: Callable[[], Any]) -> tuple[float, Any]:
        started = time.perf_counter()
        made = work()
        if on.device.type == "cuda":
            torch.cuda.synchronize()
        return (time.perf_counter() - started) * 1000 / len(order), made

    trainer.model.train()
    making, ready = timed(lambda: on.batches(order, trainer.task.visuals))
    found = {"making": making, "forward and backward": 0.0, "update": 0.0}
    for round_ in range(3):  # in the first two, kernels are loaded and recorded
        for batch in ready:
            passes, _ = timed(partial(trainer._forward, batch, batch.ids))
            update, _ = timed(trainer._update)
            if round_ == 2:
                found["forward and backward"] += passes
                found["update"] += update
    trainer._losses.read()
    return found


def is_equal(system: str, settings: TrainSettings, on: Material) -> bool:
    """Return whether four epochs, twice with graphs and once without, give the same weights."""
    states = []
    for graphs in (True, True, False):
        trainer = on.trainer(system, replace(settings, cuda_graphs=graphs))
        for _ in range(4):
            epoch_of(trainer)()
        states.append({name: value.cpu() for name, value in trainer.model.state_dict().items()})
    return all(torch.equal(states[0][name], other[name]) for other in states[1:] for name in states[0])
