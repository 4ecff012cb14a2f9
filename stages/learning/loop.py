"""The training loop: epochs, updates, validation, and everything that a checkpoint must hold.

It knows neither tables nor commands, and trains whatever has the losses and predictions of HMNeT: `train` gives it a model on cached
features, `finetune` one with its backbone.
"""

import json
import math
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...manifests.errors import StageError
from ..base.ahead import prefetched
from ..base.arithmetic import autocast, resolve_precision
from ..base.tools import Tools
from ..systems.batch import Batch
from ..systems.hmnet import HMNeT
from .batches import Visuals, batches, bucketed_order
from .checkpoint import Checkpoints
from .curves import _curves
from .optimizer import describe_groups, make_optimizer, make_schedule, parameter_groups
from .predictions import predict_split, score_split
from .ranks import Ranks
from .recipe import TrainSettings
from .scores import Scores
from .splits import Split

__all__ = ["Task", "Trainer"]

# The least time between two checkpoints, and the largest share of the time that writing them may take.
_CHECKPOINT_SECONDS = float(os.environ.get("HMNET_PIPE_CHECKPOINT_SECONDS", "60"))
_CHECKPOINT_SHARE = 0.05
# How many losses wait on a GPU before they are read: reading one waits for all that is queued there.
_LOSSES_READ_AT_ONCE = 50


@dataclass(frozen=True)
class Task:
    """What is trained on what. name: for people. rates: the learning rate of each part of the model. logs: TensorBoard's folder."""

    name: str
    settings: TrainSettings
    seed: int
    splits: dict[str, Split]
    visuals: Visuals | None
    pad_id: int
    rates: Mapping[str, float]
    logs: Path | None


class _Loss(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: HMNeT) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.loss(batch)


