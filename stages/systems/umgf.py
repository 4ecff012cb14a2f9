"""UMGF: a graph of sub-words and objects whose edges gate what passes over them (Zhang et al., AAAI 2021).

    x = W_x h0 + b_x                            of the encoder's states h0
    o = relu(W_2 relu(W_1 (F v)))               of the objects' features v; each map has a bias
    In each of 6 layers, with e_tj = 1 where sub-word t and object j are joined, and 0 elsewhere:
    x' = LN(x + MHA(x, x, x)); o' = LN(o + MHA_qk(o, o, o))
    G_tj = sigmoid(W_G [x'_t; o'_j] + b_G);  xc_t = sum_j e_tj G_tj * o'_j        from objects to sub-words
    J_jt = sigmoid(W_J [x'_t; o'_j] + b_J);  oc_j = sum_t e_tj J_jt * x'_t        from sub-words to objects
    x'' = LN(x' + xc); o'' = LN(o' + oc);  x = LN(x'' + ffn_x(x'')); o = LN(o'' + ffn_o(o''))
    The heads read [h0; x].

MHA_qk has projections of queries and keys alone: its values are the nodes. Dropout of 0.4 is on each added
term, on attention weights and on both maps of objects, as in the code, and none is on h0: where the encoder
learns fast, h0 fits the texts before the graph is of use, and images are ignored (docs/systems.md).

A bibliography lists the paper as retracted by agreement of its authors and AAAI; verify that before you cite
its scores. It departs from the paper, or from the code at github.com/TransformersWsz/UMGF, in these points:
- Objects are the detected ones, each joined to every sub-word. The paper grounds four words ("person",
  "location", "organization", "miscellaneous") and the text's noun phrases in the image. The code has four
  crops of every image, whether it holds such things or not. The layers take any edges.
- An absent object has no edge, and no object attends to it. The code has no mask, and an unreadable crop ends
  it.
- Features come from a frozen backbone. The code trains ResNet-152 with BatchNorm over all crops of a batch.
- Each layer is drawn anew. The code copies one, so that all layers, and each query with its key projection,
  start equal.
- The last layer sends no messages to objects: nothing would read them. The code keeps the weights for it,
  which never learn.
- Its authors train no relations. There the shared head reads [h0; x] of both opening markers.
"""

from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import relu

from ...cache.spec import OBJECTS
from ..text.encoders.bert import encode
from .attention import FeedForward, MultiHeadAttention
from .batch import Batch, ModelConfig
from .objects import check_regions, of_objects, regions
from .system import Explanation, System

__all__ = ["UMGF"]

_WIDTH, _HEADS, _LAYERS, _DROPOUT = 512, 8, 6, 0.4  # the code's


class UMGF(System):
    """UMGF, for entities or relations.

    Its graph is 512 wide, as in the code, or as wide as the encoder where that is narrower.
    """

    parts: ClassVar[Mapping[str, str]] = {**System.parts, "fusion": "fusion"}

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        check_regions(config, OBJECTS)
        hf: Any = encoder.config
        width = min(_WIDTH, hf.hidden_size)
        heads = _HEADS if width % _HEADS == 0 else hf.num_attention_heads
        dropout = 0.0 if config.task == "ner" else 0.5
        super().__init__(config, encoder, width=hf.hidden_size + width, dropout=dropout)
        with torch.random.fork_rng(devices=[]):
            self.fusion = GraphFusion(hf.hidden_size, config.levels[-1], width, heads)

    def states(self, batch: Batch) -> Tensor:
        return self.fused(batch).states

    def fused(self, batch: Batch) -> "Fused":
        """Return [h0; x], and how it came about."""
        text = encode(self.encoder, batch.input_ids, batch.attention_mask, None)
        fused: Fused = self.fusion(text, batch.attention_mask, *regions(batch, self.config))
        return fused

    def looks_at(self, view_mask: Tensor) -> Tensor:
        return of_objects(view_mask, self.config)

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        """Return how open the edge from each object to each sub-word is in every layer: the mean of G_tj.

        These are gates from 0 to 1, not shares: what a sub-word gets of one object takes nothing from others.
        """
        fused = self.fused(batch)
        return Explanation(
            gates=None, attention=fused.gates[:, :, None].cpu(), present=fused.present.cpu(), over="objects"
        )


class Fused(NamedTuple):
    """What the fusion returns.

    states: [h0; x], (B, n, d + width). gates: the mean of G_tj over its features, (L, B, n, N), 0 where there
    is no edge. present: the mask of the objects, (B, N).
    """

    states: Tensor
    gates: Tensor
    present: Tensor


