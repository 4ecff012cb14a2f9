"""What every system is: a text encoder, states of its own, and the heads, loss and decoding that all share.

A system is a subclass with one method of its own, `states`, and an entry in the registry.
"""

import json
from abc import abstractmethod
from collections.abc import Hashable, Mapping
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...manifests.errors import InputError
from ...manifests.files import atomic_path, make_folder, write_text
from ..base.writing import writing
from ..text.encoders.bert import encoder_from_config, load_encoder
from ..text.encoders.families import value_of
from ..text.reader import TextReader
from ..text.vectors import Vectors
from .batch import Batch, ModelConfig
from .heads import best_tags, bio_crf, tag_loss
from .marginals import Chain, chain_of, in_doubles

__all__ = ["OVER", "Explanation", "Model", "Scored", "System"]


OVER = ("views", "cells", "objects")
"""What a system's attention is spread over: views, the cells of the whole image (row-major), or objects."""


@dataclass(frozen=True)
class Explanation:
    """What a model looked at, on the CPU.

    Symbols: L layers with attention, B samples, V things that are looked at, c levels, H heads, n sub-words.
    gates: (L, B, V, c), equation 4's probabilities of the levels, or None in systems without a gate.
    attention: (L, B, H, n, V), the share of each sub-word's attention that goes to each thing; in HMNeT
    (equation 9) it goes to the cells of each view, and the rest to text. It is zero in layers that see text
    alone, and for what is absent. present: (B, V) bool. over: what the V things are, one of OVER. word_gates:
    (B, n), by the name of each gate that a system has for every sub-word. cells: (L, B, H, n, V, P), the
    attention to each of the P cells of a view, row-major, whose sum is that to the view; None in systems that
    do not tell them apart.
    """

    gates: Tensor | None
    attention: Tensor
    present: Tensor
    over: str = "views"
    word_gates: dict[str, Tensor] = field(default_factory=dict)
    cells: Tensor | None = None


@dataclass(frozen=True)
class Scored:
    """What a model finds in a batch, and how sure it is.

    labels: as `predict` returns them. chain: of entities, the sums over all label sequences, which give the
    probability of each tag and of each span; None for relations. probabilities: of relations, the softmax of
    equation 11, (B, labels); None for entities. Both are in float64.
    """

    labels: list[list[str]]
    chain: Chain | None = None
    probabilities: Tensor | None = None


class Model(nn.Module):
    """What training, prediction and scoring ask of a model: a system, or one together with its backbone."""

    config: ModelConfig

    def set_made_by(self, made_by: Mapping[str, Any]) -> None:
        """Note in the configuration how each stage made what the model reads."""
        self.config = replace(self.config, made_by=dict(made_by))

    @abstractmethod
    def loss(self, batch: Batch) -> Tensor:
        """Return the mean loss of a batch's labels, a scalar."""

    def path(self, batch: Batch) -> Hashable | None:
        """Return what of a batch's values decides which operations its loss takes, besides the shapes.

        The operations of batches with equal shapes and equal paths can be recorded once and replayed
        (learning.replay). None: no two batches can be relied on to take the same.
        """
        return ()

    @abstractmethod
    def predict(self, batch: Batch) -> list[list[str]]:
        """Return the best label sequence of each sample's kept words, or a list of one relation."""

    @abstractmethod
    def scored(self, batch: Batch, temperature: float = 1.0) -> Scored:
        """Return the labels that `predict` finds, and their probabilities, by one forward pass.

        temperature: what all scores are divided by before they become probabilities (Guo et al. 2017). It
        changes no label.
        """

    @abstractmethod
    def explain(self, batch: Batch) -> Explanation:
        """Return gates and text-to-view attention of a batch.

        Raises InputError for a system that has none.
        """

    @abstractmethod
    def part_of(self, parameter: str) -> str:
        """Return a parameter's optimizer group: "encoder", "fusion", "backbone" or "head"."""

    @abstractmethod
    def save_pretrained(self, folder: Path, reader: TextReader) -> None:
        """Write everything that loading needs into a folder."""


