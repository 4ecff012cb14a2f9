"""Prediction over a split, its scores, and its table."""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import numpy as np
import pyarrow as pa

from ...manifests.schemas import PREDICTIONS
from ..base.ahead import Made, prefetched
from ..base.arithmetic import autocast
from ..base.tools import SILENT, Tools
from ..systems.batch import Batch
from ..systems.system import Model
from ..text.encoded import lengths_of
from .batches import Visuals, batches
from .columns import in_arrow, sizes
from .scores import Scores, score_entities, score_relations
from .splits import Split

__all__ = ["of_all_words", "over_split", "predict_split", "predictions_table", "score_split"]

R = TypeVar("R")

_WORDS = pa.list_(pa.string())


def over_split(
    model: Model,
    split: Split,
    each: Callable[[Batch], Sequence[R]],
    *,
    visuals: Visuals | None,
    pad_id: int,
    precision: str,
    tools: Tools = SILENT,
    batch_size: int = 64,
    between: Callable[[], None] = lambda: None,
) -> list[R]:
    """Return what `each` makes of every sample, in the order of `split`.

    each: what a model gives for the samples of a batch, which lies on the model's device. Texts of like
    length go together. The model is put into evaluation mode. between: called after each batch.
    """
    model.eval()
    device = next(model.parameters()).device
    by_length = np.argsort(np.array(lengths_of(split.texts), np.int64), kind="stable")
    order: Sequence[Sequence[int]] = Made(
        -(-len(split) // batch_size), lambda i: by_length[i * batch_size : (i + 1) * batch_size].tolist()
    )
    found: list[R | None] = [None] * len(split)
    bar = tools.bar(len(split), f"predict {split.name}", "sample")
    task = model.config.task
    made = batches(split, order, task=task, pad_id=pad_id, label_ids=None, visuals=visuals, device=device)
    for batch in made if device.type == "cpu" else prefetched(made):
        bar.update(len(batch.ids))
        with autocast(device, precision):
            results = each(batch.to(device))
        for number, result in zip(batch.ids, results, strict=True):
            found[number] = result
        between()
    bar.close()
    return cast(list[R], found)  # every sample is in one batch


def predict_split(
    model: Model,
    split: Split,
    *,
    visuals: Visuals | None,
    pad_id: int,
    precision: str,
    tools: Tools = SILENT,
    batch_size: int = 64,
    between: Callable[[], None] = lambda: None,
) -> list[list[str]]:
    """Return each sample's tags of ALL words (O beyond the length limit), or lists of one relation.

    They are in the order of `split`; see `over_split`.
    """
    predicted = over_split(
        model,
        split,
        model.predict,
        visuals=visuals,
        pad_id=pad_id,
        precision=precision,
        tools=tools,
        batch_size=batch_size,
        between=between,
    )
    return of_all_words(split, predicted)


def of_all_words(split: Split, predicted: Sequence[list[str]]) -> list[list[str]]:
    """Return predictions in the order of `split` with an O for each word beyond the length limit."""
    return [
        labels if (beyond := gold - len(labels)) == 0 else [*labels, *["O"] * beyond]
        for labels, gold in zip(predicted, sizes(split.gold), strict=True)
    ]


def score_split(
    split: Split, predicted: Sequence[Sequence[str]], task: str, negative: str | None = None
) -> Scores:
    """Return the scores of predictions in the order of `split`.

    negative: the relation that counts as nothing to find; None: there is none, or the task is the other one.
    """
    if task == "ner":
        return score_entities(split.gold, predicted, split.groups)
    gold, guessed = ([labels[0] for labels in each] for each in (split.gold, predicted))
    return score_relations(gold, guessed, split.groups, negative=negative)


def predictions_table(split: Split, predicted: Sequence[Sequence[str]], visuals: Visuals | None) -> pa.Table:
    """Return predictions in the order of `split` as a table (manifests.schemas.PREDICTIONS)."""
    columns = {
        "id": in_arrow(split.ids, pa.string()),
        "split": pa.repeat(pa.scalar(split.name, pa.string()), len(split)),
        "tokens": in_arrow(split.tokens, _WORDS),
        "gold": in_arrow(split.gold, _WORDS),
        "predicted": in_arrow(predicted, _WORDS),
        "has_image": pa.array(
            [visuals is not None and key in visuals for key in split.image_keys], pa.bool_()
        ),
    }
    return pa.table(columns, PREDICTIONS)
