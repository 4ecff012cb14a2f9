"""What single samples' answers depend on: the probability of an answer without each part of the image.

It is exact, and no estimate: a part is taken away, and the model is asked again. A view is taken away by the
mask that absent views have, the whole image as where a sample has none, and a level of the pyramid by closing
its gate in every layer, so that the other levels share what it had (equation 4).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from ...manifests.errors import InputError
from ..base.arithmetic import autocast
from ..learning.batches import Visuals, batches
from ..learning.calibration import temperature_of
from ..learning.errors import Entity
from ..learning.opened import OpenModel
from ..learning.splits import Split
from ..systems.batch import Batch
from ..systems.marginals import span_types
from ..systems.system import Scored, System
from .examined import IMAGE, LEVEL, VIEW, Examined, Looked, Occluded

__all__ = ["examine"]


def examine(
    opened: OpenModel, split: Split, answers: Sequence[Entity], visuals: Visuals | None
) -> list[Examined]:
    """Return what an answer to each sample depends on, in the order of `split`.

    answers: one for each sample, as stages.learning.errors has them. visuals: as in over_split.
    """
    opened.model.eval()
    temperature = temperature_of(opened.folder)
    return [
        _one(opened, split.take([number]), answer, visuals, temperature)
        for number, answer in enumerate(answers)
    ]


def _one(
    opened: OpenModel, sample: Split, answer: Entity, visuals: Visuals | None, temperature: float
) -> Examined:
    """Examine the one sample of a split."""
    model = opened.model

    def asked(batch: Batch) -> float | None:
        with autocast(next(model.parameters()).device, opened.precision):
            return _probability(model.scored(batch, temperature), answer, opened.config.labels)

    whole = _batch(opened, sample, visuals)
    probability = asked(whole)
    has_image = sample.image_keys[0] is not None
    if probability is None or not has_image:
        return Examined(answer, probability, (), None)
    found = [(IMAGE, 0, asked(_batch(opened, replace(sample, image_keys=[None]), visuals)))]
    if whole.view_mask is not None and isinstance(model, System):
        seen = model.looks_at(whole.view_mask)[0].nonzero()[:, 0].tolist()
        for view in seen:
            mask = whole.view_mask.clone()
            mask[0, view] = False
            found.append((VIEW, view, asked(replace(whole, view_mask=mask, known_mask=None))))
        for level in range(model.gated_levels if seen else 0):
            with model.without_level(level):
                found.append((LEVEL, level, asked(whole)))
    occluded = tuple(Occluded(*each[:2], each[2]) for each in found if each[2] is not None)
    return Examined(answer, probability, occluded, _looked(opened, sample, whole, answer))


def _batch(opened: OpenModel, sample: Split, visuals: Visuals | None) -> Batch:
    """Return the one sample of a split as the model reads it."""
    task, pad_id = opened.config.task, opened.reader.pad_id
    [batch] = batches(sample, [[0]], task=task, pad_id=pad_id, label_ids=None, visuals=visuals)
    return batch.to(next(opened.model.parameters()).device)


def _probability(scored: Scored, answer: Entity, labels: Sequence[str]) -> float | None:
    """Return the probability of an answer to the only sample of a batch; None where it cannot be one."""
    name, first, last = answer
    if scored.chain is None:
        assert scored.probabilities is not None
        return float(scored.probabilities[0, labels.index(name)]) if name in labels else None
    numbers = span_types(labels).get(name)
    if numbers is None or last >= scored.chain.mask.shape[1]:
        return None
    return float(scored.chain.spans(*numbers)[0, first, last])


def _looked(opened: OpenModel, sample: Split, batch: Batch, answer: Entity) -> Looked | None:
    """Return what the model looked at, or None for a system that cannot say."""
    try:
        with autocast(next(opened.model.parameters()).device, opened.precision):
            explained = opened.model.explain(batch)
    except InputError:
        return None
    of_word = opened.config.task == "ner"
    # Of a relation, the two opening markers; [CLS] stands before them.
    positions = sample.texts[0].positions
    places = [positions[answer[1]]] if of_word else positions[1:]

    def mean(attention: torch.Tensor) -> torch.Tensor:
        return attention[:, 0, :, places].float().mean(dim=(1, 2))

    first = 1 if explained.over == "objects" else 0
    if batch.view_mask is not None and isinstance(opened.model, System):
        first = int(opened.model.looks_at(torch.ones_like(batch.view_mask))[0].nonzero()[0, 0])
    return Looked(
        explained.over,
        explained.present[0].tolist(),
        None if explained.gates is None else explained.gates[:, 0].tolist(),
        mean(explained.attention).tolist(),
        None if explained.cells is None else mean(explained.cells).tolist(),
        first,
        answer[1] if of_word else None,
    )