class System(Model):
    """A text encoder with the heads of its task.

    A head is the linear emissions and the CRF of equation 10 for entities, or the softmax of equation 11 for
    relations.
    """

    # The optimizer group of each module that is not of the head.
    parts: ClassVar[Mapping[str, str]] = {"encoder": "encoder"}
    # The modules of a group other than the head's that are of the task all the same.
    of_task: ClassVar[frozenset[str]] = frozenset()

    def __init__(
        self,
        config: ModelConfig,
        encoder: nn.Module,
        *,
        width: int | None = None,
        pair_width: int | None = None,
        dropout: float | None = None,
    ) -> None:
        """Build the encoder's side and the head.

        width: of the states; None: the encoder's. pair_width: of what the relation head reads; None: that of
        the states of [CLS] or of both opening markers. dropout: before the head; None: the encoder's.
        """
        super().__init__()
        self.config = config
        self.encoder = encoder
        hf: Any = encoder.config
        own = value_of(hf, "hidden_dropout_prob") if dropout is None else dropout
        self.dropout = nn.Dropout(config.options.get("head_dropout", own))
        width = hf.hidden_size if width is None else width
        if config.task == "ner":
            self.classifier = nn.Linear(width, len(config.labels))
            self.crf = bio_crf(config.labels)
        else:
            pooled = 2 * width if config.relation_head == "markers" else width
            self.classifier = nn.Linear(pooled if pair_width is None else pair_width, len(config.labels))

    @staticmethod
    def pretrained(folder: Path, config: ModelConfig) -> nn.Module:
        """Return the pretrained encoder in `folder` as the system reads it. Raises WeightsError."""
        return load_encoder(folder)

    @staticmethod
    def unfilled(config: ModelConfig) -> nn.Module:
        """Return the encoder of a model of the system with random weights."""
        return encoder_from_config(config.encoder)

    @abstractmethod
    def states(self, batch: Batch) -> Tensor:
        """Return the state of each sub-word that the heads read: (B, n, width)."""

    def pooled(self, states: Tensor, batch: Batch) -> Tensor:
        """Return what the classifier reads of states (B, n, width).

        It is the state of each word's first sub-word, (B, T, width), for entities, and that of [CLS], or
        those of both opening markers side by side, for relations.
        """
        rows = torch.arange(len(states), device=states.device)[:, None]
        picked = states[rows, batch.positions]  # shape: (B, T or 3, width)
        if self.config.task == "re":
            picked = picked[:, 1:].flatten(1) if self.config.relation_head == "markers" else picked[:, 0]
        return picked

    def looks_at(self, view_mask: Tensor) -> Tensor:
        """Return which of the present views, (B, V) bool, change the result at all."""
        return view_mask

    def forward(self, batch: Batch) -> Tensor:
        """Return scores: emissions (B, T, labels) for entities, logits (B, labels) for relations."""
        picked = self.pooled(self.states(batch), batch)
        scores: Tensor = self.classifier(self.dropout(picked)).to(self.classifier.weight.dtype)
        return scores

    def loss(self, batch: Batch) -> Tensor:
        """Return the mean negative log-likelihood of a batch's labels: equation 10 or 11, divided by B."""
        scores = self(batch)
        assert batch.labels is not None
        if self.config.task == "re":
            return nn.functional.cross_entropy(scores, batch.labels)
        return tag_loss(self.crf, scores, batch.labels, batch.position_mask)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[list[str]]:
        return self._best(self(batch), batch)

    @torch.inference_mode()
    def scored(self, batch: Batch, temperature: float = 1.0) -> Scored:
        scores = self(batch)
        found = self._best(scores, batch)
        if self.config.task == "ner":
            return Scored(found, chain=chain_of(self.crf, scores, batch.position_mask, temperature))
        return Scored(found, probabilities=(in_doubles(scores) / temperature).softmax(dim=-1))

    def _best(self, scores: Tensor, batch: Batch) -> list[list[str]]:
        """Return the best labels by what `forward` has returned."""
        if self.config.task == "re":
            return [[self.config.labels[i]] for i in scores.argmax(dim=-1).tolist()]
        paths = best_tags(self.crf, scores, batch.position_mask)
        return [[self.config.labels[i] for i in path] for path in paths]

    @property
    def gated_levels(self) -> int:
        """Return how many levels a gate of the system chooses from; 0 where it has no such gate."""
        return 0

    def without_level(self, level: int) -> AbstractContextManager[None]:
        """Return a context in which one of the gated levels is not there."""
        raise InputError(f"{self.config.system} has no gate that could leave a level out")

    def explain(self, batch: Batch) -> Explanation:
        raise InputError(f"{self.config.system} has no gate and no attention to an image that could be shown")

    def take_vectors(self, vectors: Vectors) -> None:
        """Start from the word vectors of a file whatever the system has of them besides its encoder."""

    def part_of(self, parameter: str) -> str:
        return self.parts.get(parameter.split(".")[0], "head")

    def is_head(self, parameter: str) -> bool:
        """Return whether a parameter is of the task. All others can go over to a model of the other task."""
        return self.part_of(parameter) == "head" or parameter.split(".")[0] in self.of_task

    def save_pretrained(self, folder: Path, reader: TextReader) -> None:
        """Write config.json, model.safetensors and what reads texts: all that using the model needs."""
        make_folder(folder)
        reader.save(folder)
        weights = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        with atomic_path(folder / "model.safetensors") as temporary, writing(temporary):
            save_file(weights, temporary)
        values = asdict(self.config)
        for name in ("options", "made_by"):  # models without any are what they were before there were these
            if not values[name]:
                del values[name]
        write_text(folder / "config.json", json.dumps(values, indent=2, sort_keys=True) + "\n")
