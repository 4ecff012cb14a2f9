"""Training speed with bert-base dimensions, batch 8, on the real lengths of Twitter-2015, as ratios.

    python benchmarks/train_speed.py --text DATA/twitter2015 [--rounds 5]

All contenders take turns on the same samples, so that a busy machine slows all alike; each figure is the
median over the rounds. Weights are random: they change no speed. The tokenizer is that of the demonstration's
encoder, which has bert-base-uncased's vocabulary.

Two contenders are limits and no rivals: transformers' loop without dropout and clipping, as fast as one that
got both for nothing, and the matrix products of its linear layers alone.
"""

import argparse
import json
import math
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from hmnet_pipe.cache.reader import FeatureCache, IndexRow, write_index
from hmnet_pipe.cache.shards import write_shard
from hmnet_pipe.cache.spec import IMAGENET_MEAN, IMAGENET_STD, FeatureSpec, Transform
from hmnet_pipe.manifests.run import RunFolder
from hmnet_pipe.manifests.schemas import SAMPLES
from hmnet_pipe.manifests.tables import read_table
from hmnet_pipe.pipeline.cluster.memory import keep_freed_memory
from hmnet_pipe.pipeline.run.presets import preset
from hmnet_pipe.pipeline.run.runner import run_stage
from hmnet_pipe.stages.base.tools import SILENT
from hmnet_pipe.stages.learning.batches import batches, bucketed_order
from hmnet_pipe.stages.learning.checkpoint import Checkpoints
from hmnet_pipe.stages.learning.loop import Task, Trainer
from hmnet_pipe.stages.learning.ranks import Ranks
from hmnet_pipe.stages.learning.recipe import TrainSettings
from hmnet_pipe.stages.learning.splits import Split, encode_split
from hmnet_pipe.stages.systems.batch import ModelConfig
from hmnet_pipe.stages.systems.build import new_system
from hmnet_pipe.stages.text.encoders.bert import load_tokenizer
from hmnet_pipe.stages.text.encoders.files import DEMO_ENCODER, resolve_encoder
from hmnet_pipe.stages.text.subwords import Subwords
from report import Result, Row, report
from torch import nn
from torch.nn.utils.rnn import pad_sequence
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertForTokenClassification,
    BertModel,
    get_linear_schedule_with_warmup,
)


def _peak() -> int:
    """Return the largest memory that this process has had so far, in bytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


_LIBRARIES = _peak()  # what the imports above took
BATCH, PADDED, LABELS = 8, 80, ("O", *(f"{p}-{kind}" for kind in ("LOC", "MISC", "ORG", "PER") for p in "BI"))
PEER = "transformers' loop"
FREE, PRODUCTS = "transformers' loop without dropout and clipping", "matrix products"
TRANSFORM = Transform(224, IMAGENET_MEAN, IMAGENET_STD, "bilinear")
SPEC = FeatureSpec("resnet50", "0" * 64, TRANSFORM, (256, 512, 1024, 2048), 2, 4, "float16")


def make_encoder(folder: Path) -> Path:
    """Make a folder as save_pretrained writes it, with bert-base's dimensions and random weights."""
    AutoTokenizer.from_pretrained(resolve_encoder(DEMO_ENCODER)).save_pretrained(folder)
    BertModel(BertConfig(), add_pooling_layer=False).save_pretrained(folder)
    return folder


def make_cache(folder: Path, keys: list[str]) -> FeatureCache:
    """Make a cache with the whole image and three objects for every key."""
    rng = np.random.default_rng(0)
    keys = sorted(keys)
    mask = np.ones((len(keys), SPEC.views), bool)
    pyramid = rng.random((len(keys), *SPEC.row_shape), np.float32).astype(np.float16)
    checksums = write_shard(
        folder / "shard-00000.h5", unit="u", spec=SPEC, keys=keys, view_mask=mask, pyramid=pyramid
    )
    rows = [
        IndexRow(key, "shard-00000.h5", row, checksum, "")
        for row, (key, checksum) in enumerate(zip(keys, checksums, strict=True))
    ]
    write_index(folder, SPEC, rows)
    return FeatureCache(folder)


