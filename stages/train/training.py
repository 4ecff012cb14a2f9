"""The training loop, its checkpoints, and prediction over a split."""

import json
import math
import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import pyarrow as pa
import torch
from torch import nn

from ...cache.reader import FeatureCache
from ...manifests.errors import StageError
from ...manifests.files import atomic_path, write_text
from ...manifests.fingerprint import digest_json
from ...manifests.tables import HISTORY, PREDICTIONS, SAMPLES, read_table, table_of, write_table
from ..compute import autocast, resolve_device, resolve_precision
from ..scores import Scores, score_entities, score_relations
from ..stage import SILENT, Counts, Tools
from .data import Split, batches, bucketed_order, encode_split
from .encoder import load_tokenizer
from .encoder_files import resolve_encoder
from .model import HMNeT, ModelConfig
from .stage import Train, TrainSettings
from .text import MARKERS

__all__ = ["predict_split", "predictions_table", "score_split", "train"]

# The least time between two checkpoints: writing a large model after every short epoch would cost more than it saves.
_CHECKPOINT_SECONDS = float(os.environ.get("HMNET_PIPE_CHECKPOINT_SECONDS", "60"))


def train(stage: Train, tools: Tools) -> Counts:
    """Train one system, keep the model of its best epoch, and score the test split with it."""
    torch.manual_seed(stage.seed)
    s = stage.settings
    encoder_folder = resolve_encoder(s.encoder)
    tokenizer = load_tokenizer(encoder_folder)
    if stage.task == "re":
        tokenizer.add_special_tokens({"additional_special_tokens": list(MARKERS)})
    samples = read_table(stage.run.samples, SAMPLES, "prepare")
    splits = {name: encode_split(samples, name, tokenizer, task=stage.task, max_length=s.max_length) for name in ("train", "valid", "test")}
    cache = FeatureCache(stage.run.features) if stage.visual else None
    labels = _labels(splits["train"], stage.task)
    _warn(stage, tools, splits, labels, cache)
    config = ModelConfig(
        stage.system,
        stage.task,
        labels,
        cache.spec.levels if cache is not None else (),
        s.relation_head,
        s.max_length,
        {},
        asdict(cache.spec) if cache is not None else None,
    )
    device = resolve_device(s.device)
    model = HMNeT.from_encoder(encoder_folder, config).to(device)
    trainer = _Trainer(stage, model, splits, cache, tokenizer.pad_token_id, labels)
    steps = trainer.run(tools)
    model.load_state_dict(trainer.best_state)
    model.save_pretrained(stage.folder, tokenizer)
    predict: dict[str, Any] = {"cache": cache, "pad_id": tokenizer.pad_token_id, "precision": stage.parameters()["precision"]}
    predictions = predict_split(model, splits["test"], **predict)
    metrics: dict[str, Any] = {
        "system": stage.system,
        "task": stage.task,
        "seed": stage.seed,
        "best_epoch": trainer.best_epoch,
        "valid": trainer.best_scores,
        "test": score_split(splits["test"], predictions, stage.task) if len(splits["test"]) else None,
        "parameter_groups": trainer.describe_groups(),
    }
    write_table(stage.folder / "predictions.parquet", predictions_table(splits["test"], predictions, cache))
    write_table(stage.folder / "history.parquet", table_of(HISTORY, trainer.history))
    write_text(stage.folder / "metrics.json", json.dumps(metrics, indent=2) + "\n")
    headline = metrics["test"] or metrics["valid"]
    return Counts(
        "training samples",
        done=steps,
        details={"best epoch": trainer.best_epoch, "f1": headline["f1"] if headline else None, "output": str(stage.folder)},
    )


def _warn(stage: Train, tools: Tools, splits: dict[str, Split], labels: Sequence[str], cache: FeatureCache | None) -> None:
    if not len(splits["train"]):
        raise StageError(f"{stage.run.samples} holds no training sample; check the training file that prepare read")
    for name in ("valid", "test"):
        split = splits[name]
        if not len(split):
            consequence = "the last epoch is kept" if name == "valid" else "no test score is made"
            tools.say(f"warning: there is no {name} split; {consequence}")
        elif unseen := sorted({label for gold in split.gold for label in gold} - set(labels)):
            tools.say(f"warning: {name} holds labels that training never saw, which can only be missed: {', '.join(unseen)}")
        elif all(label in ("O", "None") for gold in split.gold for label in gold):
            tools.say(f"warning: {name} holds nothing to find (every label is negative); its F1 is 0 by definition")
    cut = sum(text.words < len(words) for split in splits.values() for text, words in zip(split.texts, split.tokens, strict=True))
    if cut:
        tools.say(f"warning: {cut} texts are longer than max_length {stage.settings.max_length} sub-words and were shortened")
    if cache is not None:
        total = sum(map(len, splits.values()))
        seen = sum(key in cache for split in splits.values() for key in split.image_keys)
        if seen < total:
            tools.say(f"note: {total - seen} of {total} samples have no image features; for them the model is its text encoder")


