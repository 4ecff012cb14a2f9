"""How far a model's probabilities can be trusted, and the temperature that mends them.

Expected calibration error, reliability and temperature are those of Guo et al. 2017, "On Calibration of
Modern Neural Networks". What is judged is every entity or relation that the model finds: of an entity the
probability of exactly this span with this type, of a relation that of the softmax.
"""

import json
import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import minimize_scalar
from torch import Tensor

from ...manifests.errors import StageError
from ...manifests.files import read_text, reason_of, write_text
from ...manifests.fingerprint import digest_file
from ..base.ahead import Made
from ..base.tools import SILENT, Tools
from ..systems.batch import Batch
from ..systems.marginals import Chain, span_types
from ..systems.registry import TEMPERATURE_FILE
from ..systems.system import Model, Scored
from .batches import Visuals
from .entities import Entity, entities_of
from .errors import found_of
from .predictions import over_split
from .splits import Split

__all__ = [
    "Found",
    "Judged",
    "entity_scores",
    "fit_temperature",
    "found_in",
    "judged_in",
    "keep_temperature",
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

    names: the model's labels. split: the one that it was found in, with its gold.
    """

    names: tuple[str, ...]
    split: Split
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
    """Return what the model finds in a split, at a temperature of 1, to fit one on."""
    kept: list[tuple[list[int], Scored]] = []

    def each(batch: Batch) -> list[list[str]]:
        kept.append((batch.ids, model.scored(batch)))
        return kept[-1][1].labels

    over_split(model, split, each, visuals=visuals, pad_id=pad_id, precision=precision, tools=tools)
    return Found(model.config.labels, split, kept)


class Judged:
    """How sure a model was of all that it found in a split, and whether it was right.

    What was found is given batch by batch and not kept: the sums over its label sequences (`Chain`) take some
    kilobytes a sample, its probabilities some bytes. names: the model's labels. temperature: the one fitted
    on what was found in another split, or None; probabilities are taken with it as well.
    """

    def __init__(self, names: Sequence[str], split: Split, fitted_on: Found | None) -> None:
        self._names, self._split = names, split
        self.temperature = None if fitted_on is None else fit_temperature(fitted_on)
        self._fitted_on = None if fitted_on is None else fitted_on.split.name
        # Of each entity or relation, and the first of each sample.
        self._sure, self._tempered, self._right = array("d"), array("d"), array("b")
        self._first = array("q", [0]) * len(split)

    def add(self, ids: Sequence[int], scored: Scored) -> None:
        """Take what was found in the samples of these numbers."""
        for i, row in zip(ids, _found(scored, self._names), strict=True):
            self._first[i] = len(self._sure)
            self._sure.extend(row.values())
            gold = self._split.gold[i]
            there = {(gold[0], 0, 0)} if scored.chain is None else set(entities_of(gold))
            self._right.extend(one in there for one in row)
        if self.temperature is not None:
            for row in _found(scored, self._names, self.temperature):
                self._tempered.extend(row.values())

    def judged(self) -> tuple[list[float], list[bool]]:
        """Return the probability of each entity or relation that was found, and whether it is right."""
        return self._sure.tolist(), [*map(bool, self._right)]

    def probabilities(self, labels: Sequence[Sequence[str]], task: str) -> Sequence[Mapping[Entity, float]]:
        """Return of each sample, in the order of the split, the probability of each entity that was found.

        labels: those that were found. A relation, the negative one too, has the words 0 and 0, as in
        stages.learning.errors.
        """

        def of(number: int) -> Mapping[Entity, float]:
            found = found_of(labels[number], task)
            first = self._first[number]
            return dict(zip(found, self._sure[first : first + len(found)], strict=True))

        return Made(len(labels), of)

    def report(self, tools: Tools = SILENT) -> dict[str, Any]:
        """Return how far the probabilities can be trusted.

        Return {"as_it_is": `reliability`, "temperature": the fitted one, "fitted_on": that split's name,
        "with_temperature": `reliability`}; where there was nothing to fit on, the last three are None.
        """
        temperature = self.temperature
        if temperature is not None and not _COLDEST * _AT_AN_END < temperature < _HOTTEST / _AT_AN_END:
            tools.say(
                f"warning: the temperature {temperature:.3g} is at the end of what is tried: "
                f"{self._fitted_on} has too few samples, or the model is always right or wrong there"
            )
        right = np.array(self._right, bool)
        return {
            "as_it_is": reliability(np.array(self._sure), right),
            "temperature": temperature,
            "fitted_on": None if temperature is None else self._fitted_on,
            "with_temperature": None if temperature is None else reliability(np.array(self._tempered), right),
        }


def judged_in(
    model: Model,
    split: Split,
    fitted_on: Found | None,
    *,
    visuals: Visuals | None,
    pad_id: int,
    precision: str,
    tools: Tools = SILENT,
) -> tuple[Judged, list[list[str]]]:
    """Return how sure the model is of what it finds in a split, and the labels that it finds."""
    judged = Judged(model.config.labels, split, fitted_on)

    def each(batch: Batch) -> list[list[str]]:
        scored = model.scored(batch)
        judged.add(batch.ids, scored)
        return scored.labels

    labels = over_split(model, split, each, visuals=visuals, pad_id=pad_id, precision=precision, tools=tools)
    return judged, labels


def reliability(confidences: npt.ArrayLike, correct: npt.ArrayLike, bins: int = BINS) -> dict[str, Any]:
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


def _found(scored: Scored, names: Sequence[str], temperature: float = 1.0) -> Iterator[dict[Entity, float]]:
    """Yield what was found in each sample of a batch, with its probability."""
    if scored.chain is not None:
        sums = scored.chain if temperature == 1.0 else scored.chain.at(temperature)
        yield from map(dict, entity_scores(sums, scored.labels, names))
    else:
        sure = _softened(scored, temperature).amax(dim=-1).tolist()
        for labels, probability in zip(scored.labels, sure, strict=True):
            yield {(labels[0], 0, 0): probability}


def entity_scores(
    chain: Chain, labels: Sequence[Sequence[str]], names: Sequence[str]
) -> list[list[tuple[Entity, float]]]:
    """Return each text's entities with the probability of exactly this span with this type.

    labels: the tags of each text's words. names: those of the chain's tags, in their order.
    """
    entities = [entities_of(tags) for tags in labels]
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