def make_split(text: Path, folder: Path, tokenizer: Any, count: int) -> Split:
    """Return `count` training tweets of Twitter-2015, drawn at random, each with an image of its own."""
    run = RunFolder(folder)
    run_stage(
        preset("twitter2015", task=None, text=text.resolve(), images=None, format="auto").stage(
            "prepare", run
        ),
        SILENT,
    )
    split = encode_split(
        read_table(run.samples, SAMPLES), "train", Subwords(tokenizer), task="ner", max_length=128
    )
    chosen = split.take(np.random.default_rng(0).permutation(len(split))[:count].tolist())
    chosen.image_keys = [f"{number:064x}" for number in range(count)]
    return chosen


def trainer_of(
    system: str, encoder: Path, split: Split, cache: FeatureCache | None, folder: Path, precision: str
) -> Trainer:
    """Return the training loop itself, as `hmnet-pipe train` makes it, with an epoch of `split`."""
    settings = TrainSettings(epochs=1000, batch_size=BATCH, precision=precision, device="cpu")
    levels = SPEC.levels if cache is not None else ()
    model = new_system(encoder, ModelConfig(system, "ner", LABELS, levels, "markers", 128, {}, None))
    task = Task(
        system, settings, 1, {"train": split, "valid": split.take([])}, cache, 0, settings.rates, None
    )
    return Trainer(task, model, Checkpoints(folder / system, every=math.inf), Ranks())


def epoch_of(trainer: Trainer) -> Callable[[], None]:
    def run() -> None:
        trainer.train_epoch(SILENT.bar(0, "", ""), lambda name, value, step: None)
        trainer.progress.batch = 0

    return run


class Plain(nn.Module):
    """What a first script does: eager fp32 BERT on texts padded to 80.

    images: also run ResNet-50 on four images per sample.
    """

    def __init__(self, images: bool) -> None:
        super().__init__()
        self.bert = BertModel(BertConfig(attn_implementation="eager"), add_pooling_layer=False).train()
        self.head = nn.Linear(768, len(LABELS))
        self.resnet = torchvision.models.resnet50().eval() if images else None
        self.optimizer = torch.optim.AdamW([*self.bert.parameters(), *self.head.parameters()], lr=3e-5)

    def step(self, ids: torch.Tensor, mask: torch.Tensor, labels: torch.Tensor) -> None:
        if self.resnet is not None:
            with torch.no_grad():
                self.resnet(torch.rand(4 * len(ids), 3, 224, 224))
        states = self.bert(input_ids=ids, attention_mask=mask).last_hidden_state
        loss = nn.functional.cross_entropy(self.head(states).flatten(0, 1), labels.flatten())
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()


def steps_of(plain: Plain, split: Split, count: int) -> Callable[[], None]:
    def run() -> None:
        for number in range(count):
            texts = split.texts[number * BATCH : (number + 1) * BATCH]
            ids = torch.zeros(BATCH, PADDED, dtype=torch.long)
            for row, text in enumerate(texts):
                ids[row, : min(PADDED, len(text.input_ids))] = torch.tensor(text.input_ids[:PADDED])
            plain.step(ids, (ids != 0).long(), torch.zeros_like(ids))

    return run


class Peer:
    """transformers' own loop for token classification, as its example run_ner_no_trainer.py has it.

    Its model with its attention (SDPA) and its loss, texts of like length padded together, autocast to bf16
    where ours is, fused AdamW, clipping and a linear schedule.

    free: without dropout and clipping.
    """

    def __init__(self, split: Split, pad_id: int, precision: str, *, free: bool = False) -> None:
        config = BertConfig(num_labels=len(LABELS), attn_implementation="sdpa")
        self._clips = not free
        if free:
            config.hidden_dropout_prob = config.attention_probs_dropout_prob = 0.0
        self._model = BertForTokenClassification(config).train()
        self._optimizer = torch.optim.AdamW(self._model.parameters(), lr=3e-5, fused=True)
        self._schedule = get_linear_schedule_with_warmup(self._optimizer, 0, 10_000_000)
        self._split, self._pad_id, self._half = split, pad_id, precision == "bf16"
        self._order = torch.Generator().manual_seed(1)

    def epoch(self) -> None:
        lengths = [len(text.input_ids) for text in self._split.texts]
        for members in bucketed_order(lengths, BATCH, self._order):
            self._step(members)

    def _step(self, members: list[int]) -> None:
        ids = pad_sequence(
            [torch.tensor(self._split.texts[i].input_ids) for i in members], True, self._pad_id
        )
        labels = torch.full_like(ids, -100)
        for row, i in enumerate(members):
            gold = self._split.gold[i][: self._split.texts[i].words]
            labels[row, self._split.texts[i].positions] = torch.tensor([LABELS.index(tag) for tag in gold])
        with torch.autocast("cpu", torch.bfloat16, enabled=self._half):
            loss = self._model(input_ids=ids, attention_mask=ids != self._pad_id, labels=labels).loss
        loss.backward()
        if self._clips:
            nn.utils.clip_grad_norm_(self._model.parameters(), 1.0)
        self._optimizer.step()
        self._schedule.step()
        self._optimizer.zero_grad()