class GraphFusion(nn.Module):
    """The graph's nodes and layers."""

    def __init__(self, text: int, channels: int, width: int, heads: int) -> None:
        super().__init__()
        self.words = nn.Linear(text, width)
        self.features = nn.Linear(channels, channels)  # F, in place of ResNet's own last linear map
        self.objects = nn.ModuleList([nn.Linear(channels, width), nn.Linear(width, width)])
        self.dropout = nn.Dropout(_DROPOUT)
        self.layers = nn.ModuleList(
            GraphLayer(width, heads, last=number == _LAYERS - 1) for number in range(_LAYERS)
        )

    def forward(
        self, text: Tensor, text_mask: Tensor, vectors: Tensor, present: Tensor, edges: Tensor | None = None
    ) -> Fused:
        """Return [h0; x] of sub-words and objects that are joined by edges.

        text: (B, n, d). text_mask: (B, n). vectors: (B, N, C). present: (B, N). edges: (B, n, N) bool, or
        None where every sub-word is joined to every object. An edge to an absent node is none.
        """
        words = self.words(text)
        objects = self.features(vectors.to(self.features.weight.dtype))
        for layer in self.objects:
            objects = self.dropout(relu(layer(objects)))
        both_there = text_mask[:, :, None] & present[:, None]
        edges = both_there if edges is None else edges & both_there
        gates = []
        for layer in self.layers:
            words, objects, gate = layer(words, text_mask, objects, present, edges)
            gates.append(gate)
        return Fused(torch.cat([text, words], dim=-1), torch.stack(gates), present)


class GraphLayer(nn.Module):
    """One layer: attention within each modality, gated messages between them, and a feed-forward of each.

    last: nothing reads the objects after it, so that it sends them no messages.
    """

    def __init__(self, width: int, heads: int, *, last: bool = False) -> None:
        super().__init__()
        self.words = Side(width, MultiHeadAttention(width, heads, dropout=_DROPOUT))
        of_objects = MultiHeadAttention(width, heads, dropout=_DROPOUT, value=False, output=False)
        self.objects = Side(width, of_objects, receives=not last)
        self.to_words = EdgeGate(width)  # G
        self.to_objects = None if last else EdgeGate(width)  # J

    def forward(
        self, words: Tensor, text_mask: Tensor, objects: Tensor, present: Tensor, edges: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the next sub-words and objects, and the mean of G_tj over its features, (B, n, N)."""
        words = self.words.attend(words, text_mask)
        objects = self.objects.attend(objects, present)
        closed = ~edges[..., None]  # shape: (B, n, N, 1)
        gates = self.to_words(words, objects).masked_fill(closed, 0.0)  # shape: (B, n, N, width)
        next_words = self.words.receive(words, (gates * objects[:, None]).sum(dim=2))
        if self.to_objects is not None:
            back = self.to_objects(words, objects).masked_fill(closed, 0.0)
            objects = self.objects.receive(objects, (back * words[:, :, None]).sum(dim=1))
        return next_words, objects, gates.mean(dim=-1)


class Side(nn.Module):
    """What a layer does to the nodes of one modality, which may receive messages or not."""

    def __init__(self, width: int, attention: MultiHeadAttention, *, receives: bool = True) -> None:
        super().__init__()
        self.attention = attention
        self.attention_norm = nn.LayerNorm(width)
        if receives:
            self.message_norm, self.feed_forward_norm = nn.LayerNorm(width), nn.LayerNorm(width)
            self.feed_forward = FeedForward(width, width // 2, relu)
        self.dropout = nn.Dropout(_DROPOUT)
        self.apply(_initialise)

    def attend(self, nodes: Tensor, mask: Tensor) -> Tensor:
        """Return x' or o'. nodes: (B, K, width). mask: (B, K)."""
        attended = self.attention(nodes, nodes, mask).output
        result: Tensor = self.attention_norm(nodes + self.dropout(attended))
        return result

    def receive(self, nodes: Tensor, messages: Tensor) -> Tensor:
        """Return the nodes of the next layer from x' or o' and their messages, each (B, K, width)."""
        nodes = self.message_norm(nodes + self.dropout(messages))
        result: Tensor = self.feed_forward_norm(nodes + self.dropout(self.feed_forward(nodes)))
        return result


class EdgeGate(nn.Module):
    """sigmoid(W [x_t; o_j] + b) of every pair of a sub-word and an object.

    W is kept as its two halves, so that each is applied to every node once, and not to every pair.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.word, self.object = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        bound = (6 / (3 * width)) ** 0.5  # Xavier's for the whole W, (width, 2 width)
        for half in (self.word, self.object):
            nn.init.uniform_(half.weight, -bound, bound)
        nn.init.zeros_(self.word.bias)

    def forward(self, words: Tensor, objects: Tensor) -> Tensor:
        """Return the gates (B, n, N, width) of words (B, n, width) and objects (B, N, width)."""
        return torch.sigmoid(self.word(words)[:, :, None] + self.object(objects)[:, None])


def _initialise(module: nn.Module) -> None:
    """Draw the weights of a linear map by Xavier's rule, with a bias of 0."""
    if isinstance(module, nn.Linear):
        nn.init.xavier_uniform_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
