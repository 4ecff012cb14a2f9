"""How far a model's probabilities can be trusted, and the temperature that mends them.

Expected calibration error, reliability and temperature are those of Guo et al. 2017, "On Calibration of
Modern Neural Networks". What is judged is every entity or relation that the model finds: of an entity the
probability of exactly this span with this type, of a relation that of the softmax.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize_scalar
from seqeval.metrics.sequence_labeling import get_entities
from torch import Tensor

from ...manifests.errors import StageError
from ...manifests.files import read_text, reason_of, write_text
from ...manifests.fingerprint import digest_file
from ..base.tools import SILENT, Tools
from ..systems.batch import Batch
from ..systems.marginals import Chain, span_types
from ..systems.registry import TEMPERATURE_FILE
from ..systems.system import Model, Scored
from .batches import Visuals
from .errors import Entity
from .predictions import over_split
from .splits import Split

__all__ = [
    "Found",
    "calibration",
    "entity_scores",
    "fit_temperature",
    "found_in",
    "judged",
    "keep_temperature",
    "probabilities_of",
    "reliability",
    "temperature_of",
]

BINS = 10

# The temperatures among which the best is sought. What is at their ends says nothing about the model, but
# that the samples are too few, or all right, or all wrong.
_COLDEST, _HOTTEST = 0.05, 20.0
_AT_AN_END = 1.01


@dataclass(frozen=True)
class Found:
    """What a model found in a split: of each batch the numbers of its samples, and what it found in them.

    names: the model's labels. split: the one that it was found in, with its gold. labels: of each sample, in
    the order of the split.
    """

    names: tuple[str, ...]
    split: Split
    labels: list[list[str]]
    batches: list[tuple[list[int], Scored]]


def found_in(
    model: Model,
    split: Split,
    *,
    visuals: Visuals | None,
    pad_id: int,
    precision: str,
    tools: Tools = SILENT,
) -> Found:
    """Return what the model finds in a split, at a temperature of 1."""
    kept: list[tuple[list[int], Scored]] = []

    def each(batch: Batch) -> list[list[str]]:
        kept.append((batch.ids, model.scored(batch)))
        return kept[-1][1].labels

    labels = over_split(model, split, each, visuals=visuals, pad_id=pad_id, precision=precision, tools=tools)
    return Found(model.config.labels, split, labels, kept)


def calibration(found: Found, fitted_on: Found | None, tools: Tools = SILENT) -> dict[str, Any]:
    """Return how far the probabilities of what was found can be trusted.

    Return {"as_it_is": `reliability`, "temperature": the one fitted on the other split, "fitted_on": that
    split's name, "with_temperature": `reliability`}. fitted_on: None where there is nothing to fit on: the
    last three are None then.
    """
    result: dict[str, Any] = {
        "as_it_is": reliability(*judged(found)),
        "temperature": None,
        "fitted_on": None,
        "with_temperature": None,
    }
    if fitted_on is not None and (temperature := fit_temperature(fitted_on)) is not None:
        if not _COLDEST * _AT_AN_END < temperature < _HOTTEST / _AT_AN_END:
            tools.say(
                f"warning: the temperature {temperature:.3g} is at the end of what is tried: "
                f"{fitted_on.split.name} has too few samples, or the model is always right or wrong there"
            )
        result["temperature"], result["fitted_on"] = temperature, fitted_on.split.name
        result["with_temperature"] = reliability(*judged(found, temperature))
    return result


def reliability(confidences: Sequence[float], correct: Sequence[bool], bins: int = BINS) -> dict[str, Any]:
    """Return the expected calibration error, and the reliability table that it is the sum of.

    The error is the mean distance, weighted by their counts, of confidence and accuracy in bins of equal
    width, each with its upper end. Without anything to judge there is none.
    """
    sure, right = np.asarray(confidences, float), np.asarray(correct, bool)
    number = np.clip(np.ceil(sure * bins).astype(int) - 1, 0, bins - 1)
    rows = []
    error = 0.0
    for i in range(bins):
        members = number == i
        row: dict[str, Any] = {"from": i / bins, "to": (i + 1) / bins, "count": int(members.sum())}
        row["confidence"] = float(sure[members].mean()) if row["count"] else None
        row["accuracy"] = float(right[members].mean()) if row["count"] else None
        rows.append(row)
        if row["count"]:
            error += row["count"] / len(sure) * abs(row["confidence"] - row["accuracy"])
    return {
        "error": error if len(sure) else None,
        "count": len(sure),
        "confidence": float(sure.mean()) if len(sure) else None,
        "accuracy": float(right.mean()) if len(sure) else None,
        "bins": rows,
    }


def judged(found: Found, temperature: float = 1.0) -> tuple[list[float], list[bool]]:
    """Return the score of each entity or relation that was found, and whether it is right."""
    confidences: list[float] = []
    correct: list[bool] = []
    gold = found.split.gold
    for ids, scored in found.batches:
        if scored.chain is not None:
            scores = entity_scores(scored.chain.at(temperature), scored.labels, found.names)
            for i, row in zip(ids, scores, strict=True):
                there = set(get_entities(gold[i]))
                confidences += [score for _, score in row]
                correct += [entity in there for entity, _ in row]
        else:
            confidences += _softened(scored, temperature).amax(dim=-1).tolist()
            correct += [labels == gold[i] for i, labels in zip(ids, scored.labels, strict=True)]
    return confidences, correct


def probabilities_of(found: Found) -> list[dict[Entity, float]]:
    """Return of each sample, in the order of the split, the probability of each entity that was found.

    A relation, the negative one too, has the words 0 and 0, as in stages.learning.errors.
    """
    result: list[dict[Entity, float]] = [{} for _ in found.labels]
    for ids, scored in found.batches:
        if scored.chain is not None:
            for i, row in zip(ids, entity_scores(scored.chain, scored.labels, found.names), strict=True):
                result[i] = dict(row)
        else:
            sure = _softened(scored).amax(dim=-1).tolist()
            for i, labels, probability in zip(ids, scored.labels, sure, strict=True):
                result[i] = {(labels[0], 0, 0): probability}
    return result


def entity_scores(
    chain: Chain, labels: Sequence[Sequence[str]], names: Sequence[str]
) -> list[list[tuple[Entity, float]]]:
    """Return each text's entities with the probability of exactly this span with this type.

    labels: the tags of each text's words. names: those of the chain's tags, in their order.
    """
    entities = [get_entities(list(tags)) for tags in labels]
    found = [[(entity, 0.0) for entity in row] for row in entities]
    for kind, tags in span_types(names).items():
        places = [
            (text, number, entity)
            for text, row in enumerate(entities)
            for number, entity in enumerate(row)
            if entity[0] == kind
        ]
        if places:
            spans = [(text, first, last) for text, _, (_, first, last) in places]
            scores = chain.exactly(*tags, *torch.tensor(spans, device=chain.total.device).T)
            for (text, number, entity), score in zip(places, scores.tolist(), strict=True):
                found[text][number] = entity, score
    return found


def fit_temperature(found: Found) -> float | None:
    """Return the temperature at which the gold labels of the samples are likeliest.

    Return None without a sample whose gold the model knows. The negative log-likelihood is convex in 1 /
    temperature, and so it has one minimum.
    """
    parts = [part for ids, scored in found.batches if (part := _with_gold(ids, scored, found)) is not None]
    if not parts:
        return None

    def loss(logarithm: float) -> float:
        return -sum(_likelihood(*part, math.exp(logarithm)) for part in parts)

    bounds = math.log(_COLDEST), math.log(_HOTTEST)
    return math.exp(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 1e-6}).x)


def _with_gold(ids: Sequence[int], scored: Scored, found: Found) -> tuple[Scored, Tensor, Tensor] | None:
    """Return a batch with the numbers of its gold labels, and of its samples whose gold the model knows."""
    numbers = {name: number for number, name in enumerate(found.names)}
    gold = [found.split.gold[i][: len(tags)] for i, tags in zip(ids, scored.labels, strict=True)]
    rows = [row for row, labels in enumerate(gold) if all(label in numbers for label in labels)]
    if not rows:
        return None
    width = max(map(len, gold))
    padded = [[numbers.get(label, 0) for label in labels] + [0] * (width - len(labels)) for labels in gold]
    device = _softened(scored).device if scored.chain is None else scored.chain.total.device
    return scored, torch.tensor(padded, device=device), torch.tensor(rows, device=device)


def _likelihood(scored: Scored, gold: Tensor, rows: Tensor, temperature: float) -> float:
    """Return the log-likelihood of the gold labels of a batch's samples `rows`."""
    if scored.chain is not None:
        each = scored.chain.at(temperature).likelihoods(gold)
    else:
        each = _softened(scored, temperature).log().gather(1, gold)[:, 0]
    return float(each[rows].sum())


def _softened(scored: Scored, temperature: float = 1.0) -> Tensor:
    """Return the probabilities of relations, (B, labels), with their scores divided by `temperature`."""
    assert scored.probabilities is not None
    # Scores are known but for a number that is the same for all labels, which the softmax takes out.
    return (scored.probabilities.log() / temperature).softmax(dim=-1)


def keep_temperature(folder: Path, report: dict[str, Any]) -> None:
    """Write the temperature of a `calibration` into the folder of its model."""
    values = {
        "temperature": report["temperature"],
        "fitted_on": report["fitted_on"],
        "model": digest_file(folder / "model.safetensors"),
    }
    write_text(folder / TEMPERATURE_FILE, json.dumps(values, indent=2) + "\n")


def temperature_of(folder: Path) -> float:
    """Return the temperature for the probabilities of the model in `folder`: 1 where none is kept.

    Raises StageError where it is damaged, or another model's.
    """
    path = folder / TEMPERATURE_FILE
    again = "delete it, or run `hmnet-pipe evaluate` with --keep-temperature again"
    try:
        values = json.loads(read_text(path))
        temperature = float(values["temperature"])
        if not 0 < temperature < math.inf:
            raise ValueError(f"{temperature} is no temperature")
        model = values["model"]
    except FileNotFoundError:
        return 1.0
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise StageError(f"{path} holds no temperature ({reason_of(error)}); {again}") from error
    if model != digest_file(folder / "model.safetensors"):
        raise StageError(f"{path} was fitted to another model.safetensors than the one beside it; {again}")
    return temperature
