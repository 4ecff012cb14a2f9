"""The training loop: epochs, updates, validation, and everything that a checkpoint must hold.

It knows neither tables nor commands, and trains whatever has a system's loss and predictions: `train` gives
it a model on cached features, `finetune` one with its backbone.
"""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from ...manifests.errors import StageError
from ..base.ahead import prefetched
from ..base.arithmetic import autocast, exactly, resolve_precision
from ..base.tools import SILENT, ProgressBar, Tools
from ..systems.batch import Batch
from ..systems.system import Model
from ..text.encoded import lengths_of
from .batches import Visuals, batches, bucketed_order
from .checkpoint import Checkpoints, Progress
from .curves import Draw, curves
from .optimizer import describe_groups, make_optimizer, make_schedule, parameter_groups
from .predictions import predict_split, score_split
from .ranks import Ranks
from .recipe import TrainSettings
from .replay import Replays, recorder_on
from .scores import Scores
from .signals import Wish
from .splits import Split

__all__ = ["Task", "Trainer"]

# How many losses wait on a GPU before they are read.
_LOSSES_READ_AT_ONCE = 50

# How many samples are predicted at once.
_PREDICTED_AT_ONCE = 64


@dataclass(frozen=True)
class Task:
    """What is trained on what.

    name: for people. rates: the learning rate of each part of the model. logs: TensorBoard's folder, or None.
    negative: the relation that counts as nothing to find, or None.
    """

    name: str
    settings: TrainSettings
    seed: int
    splits: dict[str, Split]
    visuals: Visuals | None
    pad_id: int
    rates: Mapping[str, float]
    logs: Path | None
    negative: str | None = None


class _LossOf(nn.Module):
    """The loss as a forward pass, which is what DistributedDataParallel wraps."""

    def __init__(self, model: Model) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch) -> Tensor:
        return self.model.loss(batch)


class _LossSum:
    """The sum of an epoch's losses.

    On a GPU many are read at once: reading one waits for all that is queued there.
    """

    def __init__(self, task: Task, progress: Progress) -> None:
        self.total = 0.0
        self._task, self._progress = task, progress
        self._unread: list[tuple[Tensor, Batch]] = []

    def add(self, loss: Tensor, batch: Batch) -> None:
        """Count the loss of a batch, times its samples. Raises as `read` does."""
        self._unread.append((loss, batch))
        if loss.device.type == "cpu" or len(self._unread) == _LOSSES_READ_AT_ONCE:
            self.read()

    def read(self) -> float:
        """Return the sum so far. Raises StageError for a loss that is no number."""
        for loss, batch in self._unread:
            value = loss.item()
            if not math.isfinite(value):
                names = ", ".join(self._task.splits["train"].ids[i] for i in batch.ids[:3])
                raise StageError(
                    f"{self._task.name}: the loss became {value} in epoch {self._progress.epoch + 1} "
                    f"(samples {names}, ...); lower the learning rates, keep clip_norm above 0, or use "
                    'precision = "fp32"'
                )
            self.total += value
        self._unread.clear()
        return self.total