class Trainer:
    """One training. After `run`, the model of the best epoch is loaded, and best_epoch, best_scores and history say how it went.

    Several ranks see the same order of batches, and each computes its share of every batch: the gradient is that of the whole batch.
    """

    def __init__(self, task: Task, model: HMNeT, checkpoints: Checkpoints, ranks: Ranks) -> None:
        s = task.settings
        self.task, self.model, self.checkpoints, self.ranks = task, model, checkpoints, ranks
        self.device = next(model.parameters()).device
        self.precision = resolve_precision(s.precision, self.device)
        self.label_ids = {label: number for number, label in enumerate(model.config.labels)}
        self.loss = ranks.wrap(_Loss(model))
        self.optimizer = make_optimizer(parameter_groups(model, task.rates, s.weight_decay))
        self.batches_per_epoch = math.ceil(len(task.splits["train"]) / s.batch_size)
        self.updates = math.ceil(self.batches_per_epoch / s.accumulate) * s.epochs
        self.schedule = make_schedule(self.optimizer, s, self.updates)
        self.order_generator = torch.Generator().manual_seed(task.seed)
        if not ranks.leads:  # dropout differs from rank to rank, as it differs from sample to sample
            torch.manual_seed(task.seed + 1_000_003 * ranks.rank)
        self.epoch = 0  # finished epochs
        self.step = 0  # updates
        self.batch = 0  # batches done of the current epoch
        self.order_state = (
            self.order_generator.get_state()
        )  # as it was before the current epoch's order was drawn
        self.loss_sum = 0.0  # of the current epoch's samples so far
        self.seconds = 0.0  # that the current epoch took so far
        self.history: list[dict[str, Any]] = []
        self.best_epoch = 0
        self.best_scores: Scores | None = None
        self._saved = time.monotonic()
        self._save_cost = 0.0

    @property
    def parameter_groups(self) -> list[dict[str, Any]]:
        return describe_groups(self.optimizer)

    @property
    def finished(self) -> bool:
        """Whether the last epoch is done, or `patience` epochs have brought nothing better than the best."""
        s = self.task.settings
        waited = self.epoch - self.best_epoch if self.best_scores is not None else 0
        return self.epoch >= s.epochs or (s.patience > 0 and waited >= s.patience)

    def run(self, tools: Tools) -> int:
        """Train to the end; returns the number of training samples seen in this process."""
        s, split = self.task.settings, self.task.splits["train"]
        if self._restore():
            done = f" and {self.batch} of {self.batches_per_epoch} batches" if self.batch else ""
            tools.say(f"{self.task.name}: resuming after {self.epoch} of {s.epochs} epochs{done}")
        left = len(split) * (s.epochs - self.epoch) - self.batch * s.batch_size
        bar = tools.bar(left, self.task.name, "sample")
        seen = 0
        with _curves(self.task.logs if self.ranks.leads else None, self.step) as curve:
            while not self.finished:
                seen += self._train_epoch(bar, curve)
                row = self._close_epoch()
                curve("validation F1", row["valid_f1"], self.step)
                scored = f", validation F1 {row['valid_f1']:.4f}" if row["valid_f1"] is not None else ""
                tools.say(
                    f"{self.task.name}: epoch {self.epoch} of {s.epochs}: loss {row['loss']:.4f}, "
                    f"learning rate {row['learning_rate']:.2e}, {row['samples_per_second']:.1f} samples/s{scored}"
                )
        bar.close()
        if self.epoch < s.epochs:
            tools.say(f"{self.task.name}: stopped, no better validation F1 in {s.patience} epochs")
        self.model.load_state_dict(self.checkpoints.best(self.best_epoch))
        return seen

    def _train_epoch(self, bar: Any, curve: Callable[[str, float | None, int], None]) -> int:
        """The rest of the current epoch, which a resumed training may enter in the middle."""
        s, split = self.task.settings, self.task.splits["train"]
        self.model.train()
        self.order_state = self.order_generator.get_state()
        order = bucketed_order(
            [len(text.input_ids) for text in split.texts], s.batch_size, self.order_generator
        )
        rest = order[self.batch :]
        # A rank that a short last batch has no sample for computes one that counts nothing, since all ranks must take part.
        shares = [self.ranks.share(members) or members[:1] for members in rest]
        made = batches(
            split,
            shares,
            task=self.model.config.task,
            pad_id=self.task.pad_id,
            label_ids=self.label_ids,
            visuals=self.task.visuals,
        )
        started = time.monotonic()
        pending: list[tuple[Tensor, Batch]] = []
        seen = 0
        for members, batch in zip(rest, prefetched(made), strict=True):
            self.batch += 1
            updates = self.batch % s.accumulate == 0 or self.batch == self.batches_per_epoch
            counted = len(self.ranks.share(members))
            with self._gradients_meet(updates):
                with autocast(self.device, self.precision):
                    loss = self.loss(batch.to(self.device))
                # Ranks average their gradients: each weighs as many samples as it has of the batch.
                torch.autograd.backward(loss * (counted * self.ranks.size / len(members) / s.accumulate))
            pending.append((loss.detach() * counted, batch))
            if self.device.type == "cpu" or len(pending) == _LOSSES_READ_AT_ONCE:
                self._read_losses(pending)
            seen += len(members)
            bar.update(len(members))
            if not updates:
                continue
            if s.clip_norm > 0:
                nn.utils.clip_grad_norm_(self.model.parameters(), s.clip_norm)
            self.optimizer.step()
            self.optimizer.zero_grad(set_to_none=True)
            self.schedule.step()
            self.step += 1
            if self.step % 10 == 0 and self.task.logs is not None:
                curve("loss", loss.item(), self.step)
                curve("learning rate", float(self.schedule.get_last_lr()[0]), self.step)
            if self._checkpoint_is_due() and self.batch < self.batches_per_epoch:
                self._read_losses(pending)
                now = time.monotonic()
                self.seconds, started = self.seconds + now - started, now
                self._save()
        self._read_losses(pending)
        self.seconds += time.monotonic() - started
        return seen

    def _gradients_meet(self, now: bool) -> AbstractContextManager[None]:
        """The context of a backward pass after which the ranks exchange gradients, or, of a batch before the update's last, do not yet."""
        return (
            self.loss.no_sync()
            if isinstance(self.loss, DistributedDataParallel) and not now
            else nullcontext()
        )

    def _read_losses(self, pending: list[tuple[Tensor, Batch]]) -> None:
        """Add losses to the epoch's sum. Raises StageError for one that is no number."""
        for loss, batch in pending:
            value = loss.item()
            if not math.isfinite(value):
                names = ", ".join(self.task.splits["train"].ids[i] for i in batch.ids[:3])
                raise StageError(
                    f"{self.task.name}: the loss became {value} in epoch {self.epoch + 1} (samples {names}, ...); "
                    'lower the learning rates, keep clip_norm above 0, or use precision = "fp32"'
                )
            self.loss_sum += value
        pending.clear()

    def _close_epoch(self) -> dict[str, Any]:
        """Score the validation split, and note the epoch in the history."""
        count = len(self.task.splits["train"])
        total = sum(self.ranks.gather(self.loss_sum))
        self.epoch += 1
        scores = self._validate()
        row = {
            "epoch": self.epoch,
            "step": self.step,
            "loss": total / count,
            "learning_rate": self.schedule.get_last_lr()[0],
            "valid_f1": scores["f1"] if scores else None,
            "seconds": self.seconds,
            "samples_per_second": count / self.seconds,
        }
        self.history.append(row)
        self.batch, self.loss_sum, self.seconds = 0, 0.0, 0.0
        self.order_state = self.order_generator.get_state()
        if self._checkpoint_is_due() and not self.finished:
            self._save()
        return row

    def _validate(self) -> Scores | None:
        """Score the validation split from `first_evaluation` on, and keep the model if it is the best so far (the earlier of equals)."""
        s, valid = self.task.settings, self.task.splits["valid"]
        if not len(valid):
            if self.epoch == s.epochs:
                self._keep(None)
            return None
        if self.epoch < s.first_evaluation:
            return None
        numbers = self.ranks.share(range(len(valid)))
        mine = predict_split(
            self.model,
            valid.take(numbers),
            visuals=self.task.visuals,
            pad_id=self.task.pad_id,
            precision=self.precision,
        )
        found = {
            i: labels
            for part in self.ranks.gather(list(zip(numbers, mine, strict=True)))
            for i, labels in part
        }
        scores = score_split(valid, [found[i] for i in range(len(valid))], self.model.config.task)
        if self.best_scores is None or scores["f1"] > self.best_scores["f1"]:
            self._keep(scores)
        return scores

    def _keep(self, scores: Scores | None) -> None:
        self.best_scores, self.best_epoch = scores, self.epoch
        if self.ranks.leads:
            self.checkpoints.keep_best(self.epoch, self.model.state_dict())
        self.ranks.broadcast(None)  # nobody reads the file before it is there

    def _checkpoint_is_due(self) -> bool:
        wait = max(_CHECKPOINT_SECONDS, self._save_cost / _CHECKPOINT_SHARE if _CHECKPOINT_SECONDS else 0.0)
        return bool(self.ranks.broadcast(time.monotonic() - self._saved >= wait))

    def _save(self) -> None:
        started = time.monotonic()
        ranks = self.ranks.gather(
            {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state() if self.device.type == "cuda" else None,
                "loss_sum": self.loss_sum,
            }
        )
        if self.ranks.leads:
            state = {
                "model": self.model.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "schedule": self.schedule.state_dict(),
                "order": self.order_state,
                "ranks": ranks,
                "progress": json.dumps(
                    [
                        self.epoch,
                        self.step,
                        self.batch,
                        self.seconds,
                        self.history,
                        self.best_epoch,
                        self.best_scores,
                    ]
                ),
            }
            s = self.task.settings
            self.checkpoints.save(
                state,
                self.best_epoch,
                {"epoch": self.epoch, "epochs": s.epochs, "step": self.step, "steps": self.updates},
            )
        self._saved = time.monotonic()
        self._save_cost = self._saved - started

    def _restore(self) -> bool:
        state = self.checkpoints.load()
        if state is None:
            return False
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self.order_generator.set_state(state["order"])
        mine = state["ranks"][self.ranks.rank]
        torch.set_rng_state(mine["torch"])
        if mine["cuda"] is not None:
            torch.cuda.set_rng_state(mine["cuda"])
        self.loss_sum = mine["loss_sum"]
        progress = json.loads(state["progress"])
        self.epoch, self.step, self.batch, self.seconds, self.history, self.best_epoch, self.best_scores = (
            progress
        )
        return True
