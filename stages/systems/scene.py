"""The relation systems on an image's objects: BERT with a scene graph, and MEGA.

Both join a vector of the objects to the pair, x = W [[H_E1; H_E2]; v] without an activation, which goes to
the relation head. An object counts where it has both a place in the scene and features of its region.

Symbols: B batch, n sub-words, N objects, d the encoder's width, D that of the regions. [H_E1; H_E2] is 2d
wide, and so are the objects.
"""

import math
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from ...cache.spec import OBJECTS
from ...manifests.errors import InputError
from ..text.encoders.bert import encode
from .attention import masked_softmax
from .batch import Batch, ModelConfig
from .objects import RESERVED, ObjectEmbedding, check_regions, entering, of_objects, regions
from .system import Explanation, System

__all__ = ["MEGA", "BertSG"]


class SceneSystem(System):
    """A text encoder, a vector v of an image's objects, and the relation head on both. Relations only."""

    parts: ClassVar[Mapping[str, str]] = {**System.parts, "objects": "fusion", "joined": "fusion"}

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        check_regions(config, OBJECTS)
        hf: Any = encoder.config
        hidden, width = hf.hidden_size, 2 * hf.hidden_size
        super().__init__(config, encoder, pair_width=width, dropout=0.5)
        pair = width if config.relation_head == "markers" else hidden
        with torch.random.fork_rng(devices=[]):
            self.objects = self.new_objects(hidden, width)
            self.joined = nn.Linear(pair + width, width)  # W

    @abstractmethod
    def new_objects(self, hidden: int, width: int) -> nn.Module:
        """Return the system's own part, for states of width `hidden` and objects of width `width`."""

    @abstractmethod
    def summary(self, states: Tensor, pair: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return v, (B, 2d), of the states (B, n, d) and the pair, and the attention that `explain` shows.

        Its shape is (B, n, N).
        """

    def states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch.input_ids, batch.attention_mask, None)

    def pooled(self, states: Tensor, batch: Batch) -> Tensor:
        pair = super().pooled(states, batch)
        summary, _ = self.summary(states, pair, batch)
        # In two parts: without an object, v is 0, and x is that of the text to the last bit.
        text, visual = self.joined.weight.split([pair.shape[-1], summary.shape[-1]], dim=1)
        return linear(pair, text, self.joined.bias) + linear(summary.to(pair.dtype), visual)

    def present(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return the regions' vectors (B, N, D) and which objects count, (B, N)."""
        vectors, mask = regions(batch, self.config)
        assert batch.object_mask is not None
        if not vectors.shape[1]:  # no features at all: no object counts
            vectors = vectors.new_zeros(*batch.object_mask.shape, vectors.shape[-1])
            mask = torch.zeros_like(batch.object_mask)
        return vectors, mask & batch.object_mask

    def looks_at(self, view_mask: Tensor) -> Tensor:
        return of_objects(view_mask, self.config)

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        states = self.states(batch)
        _, attention = self.summary(states, super().pooled(states, batch), batch)
        return Explanation(
            gates=None,
            attention=attention[None, :, None].float().cpu(),
            present=self.present(batch)[1].cpu(),
            over="objects",
        )


class BertSG(SceneSystem):
    """BERT+SG, a row of Zheng et al. 2021 whose code is not public: MEGA's inputs without its alignment.

        o_j = W_f f_j + E[label_j] + W_g g_j [+ the mean over relations i -> j of E'[predicate]]
        v   = the mean of the objects, or sum_j a_j o_j with a = softmax_j([H_E1; H_E2] . o_j / sqrt(2d))

    options: "labels", "geometry" (both on) and "edges" (off) say what o_j is made of, "fusion" is "mean" or
    "attention", the row "+Att". MEGA's loader reads no relation: the "scene graph" of the published row is
    the features of its nodes. `bert-sg-edges` adds them.
    """

    def new_objects(self, hidden: int, width: int) -> nn.Module:
        options = self.config.options
        labels = RESERVED + len(options["object_labels"]) if options.get("labels", True) else 0
        predicates = RESERVED + len(options["predicates"]) if options.get("edges", False) else 0
        return GraphObjects(
            self.config.levels[-1],
            width,
            labels=labels,
            geometry=options.get("geometry", True),
            predicates=predicates,
        )

    def summary(self, states: Tensor, pair: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        vectors, mask = self.present(batch)
        objects = self.objects(vectors, mask, batch.object_labels, batch.object_geometry, batch.object_edges)
        if self.config.options.get("fusion", "mean") == "attention":
            query = pair.repeat(1, objects.shape[-1] // pair.shape[-1])  # [CLS] stands for both arguments
            scores = (objects @ query[..., None].to(objects.dtype)).squeeze(-1)
            scores = scores / math.sqrt(objects.shape[-1])
            weights = masked_softmax(scores, mask)
        else:
            weights = mask / mask.sum(dim=1, keepdim=True).clamp(min=1)
        summary = (weights.to(objects.dtype)[:, None] @ objects).squeeze(1)
        return summary, weights[:, None].expand(-1, states.shape[1], -1)

    def explain(self, batch: Batch) -> Explanation:
        """Return the attention of the pair, which is the same at each of its sub-words."""
        if self.config.options.get("fusion", "mean") != "attention":
            raise InputError(
                f"{self.config.system} takes the mean of an image's objects: there is no attention to show; "
                "bert-sg-att has one"
            )
        return super().explain(batch)


class GraphObjects(ObjectEmbedding):
    """ObjectEmbedding, and for each object the mean of the predicates of the relations that lead to it."""

    def __init__(
        self, features: int, width: int, *, labels: int = 0, geometry: bool = False, predicates: int = 0
    ) -> None:
        super().__init__(features, width, labels=labels, geometry=geometry)
        self.predicates = nn.Embedding(predicates, width, padding_idx=0) if predicates else None

    def forward(
        self,
        vectors: Tensor,
        mask: Tensor,
        labels: Tensor | None,
        boxes: Tensor | None,
        edges: Tensor | None = None,
    ) -> Tensor:
        """Return the objects (B, N, width). edges: (B, N, N), the predicate of subject i and object j."""
        found = super().forward(vectors, mask, labels, boxes)
        if self.predicates is None or edges is None:
            return found
        edges = torch.where(mask[:, :, None] & mask[:, None], edges, 0)
        there = edges > 0
        added = entering(self.predicates(edges), there).sum(dim=1)
        return found + added / there.sum(dim=1)[..., None].clamp(min=1)


class MEGA(SceneSystem):
    """MEGA (Zheng et al., ACM MM 2021): objects aligned with words by meaning and by place in the graph.

        T = H W_h;  V = f W_p;  A = softmax over sub-words of (V W_q)(T W_k)^T / sqrt(2d)
        S = sigmoid(A (T W_v));  G = R' T;  o_j = W_1 [S_j; G_j];  v = sum_j o_j

    R' are the structural weights of objects and words (stages.learning.structure), each at the first sub-word
    of its word. options: "sigmoid" (on; whether the paper has it could not be checked). Entries of the
    registry: `mega-shuffled` scrambles the structural weights, as the released files do, and `mega-unaligned`
    leaves them out. What `explain` returns is A: how much of each object's attention goes to each sub-word.

    github.com/thecharm/Mega has faults that are made impossible here: it reads R by rows of objects where it
    is stored by rows of words, inserts five rows of zeros into the cached list at every access, exchanges
    head and tail there, matches rows of words to sub-words by number, attends to padding, and lets the
    biases of absent objects count. Here R is made from this run's own words and scenes, once for each sample
    and image, and spread by where each word's first sub-word is.
    """

    def new_objects(self, hidden: int, width: int) -> nn.Module:
        sigmoid = self.config.options.get("sigmoid", True)
        return Alignment(hidden, self.config.levels[-1], width, sigmoid=sigmoid)

    def summary(self, states: Tensor, pair: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
        vectors, mask = self.present(batch)
        summary, attention = self.objects(states, batch.attention_mask, vectors, mask, batch.structure)
        return summary, attention.transpose(1, 2)


class Alignment(nn.Module):
    """MEGA's two alignments, from states, regions and structural weights to v."""

    def __init__(self, hidden: int, features: int, width: int, *, sigmoid: bool) -> None:
        super().__init__()
        self.words, self.regions = nn.Linear(hidden, width), nn.Linear(features, width)  # W_h and W_p
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.aligned = nn.Linear(2 * width, width)  # W_1
        self.squash: nn.Module = nn.Sigmoid() if sigmoid else nn.Identity()

    def forward(
        self, states: Tensor, text_mask: Tensor, vectors: Tensor, mask: Tensor, structure: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Return v, (B, width), and A, (B, N, n).

        states: (B, n, hidden). text_mask: (B, n). vectors: (B, N, D). mask: (B, N). structure: R', (B, N, n),
        or None: nothing is aligned by structure.
        """
        words = self.words(states)  # T
        queries, keys = self.query(self.regions(entering(vectors, mask).to(words.dtype))), self.key(words)
        scores = queries @ keys.transpose(1, 2) / math.sqrt(keys.shape[-1])
        attention = masked_softmax(scores, text_mask[:, None])
        semantic = self.squash(attention.to(words.dtype) @ self.value(words))
        structural = torch.zeros_like(semantic)
        if structure is not None:
            aligned = entering(structure, mask).masked_fill(~text_mask[:, None], 0.0)
            structural = aligned.to(words.dtype) @ words
        objects = self.aligned(torch.cat([semantic, structural], dim=-1))
        return entering(objects, mask).sum(dim=1), attention.masked_fill(~mask[..., None], 0.0)