def _labels(split: Split, task: str) -> tuple[str, ...]:
    """BIO tags (O first) or relations, in alphabetical order, of the training split."""
    seen = {label for gold in split.gold for label in gold}
    if task == "re":
        return tuple(sorted(seen))
    return ("O", *(f"{prefix}-{kind}" for kind in sorted({tag[2:] for tag in seen if tag != "O"}) for prefix in "BI"))


def predict_split(
    model: HMNeT, split: Split, *, cache: FeatureCache | None, pad_id: int, precision: str, tools: Tools = SILENT, batch_size: int = 64
) -> list[list[str]]:
    """The predicted tags of ALL words of each sample (O beyond the length limit), or lists of one relation. Order as in `split`."""
    model.eval()
    device = next(model.parameters()).device
    by_length = sorted(range(len(split)), key=lambda i: len(split.texts[i].input_ids))
    order = [by_length[i : i + batch_size] for i in range(0, len(by_length), batch_size)]
    task = model.config.task
    result: list[list[str]] = [[] for _ in range(len(split))]
    bar = tools.bar(len(split), f"predict {split.name}", "sample")
    for batch in batches(split, order, task=task, pad_id=pad_id, label_ids=None, cache=cache):
        bar.update(len(batch.ids))
        with autocast(device, precision):
            predicted = model.predict(batch.to(device))
        for i, labels in zip(batch.ids, predicted, strict=True):
            missing = len(split.gold[i]) - len(labels)
            result[i] = [*labels, *["O"] * missing]
    bar.close()
    return result


def score_split(split: Split, predicted: Sequence[Sequence[str]], task: str) -> Scores:
    """The scores of predictions in the order of `split`."""
    if task == "ner":
        return score_entities(split.gold, predicted, split.groups)
    return score_relations([gold[0] for gold in split.gold], [guess[0] for guess in predicted], split.groups)


def predictions_table(split: Split, predicted: Sequence[Sequence[str]], cache: FeatureCache | None) -> pa.Table:
    rows = zip(split.ids, split.tokens, split.gold, predicted, split.image_keys, strict=True)
    return table_of(
        PREDICTIONS,
        [
            {
                "id": id_,
                "split": split.name,
                "tokens": tokens,
                "gold": gold,
                "predicted": guess,
                "has_image": cache is not None and key in cache,
            }
            for id_, tokens, gold, guess, key in rows
        ],
    )