class Products:
    """The matrix products of BERT's linear layers alone, forward and backward, on the same batches."""

    def __init__(self, split: Split, precision: str) -> None:
        dtype = torch.bfloat16 if precision == "bf16" else torch.float32
        layers = [m for m in BertModel(BertConfig()).encoder.modules() if isinstance(m, nn.Linear)]
        self._weights = [layer.weight.detach().to(dtype) for layer in layers]  # shapes: (outputs, inputs)
        self._lengths = [len(text.input_ids) for text in split.texts]
        self._order = torch.Generator().manual_seed(1)

    def epoch(self) -> None:
        for members in bucketed_order(self._lengths, BATCH, self._order):
            rows = len(members) * max(self._lengths[i] for i in members)
            for weight in self._weights:
                states, gradients = (weight.new_ones(rows, width) for width in weight.shape[::-1])
                states @ weight.T  # the layer
                gradients @ weight  # the gradient of its input
                gradients.T @ states  # the gradient of its weights


def loading_share(trainer: Trainer, epoch_seconds: float) -> float:
    """Return the time of making an epoch's batches in the training's own thread, over the epoch's time."""
    split = trainer.task.splits["train"]
    order = bucketed_order(
        [len(text.input_ids) for text in split.texts], BATCH, torch.Generator().manual_seed(1)
    )
    started = time.perf_counter()
    for _ in batches(
        split,
        order,
        task="ner",
        pad_id=0,
        label_ids={label: number for number, label in enumerate(LABELS)},
        visuals=trainer.task.visuals,
    ):
        pass
    return (time.perf_counter() - started) / epoch_seconds