class Trainer:
    """One training. After `run`, the model of the best epoch is loaded, and `progress` says how it went.

    wish: what signals ask of it meanwhile.

    Several ranks see the same order of batches, and each computes its share of every batch: the gradient is
    that of the whole batch.
    """

    def __init__(self, task: Task, model: Model, checkpoints: Checkpoints, ranks: Ranks) -> None:
        s = task.settings
        self.task, self.model, self.checkpoints, self.ranks = task, model, checkpoints, ranks
        self.device = next(model.parameters()).device
        self.precision = resolve_precision(s.precision, self.device)
        self.loss = ranks.wrap(_LossOf(model))
        # Ranks exchange gradients in the middle of a backward pass, which no graph of one of them holds.
        record = recorder_on(self.device) if s.cuda_graphs and ranks.size == 1 else None
        self._replays = Replays(model, self._passes, record) if record is not None else None
        self.optimizer = make_optimizer(parameter_groups(model, task.rates, s.weight_decay), s)
        self.batches_per_epoch = math.ceil(len(task.splits["train"]) / s.batch_size)
        self.updates = math.ceil(self.batches_per_epoch / s.accumulate) * s.epochs
        self.schedule = make_schedule(self.optimizer, s, self.updates)
        self.progress = Progress()
        self._losses = _LossSum(task, self.progress)  # of the current epoch's samples so far
        self._order_generator = torch.Generator().manual_seed(task.seed)
        self._order_state = self._order_generator.get_state()  # before the current epoch's order is drawn
        self.wish = Wish()
        self._say: Callable[[str], None] = SILENT.say
        self._clock = time.monotonic()  # up to when `progress.seconds` counts
        if not ranks.leads:  # dropout differs from rank to rank, as it differs from sample to sample
            torch.manual_seed(task.seed + 1_000_003 * ranks.rank)

    @property
    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return what each group of the optimizer holds, for metrics.json."""
        return describe_groups(self.optimizer)

    @property
    def finished(self) -> bool:
        """Return whether the last epoch is done, or `patience` epochs have not improved on the best one."""
        s, at = self.task.settings, self.progress
        waited = at.epoch - at.best_epoch if at.best_scores is not None else 0
        return at.epoch >= s.epochs or (s.patience > 0 and waited >= s.patience)

    def run(self, tools: Tools) -> int:
        """Train to the end. Return the number of training samples processed by this process."""
        s, at = self.task.settings, self._resume(tools)
        left = len(self.task.splits["train"]) * (s.epochs - at.epoch) - at.batch * s.batch_size
        bar = tools.bar(left, self.task.name, "sample")
        self._say = tools.say
        samples = 0
        logs = self.task.logs if self.ranks.leads else None
        with curves(logs, at.step) as draw:
            while not self.finished:
                samples += self.train_epoch(bar, draw)
                row = self._close_epoch()
                draw("validation F1", row["valid_f1"], at.step)
                tools.say(f"{self.task.name}: epoch {at.epoch} of {s.epochs}: {_in_words(row)}")
        bar.close()
        if at.epoch < s.epochs:
            tools.say(f"{self.task.name}: stopped, no better validation F1 in {s.patience} epochs")
        self.model.load_state_dict(self.checkpoints.best(at.best_epoch))
        return samples

    def train_epoch(self, bar: ProgressBar, draw: Draw) -> int:
        """Train the rest of the current epoch, which a resumed training may enter in the middle.

        Return the number of its samples.
        """
        s, at = self.task.settings, self.progress
        self.model.train()
        rest = self._draw_order()[at.batch :]
        self._clock = time.monotonic()
        samples = 0
        for members, batch in zip(rest, prefetched(self._batches(rest)), strict=True):
            at.batch += 1
            updates = at.batch % s.accumulate == 0 or at.batch == self.batches_per_epoch
            with self._gradients_meet(updates):
                loss = self._forward(batch, members)
            samples += len(members)
            bar.update(len(members))
            if updates:
                self._update()
                self._draw_curves(draw, loss)
                self._pause_to_save()
        self._losses.read()
        self._read_clock()
        return samples

    def _draw_order(self) -> list[list[int]]:
        """Draw the sample numbers of each batch of the current epoch."""
        self._order_state = self._order_generator.get_state()
        lengths = lengths_of(self.task.splits["train"].texts)
        return bucketed_order(lengths, self.task.settings.batch_size, self._order_generator)

    def _batches(self, order: list[list[int]]) -> Iterator[Batch]:
        """Make this rank's share of each batch."""
        # A rank that a short last batch has no sample for computes one that counts nothing: all ranks must
        # take part.
        shares = [self.ranks.share(members) or members[:1] for members in order]
        config = self.model.config
        return batches(
            self.task.splits["train"],
            shares,
            task=config.task,
            pad_id=self.task.pad_id,
            label_ids={label: number for number, label in enumerate(config.labels)},
            visuals=self.task.visuals,
            device=self.device,
        )

    def _gradients_meet(self, now: bool) -> AbstractContextManager[None]:
        """Return the context of a batch after which the ranks exchange gradients, `now` or not yet."""
        if isinstance(self.loss, DistributedDataParallel) and not now:
            return self.loss.no_sync()
        return nullcontext()

    def _forward(self, batch: Batch, members: Sequence[int]) -> Tensor:
        """Return the loss of this rank's share of the batch `members`; its gradients are added up."""
        # Ranks average their gradients: each weighs as many samples as it has of the batch.
        counted = len(self.ranks.share(members))
        weight = counted * self.ranks.size / len(members) / self.task.settings.accumulate
        with exactly(self.device, gradients=True):
            if self._replays is not None:
                loss = self._replays(batch, weight)
            else:
                loss = self._passes(batch.to(self.device), weight)
        self._losses.add(loss * counted, batch)
        return loss

    def _passes(self, batch: Batch, weight: float) -> Tensor:
        """Return the loss of a batch on the device; the gradients of the loss times `weight` are added up."""
        with autocast(self.device, self.precision):
            loss: Tensor = self.loss(batch)
        torch.autograd.backward(loss * weight)
        return loss.detach()

    def _update(self) -> None:
        """Clip the gradients that were gathered, and move the parameters by them."""
        if self.task.settings.clip_norm > 0:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.task.settings.clip_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.schedule.step()
        self.progress.step += 1

    def _draw_curves(self, draw: Draw, loss: Tensor) -> None:
        """Draw the loss and the learning rate of every tenth update."""
        if self.task.logs is not None and self.progress.step % 10 == 0:
            draw("loss", loss.item(), self.progress.step)
            draw("learning rate", self._learning_rate(), self.progress.step)

    def _learning_rate(self) -> float:
        return float(self.schedule.get_last_lr()[0])

    def _read_clock(self) -> None:
        """Count the time since the last call as the current epoch's."""
        now = time.monotonic()
        self.progress.seconds += now - self._clock
        self._clock = now

    def _close_epoch(self) -> dict[str, Any]:
        """Score the validation split, and return the epoch's row in the history."""
        at, count = self.progress, len(self.task.splits["train"])
        total = sum(self.ranks.gather(self._losses.total))
        scores = self._validate(at.epoch + 1)
        at.epoch += 1
        row = {
            "epoch": at.epoch,
            "step": at.step,
            "loss": total / count,
            "learning_rate": self._learning_rate(),
            "valid_f1": scores["f1"] if scores else None,
            "seconds": at.seconds,
            "samples_per_second": count / at.seconds,
        }
        at.history.append(row)
        at.batch, at.seconds = 0, 0.0
        self._losses.total = 0.0
        self._order_state = self._order_generator.get_state()
        reason = self._reason_to_save()
        if reason == "stop" or (reason and not self.finished):
            self._save_for(reason)
        return row

    def _validate(self, epoch: int) -> Scores | None:
        """Score the validation split at the end of `epoch`, from `first_evaluation` on.

        The best model so far is kept, of equals the earlier one.
        """
        s, valid, at = self.task.settings, self.task.splits["valid"], self.progress
        if not len(valid):
            if epoch == s.epochs:
                self._keep(epoch, None)
            return None
        if epoch < s.first_evaluation:
            return None
        scores = score_split(valid, self.predict(valid), self.model.config.task, self.task.negative)
        if at.best_scores is None or scores["f1"] > at.best_scores["f1"]:
            self._keep(epoch, scores)
        return scores

    def predict(self, split: Split, tools: Tools = SILENT) -> list[list[str]]:
        """Predict a split together with the other ranks, each its share.

        Return all predictions, in the split's order. Raises Stopped where a signal asked to stop.
        """
        numbers = self.ranks.share(range(len(split)))
        # Ranks agree to stop between two batches, and some have one batch less than the first.
        pauses = iter(range(math.ceil(math.ceil(len(split) / self.ranks.size) / _PREDICTED_AT_ONCE)))

        def pause() -> None:
            next(pauses)
            self._stop_if_asked()

        mine = predict_split(
            self.model,
            split.take(numbers),
            visuals=self.task.visuals,
            pad_id=self.task.pad_id,
            precision=self.precision,
            tools=tools,
            batch_size=_PREDICTED_AT_ONCE,
            between=pause,
        )
        for _ in pauses:
            self._stop_if_asked()
        if self.ranks.size == 1:
            return mine
        parts = self.ranks.gather(list(zip(numbers, mine, strict=True)))
        found = {i: labels for part in parts for i, labels in part}
        return [found[i] for i in range(len(split))]

    def _keep(self, epoch: int, scores: Scores | None) -> None:
        """Keep the model as it is at the end of `epoch` as the best so far."""
        self.progress.best_scores, self.progress.best_epoch = scores, epoch
        if self.ranks.leads:
            self.checkpoints.keep_best(epoch, self.model.state_dict())
        self.ranks.broadcast(None)  # no rank reads the file before it exists

    def _pause_to_save(self) -> None:
        """Save a checkpoint where there is a reason to in the middle of an epoch.

        At its end `_close_epoch` does.

        Who asks the training to stop does not wait for the validation at the end.
        """
        reason = self._reason_to_save()
        if reason == "stop" or (reason and self.progress.batch < self.batches_per_epoch):
            self._losses.read()
            self._read_clock()
            self._save_for(reason)

    def _stop_if_asked(self) -> None:
        """Save a checkpoint and raise Stopped where a signal asked rank 0 to stop, between two updates."""
        if self.ranks.broadcast(self.wish.asked) == "stop":
            self._save_for("stop")

    def close(self) -> None:
        """Save a checkpoint and raise Stopped where a signal asked to stop while the results were written.

        Several ranks do not meet again for this: each then ends as outside of trainings.
        """
        if self.ranks.size == 1:
            self._stop_if_asked()

    def _reason_to_save(self) -> str:
        """Return what a signal asked of rank 0, "save" or "stop"; otherwise "due" where it is time, or ""."""
        return str(self.ranks.broadcast(self.wish.asked or ("due" if self.checkpoints.is_due() else "")))

    def _save_for(self, reason: str) -> None:
        """Save a checkpoint, and answer the signal that asked for it.

        Raises Stopped where it asked to stop.
        """
        self._save()
        if reason == "stop":
            raise self.wish.stop()
        if reason == "save":
            self.wish.asked = ""
            self._say(f"{self.task.name}: checkpoint written after update {self.progress.step}")

    def _save(self) -> None:
        """Commit everything that `_resume` needs to go on exactly here."""
        ranks = self.ranks.gather(
            {
                "torch": torch.get_rng_state(),
                "cuda": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
                "loss_sum": self._losses.total,
            }
        )
        if not self.ranks.leads:
            return
        at, epochs = self.progress, self.task.settings.epochs
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "order": self._order_state,
            "ranks": ranks,
            "progress": at.dumps(),
        }
        summary = {"epoch": at.epoch, "epochs": epochs, "step": at.step, "steps": self.updates}
        self.checkpoints.save(state, at.best_epoch, summary)

    def _resume(self, tools: Tools) -> Progress:
        """Go back to where the last checkpoint was saved, if there is one, and say so.

        Return the progress. Raises StageError where the checkpoint is damaged.
        """
        state = self.checkpoints.load()
        if state is None:
            return self.progress
        saved = Progress.loads(state["progress"])
        if saved is None:
            tools.say(
                f"{self.task.name}: the checkpoint in {self.checkpoints.folder} is of another version of "
                "hmnet-pipe; training starts from the beginning"
            )
            return self.progress
        try:
            if saved.best_epoch:
                self.checkpoints.best(saved.best_epoch)
            self._restore(state, saved)
        except (KeyError, IndexError, RuntimeError, TypeError, ValueError) as error:
            raise self.checkpoints.damaged(error) from error
        batches_done = f" and {saved.batch} of {self.batches_per_epoch} batches" if saved.batch else ""
        epochs = self.task.settings.epochs
        tools.say(f"{self.task.name}: resuming after {saved.epoch} of {epochs} epochs{batches_done}")
        return self.progress

    def _restore(self, state: dict[str, Any], saved: Progress) -> None:
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.schedule.load_state_dict(state["schedule"])
        self._order_generator.set_state(state["order"])
        self.progress = saved
        self._losses = _LossSum(self.task, saved)
        mine = state["ranks"][self.ranks.rank]
        self._losses.total = mine["loss_sum"]
        torch.set_rng_state(mine["torch"])
        if mine["cuda"] is not None:
            torch.cuda.set_rng_state(mine["cuda"], self.device)


def _in_words(row: dict[str, Any]) -> str:
    """Return an epoch's row in the history as a line for people."""
    scored = "" if row["valid_f1"] is None else f", validation F1 {row['valid_f1']:.4f}"
    return (
        f"loss {row['loss']:.4f}, learning rate {row['learning_rate']:.2e}, "
        f"{row['samples_per_second']:.1f} samples/s{scored}"
    )