class _Trainer:
    """The loop over epochs, and everything that a checkpoint must hold."""

    def __init__(
        self,
        stage: Train,
        model: HMNeT,
        splits: dict[str, Split],
        cache: FeatureCache | None,
        pad_id: int,
        labels: Sequence[str],
    ) -> None:
        s = stage.settings
        self.stage, self.model, self.splits, self.cache, self.pad_id = stage, model, splits, cache, pad_id
        self.device = next(model.parameters()).device
        self.precision = resolve_precision(s.precision, self.device)
        self.label_ids = {label: number for number, label in enumerate(labels)}
        self.group_names, groups = _parameter_groups(model, s)
        self.optimizer = torch.optim.AdamW(groups, fused=self.device.type in ("cpu", "cuda"))
        self.batches_per_epoch = math.ceil(len(splits["train"]) / s.batch_size)
        self.updates = math.ceil(self.batches_per_epoch / s.accumulate) * s.epochs
        warmup = max(1, round(s.warmup * self.updates))
        self.scheduler = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer,
            lambda step: min((step + 1) / warmup, max(0.0, (self.updates - step) / max(1, self.updates - warmup))),
        )
        self.generator = torch.Generator().manual_seed(stage.seed)
        self.epoch = 0
        self.step = 0
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_scores: Scores | None = None
        self.best_state: dict[str, torch.Tensor] = {}
        # A folder per fingerprint: a checkpoint of other settings is never resumed.
        decides = {"parameters": stage.parameters(), "inputs": stage.inputs(), "weights": stage.weights()}
        self.checkpoint = stage.run.work(stage.name) / digest_json(decides)[:16] / "checkpoint.pt"

    def run(self, tools: Tools) -> int:
        """Train to the last epoch; returns the number of training samples seen in this process."""
        self._restore(tools)
        s = self.stage.settings
        bar = tools.bar(len(self.splits["train"]) * (s.epochs - self.epoch), f"train {self.stage.system} seed {self.stage.seed}", "sample")
        seen = 0
        saved = time.monotonic()
        while self.epoch < s.epochs:
            seen += self._train_epoch(bar)
            if time.monotonic() - saved >= _CHECKPOINT_SECONDS and self.epoch < s.epochs:
                self._save()
                saved = time.monotonic()
        bar.close()
        return seen

    def _train_epoch(self, bar: Any) -> int:
        s, split = self.stage.settings, self.splits["train"]
        started = time.monotonic()
        self.model.train()
        order = bucketed_order([len(text.input_ids) for text in split.texts], s.batch_size, self.generator)
        total = 0.0
        made = batches(split, order, task=self.stage.task, pad_id=self.pad_id, label_ids=self.label_ids, cache=self.cache)
        for number, batch in enumerate(made, start=1):
            with autocast(self.device, self.precision):
                loss = self.model.loss(batch.to(self.device))
            torch.autograd.backward(loss / s.accumulate)
            value = loss.item()
            if not math.isfinite(value):
                names = ", ".join(split.ids[i] for i in batch.ids[:3])
                raise StageError(
                    f"the loss became {value} in epoch {self.epoch + 1} (samples {names}, ...); lower the learning rates in "
                    f'{self.stage.run.config} or use precision = "fp32"'
                )
            total += value * len(batch.ids)
            if number % s.accumulate == 0 or number == self.batches_per_epoch:
                if s.clip_norm > 0:
                    nn.utils.clip_grad_norm_(self.model.parameters(), s.clip_norm)
                self.optimizer.step()
                self.optimizer.zero_grad(set_to_none=True)
                self.scheduler.step()
                self.step += 1
            bar.update(len(batch.ids))
        self.epoch += 1
        seconds = time.monotonic() - started
        scores = self._validate()
        self.history.append(
            {
                "epoch": self.epoch,
                "step": self.step,
                "loss": total / len(split),
                "learning_rate": self.scheduler.get_last_lr()[0],
                "valid_f1": scores["f1"] if scores else None,
                "seconds": seconds,
                "samples_per_second": len(split) / seconds,
            }
        )
        bar.set_postfix_str(f"epoch {self.epoch} loss {total / len(split):.3f}" + (f" valid F1 {scores['f1']:.4f}" if scores else ""))
        return len(split)

    def _validate(self) -> Scores | None:
        """Score the validation split from `first_evaluation` on, and keep the model if it is the best so far (the earlier of equals)."""
        s, valid = self.stage.settings, self.splits["valid"]
        last = self.epoch == s.epochs
        if not len(valid):
            if last:
                self._keep(None)
            return None
        if self.epoch < s.first_evaluation:
            return None
        predicted = predict_split(self.model, valid, cache=self.cache, pad_id=self.pad_id, precision=self.precision)
        scores = score_split(valid, predicted, self.stage.task)
        if self.best_scores is None or scores["f1"] > self.best_scores["f1"]:
            self._keep(scores)
        return scores

    def _keep(self, scores: Scores | None) -> None:
        self.best_scores, self.best_epoch = scores, self.epoch
        self.best_state = {name: value.detach().cpu().clone() for name, value in self.model.state_dict().items()}

    def _save(self) -> None:
        """Commit a checkpoint: the old one stays whole until the new one is."""
        state = {
            "model": self.model.state_dict(),
            "best_state": self.best_state,
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "generator": self.generator.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "progress": json.dumps([self.epoch, self.step, self.history, self.best_epoch, self.best_scores]),
        }
        with atomic_path(self.checkpoint) as temporary:
            torch.save(state, temporary)

    def _restore(self, tools: Tools) -> None:
        if not self.checkpoint.is_file():
            return
        state = torch.load(self.checkpoint, map_location="cpu", weights_only=True)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        self.generator.set_state(state["generator"])
        torch.set_rng_state(state["torch"])
        if state["cuda"]:
            torch.cuda.set_rng_state_all(state["cuda"])
        self.best_state = state["best_state"]
        self.epoch, self.step, self.history, self.best_epoch, self.best_scores = json.loads(state["progress"])
        tools.say(f"resuming after epoch {self.epoch} of {self.stage.settings.epochs}")

    def describe_groups(self) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "tensors": len(group["params"]),
                "parameters": sum(p.numel() for p in group["params"]),
                "learning_rate": group["initial_lr"],
                "weight_decay": group["weight_decay"],
            }
            for name, group in zip(self.group_names, self.optimizer.param_groups, strict=True)
        ]


def _parameter_groups(model: HMNeT, settings: TrainSettings) -> tuple[list[str], list[dict[str, Any]]]:
    """Names and optimizer groups: encoder, head and fusion, each with and without decay (none on biases and LayerNorm weights).

    Every trainable parameter is in exactly one group: a head that no group holds would stay random in silence.
    """
    rates = {"encoder": settings.learning_rate, "head": settings.head_learning_rate, "fusion": settings.fusion_learning_rate}
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    norms = {id(p) for module in model.modules() if isinstance(module, nn.LayerNorm) for p in module.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        part = name.split(".")[0]
        decays = not (name.endswith("bias") or id(parameter) in norms)
        members.setdefault((part if part in rates else "head", decays), []).append(parameter)
    grouped = [id(p) for group in members.values() for p in group]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable), "a trainable parameter is in no optimizer group, or in two"
    names = [f"{part}{'' if decays else ', no decay'}" for part, decays in members]
    groups = [
        {"params": group, "lr": rates[part], "weight_decay": settings.weight_decay if decays else 0.0}
        for (part, decays), group in members.items()
    ]
    return names, groups