def memory(encoder: Path, split: Split, cache: FeatureCache, folder: Path, precision: str) -> None:
    """Print, as JSON and in bytes, the peak of a training and what the model itself needs.

    To be run in a process of its own.
    """
    longest = split.take(sorted(range(len(split)), key=lambda i: -len(split.texts[i].input_ids))[: 4 * BATCH])
    trainer = trainer_of("hmnet", encoder, longest, cache, folder, precision)
    epoch_of(trainer)()
    peak = _peak()  # before anything that counts is allocated
    held: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        held[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage()
        return tensor

    own = {parameter.untyped_storage().data_ptr() for parameter in trainer.model.parameters()}
    batch = next(
        iter(
            batches(
                longest,
                [list(range(BATCH))],
                task="ner",
                pad_id=0,
                label_ids={label: number for number, label in enumerate(LABELS)},
                visuals=cache,
            )
        )
    )
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda nothing: nothing):
        trainer.model.loss(batch)
    activations = sum(storage.nbytes() for pointer, storage in held.items() if pointer not in own)
    parameters = sum(parameter.nbytes for parameter in trainer.model.parameters())
    # Parameters, gradients and the two moments of AdamW.
    print(json.dumps({"peak": peak, "libraries": _LIBRARIES, "own": 4 * parameters + activations}))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--text", type=Path, required=True, help="folder with Twitter-2015's train.txt and valid.txt"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--samples", type=int, default=160, help="tweets per round")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--output", type=Path, default=Path("build/benchmarks"))
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    keep_freed_memory()  # as the command does; it helps all contenders alike
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        encoder = make_encoder(folder / "encoder")
        split = make_split(options.text, folder / "run", load_tokenizer(encoder), options.samples)
        cache = make_cache(folder / "features", [key for key in split.image_keys if key is not None])
        if options.memory_only:
            memory(encoder, split, cache, folder, options.precision)
            return
        command = [
            sys.executable,
            __file__,
            "--text",
            options.text,
            "--samples",
            options.samples,
            "--precision",
            options.precision,
        ]
        child = subprocess.run(
            [*map(str, command), "--memory-only"], capture_output=True, text=True, check=True
        )
        used = json.loads(child.stdout.splitlines()[-1])
        text = trainer_of("bert-crf", encoder, split, None, folder, options.precision)
        visual = trainer_of("hmnet", encoder, split, cache, folder, options.precision)
        contenders = {
            "bert-crf": (epoch_of(text), options.samples),
            "hmnet": (epoch_of(visual), options.samples),
            PEER: (Peer(split, 0, text.precision).epoch, options.samples),
            FREE: (Peer(split, 0, text.precision, free=True).epoch, options.samples),
            PRODUCTS: (Products(split, text.precision).epoch, options.samples),
            "plain BERT": (steps_of(Plain(images=False), split, 3), 3 * BATCH),
            "published step": (steps_of(Plain(images=True), split, 2), 2 * BATCH),
        }
        speeds: dict[str, list[float]] = {contender: [] for contender in contenders}
        for round_ in range(options.rounds + 1):
            for contender, (run, samples) in contenders.items():
                started = time.perf_counter()
                run()
                if round_:  # the first warms up
                    speeds[contender].append(samples / (time.perf_counter() - started))
            latest = {name: f"{values[-1]:.2f}" for name, values in speeds.items() if values}
            print(f"round {round_} of {options.rounds}", latest, file=sys.stderr)
        median = {contender: statistics.median(values) for contender, values in speeds.items()}

        def ratio(one: str, other: str) -> float:
            """Return the median ratio of neighbours in time, since a machine's speed drifts."""
            pairs = zip(speeds[one], speeds[other], strict=True)
            return statistics.median(a / b for a, b in pairs)

        lengths = [len(text.input_ids) for text in split.texts]
        report(
            "train_speed",
            [
                Result("bert-crf over transformers' own loop", ratio("bert-crf", PEER), 1.2),
                Result("hmnet over transformers' own loop", ratio("hmnet", PEER), 1.1),
                Result("limit: transformers' loop without dropout and clipping", ratio(FREE, PEER)),
                Result("limit: its matrix products alone", ratio(PRODUCTS, PEER)),
                Result("hmnet over bert-crf, samples/s", ratio("hmnet", "bert-crf"), 0.9),
                Result(
                    "bert-crf over a plain fp32 eager BERT padded to 80", ratio("bert-crf", "plain BERT"), 5
                ),
                Result(
                    "hmnet over ResNet-50 and a padded BERT at every step",
                    ratio("hmnet", "published step"),
                    12,
                ),
                Result(
                    "making batches, share of step time",
                    loading_share(visual, options.samples / median["hmnet"]),
                    0.03,
                    at_most=True,
                ),
                Result(
                    "peak memory of the process over the model's own needs",
                    used["peak"] / used["own"],
                    1.3,
                    at_most=True,
                ),
                Result(
                    "the same without what the imported libraries take",
                    (used["peak"] - used["libraries"]) / used["own"],
                ),
                *(Result(f"{contender}, samples/s", speed) for contender, speed in median.items()),
            ],
            {
                "precision": text.precision,
                "sub-words per tweet, mean": statistics.mean(lengths),
                "rounds": options.rounds,
                "speeds": speeds,
                "memory": used,
            },
            options.output,
            [
                Row(
                    f"train {system}",
                    "transformers' token classification: the same texts, batches and precision, SDPA, fused "
                    "AdamW, clipping",
                    f"the peer without dropout and clipping, {ratio(FREE, PEER):.2f}; its matrix products, "
                    f"{ratio(PRODUCTS, PEER):.2f}",
                    f"{median[system]:.2f} samples/s",
                    ratio(system, PEER),
                )
                for system in ("bert-crf", "hmnet")
            ],
        )


if __name__ == "__main__":
    main()
