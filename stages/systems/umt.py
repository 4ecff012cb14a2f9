"""UMT: words that look at the cells of the image, and cells that look at the words (Yu et al., ACL 2020).

    T_a = Block_aux(T, T); T_m = Block_main(T, T)          T: the encoder's states, after dropout
    A = Block_1(T_m, V W_1); P = Block_2(V W_2, T_m); R = Block_3(T_m, P)
    g = sigmoid(W [R; A] + b);  H = [R; g * A]
    entities:  E = alpha (W_m H + b_m) + (1 - alpha) E_s M    with E_s = W_s T_a + b_s
               loss = CRF(E, y) + beta CRF_s(E_s, z), where z is y without types
    relations: the shared head, on H of both opening markers

Block(X, Y) is a transformer block with queries X and keys Y; each of the five has weights of its own.

It departs from the paper, or from the code at github.com/jefferyYu/UMT, in these points:
- The features come from a frozen backbone in evaluation mode, and from the whole image. The code crops each
  image at random, on the test split too, and lets BatchNorm's running statistics drift.
- An image that is absent or cannot be read adds nothing: no word attends to it, and A counts as 0. The code
  puts one fixed photo in its place, unmasked.
- Both CRFs run over words, by their first sub-words, and over BIO tags. Those of the code also know tags for
  other sub-words, [CLS], [SEP] and padding, any of which may be predicted for a word.
- The authors do not train it for relations. There the spans are given, and the part that finds them is left
  out.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from ...cache.spec import IMAGE
from ..text.encoders.bert import encode
from ..text.encoders.families import value_of
from .attention import TransformerBlock
from .batch import Batch, ModelConfig
from .heads import bio_crf, tag_loss
from .objects import cells, check_regions, of_image
from .system import Explanation, System

__all__ = ["UMT"]

_SPAN_TAGS = ("O", "B-span", "I-span")


class UMT(System):
    """UMT, for entities or relations.

    options: "alpha", the share of the main emissions, and "beta", the weight of the loss of spans; each is
    0.5.
    """

    parts: ClassVar[Mapping[str, str]] = {**System.parts, "fusion": "fusion", "spans": "fusion"}
    of_task: ClassVar[frozenset[str]] = frozenset({"spans"})

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        check_regions(config, IMAGE)
        hf: Any = encoder.config
        entities = config.task == "ner"
        super().__init__(config, encoder, width=2 * hf.hidden_size, dropout=0.0 if entities else 0.5)
        self.text_dropout = nn.Dropout(value_of(hf, "hidden_dropout_prob"))
        self.alpha, self.beta = (float(config.options.get(name, 0.5)) for name in ("alpha", "beta"))
        with torch.random.fork_rng(devices=[]):
            self.fusion = CrossModalFusion(config.levels[-1], hf)
            self.spans = SpanTagger(config.labels, hf) if entities else None

    def states(self, batch: Batch) -> Tensor:
        return self.fused(self.text(batch), batch).states

    def text(self, batch: Batch) -> Tensor:
        """Return T, the encoder's states of the text alone: (B, n, d)."""
        states: Tensor = self.text_dropout(encode(self.encoder, batch.input_ids, batch.attention_mask, None))
        return states

    def fused(self, text: Tensor, batch: Batch) -> "Fused":
        """Return H, and how it came about, from T."""
        fused: Fused = self.fusion(text, batch.attention_mask, *cells(batch, self.config))
        return fused

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(batch) if self.spans is None else self.emissions(batch)[0]

    def emissions(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Return E, (B, T, tags), and E_s, (B, T, 3)."""
        assert self.spans is not None
        text = self.text(batch)
        states = self.pooled(self.fused(text, batch).states, batch)
        main = self.classifier(self.dropout(states)).to(self.classifier.weight.dtype)
        spans = self.spans(self.pooled(self.spans.states(text, batch.attention_mask), batch)).to(main.dtype)
        return self.alpha * main + (1 - self.alpha) * spans @ self.spans.spread, spans

    def loss(self, batch: Batch) -> Tensor:
        if self.spans is None:
            return super().loss(batch)
        emissions, spans = self.emissions(batch)
        assert batch.labels is not None
        mask = batch.position_mask
        of_spans = tag_loss(self.spans.crf, spans, self.spans.of_tag[batch.labels], mask)
        return tag_loss(self.crf, emissions, batch.labels, mask) + self.beta * of_spans

    def looks_at(self, view_mask: Tensor) -> Tensor:
        return of_image(view_mask)

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        """Return the attention of blocks 1 and 3 to the cells, and the mean of g at every sub-word."""
        fused = self.fused(self.text(batch), batch)
        return Explanation(
            gates=None,
            attention=torch.stack([fused.to_image, fused.to_aware_image]).cpu(),
            present=fused.present.cpu(),
            over="cells",
            word_gates={"visual": fused.gate.mean(dim=-1).cpu()},
        )


class Fused(NamedTuple):
    """What the fusion returns.

    states: H, (B, n, 2d). gate: g, (B, n, d), 0 without an image. to_image, to_aware_image: the weights of
    blocks 1 and 3, (B, H, n, cells). present: the mask of the cells, (B, cells).
    """

    states: Tensor
    gate: Tensor
    to_image: Tensor
    to_aware_image: Tensor
    present: Tensor


class CrossModalFusion(nn.Module):
    """The four blocks and the gate that make H of text and cells."""

    def __init__(self, channels: int, hf: Any) -> None:
        super().__init__()
        width = hf.hidden_size
        self.keys, self.queries = nn.Linear(channels, width), nn.Linear(channels, width)  # W_1 and W_2
        self.main, self.to_image, self.to_text, self.to_aware_image = (_block(hf) for _ in range(4))
        self.gate = nn.Linear(2 * width, width)
        self.apply(_initialise(hf))

    def forward(self, text: Tensor, text_mask: Tensor, cells: Tensor, present: Tensor) -> Fused:
        """Return H. text: (B, n, d). text_mask: (B, n). cells: (B, cells, C). present: (B, cells)."""
        cells = cells.to(self.keys.weight.dtype)
        text = self.main(text, text, text_mask).output
        visual, over_image = self.to_image(text, self.keys(cells), present)
        aware = self.to_text(self.queries(cells), text, text_mask).output
        textual, over_aware = self.to_aware_image(text, aware, present)
        gate = torch.sigmoid(self.gate(torch.cat([textual, visual], dim=-1)))
        gate = gate.masked_fill(~present.any(dim=-1)[:, None, None], 0.0)
        states = torch.cat([textual, gate * visual], dim=-1)
        return Fused(states, gate, over_image, over_aware, present)


class SpanTagger(nn.Module):
    """The part that finds where entities are without their types.

    of_tag: the span tag of each tag. spread: M, (3, tags), which shares a span tag's score out among the tags
    that it stands for; its rows sum to 1.
    """

    of_tag: Tensor
    spread: Tensor

    def __init__(self, tags: Sequence[str], hf: Any) -> None:
        super().__init__()
        self.block = _block(hf)
        self.classifier = nn.Linear(hf.hidden_size, len(_SPAN_TAGS))
        self.crf = bio_crf(_SPAN_TAGS)
        self.apply(_initialise(hf))
        of_tag = torch.tensor(["OBI".index(tag[0]) for tag in tags])
        standing_for = nn.functional.one_hot(of_tag, len(_SPAN_TAGS)).T.float()
        spread = standing_for / standing_for.sum(dim=1, keepdim=True).clamp(min=1)
        self.register_buffer("of_tag", of_tag, persistent=False)
        self.register_buffer("spread", spread, persistent=False)

    def states(self, text: Tensor, text_mask: Tensor) -> Tensor:
        """Return T_a, (B, n, d). text: (B, n, d). text_mask: (B, n)."""
        states: Tensor = self.block(text, text, text_mask).output
        return states

    def forward(self, states: Tensor) -> Tensor:
        emissions: Tensor = self.classifier(states)
        return emissions


def _block(hf: Any) -> TransformerBlock:
    """Return a block of the encoder's sizes."""
    return TransformerBlock(
        hf.hidden_size,
        hf.num_attention_heads,
        value_of(hf, "intermediate_size"),
        gelu,
        eps=value_of(hf, "layer_norm_eps"),
        dropout=value_of(hf, "hidden_dropout_prob"),
    )


def _initialise(hf: Any) -> Callable[[nn.Module], None]:
    """Return what draws the weights of a linear map as the encoder's were drawn, with biases of 0."""

    def initialise(module: nn.Module) -> None:
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, hf.initializer_range)
            nn.init.zeros_(module.bias)

    return initialise
