"""OCSGA: Wu et al., "Multimodal Representation with Embedded Visual Guiding Objects", ACM MM 2020.

The labels of an image's objects, embedded as words are, guide the text by co-attention (MCAN's encoder and
decoder); no pixel enters the model. Sizes and dropout are those of the authors' code. The objects are the
cached detector's, not Mask R-CNN's. Their table of labels is frozen where it comes from a file of vectors, as
theirs; drawn at random it is learned, since frozen it would say nothing.

Made impossible: an image without objects that adds a learned constant, by attention over padding (here it
adds exactly nothing); statistics of BatchNorm over padded words; "traffic light" as two objects.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from ..text.vectors import Vectors
from .attention import Attended, FeedForward, MultiHeadAttention, TransformerBlock
from .batch import Batch, ModelConfig
from .objects import RESERVED, entering
from .recurrent import BiLSTM, CharBiLSTM, glorot_
from .system import Explanation, System

__all__ = ["OCSGA", "CoAttention", "WordNorm", "normalised_words"]

_UNITS = 100  # in each direction
_HEADS, _INNER, _EPS = 2, 800, 1e-6
_DROPOUT, _ATTENTION_DROPOUT = 0.5, 0.6


class OCSGA(System):
    """Words and characters by BiLSTMs, guided by the labels of detected objects."""

    parts: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("encoder", "characters", "recurrent", "objects", "project", "co_attention", "norm"), "words"
    )

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        width = 2 * _UNITS
        super().__init__(config, encoder, width=width, dropout=0.0)
        sizes: Any = encoder.config
        labels = RESERVED + len(config.options["object_labels"])
        bound = (3 / sizes.word_dim) ** 0.5
        with torch.random.fork_rng(devices=[]):
            glorot_(self.classifier)
            self.characters = CharBiLSTM(sizes.characters, dim=30, units=25, dropout=_DROPOUT)
            self.word_dropout, self.text_dropout = nn.Dropout(_DROPOUT), nn.Dropout(_DROPOUT)
            self.recurrent = BiLSTM(sizes.word_dim + self.characters.width, _UNITS)
            self.objects = nn.Embedding(labels, sizes.word_dim, padding_idx=0)
            with torch.no_grad():
                # An unknown label, which training never sees, says only that something is there.
                self.objects.weight.uniform_(-bound, bound)[:RESERVED] = 0
            self.project = nn.Linear(sizes.word_dim, width)
            self.co_attention = CoAttention(width, layers=config.options.get("layers", 1))
            self.norm = WordNorm(width)

    def take_vectors(self, vectors: Vectors) -> None:
        """Make a label the mean vector of its words, zeros where none has one, and learn it no further."""
        names = self.config.options["object_labels"]
        rows = [vectors.mean(name.split()) for name in names]
        none = np.zeros(vectors.dimensions, np.float32)
        with torch.no_grad():
            self.objects.weight.zero_()
            for number, row in enumerate(rows, RESERVED):
                self.objects.weight[number] = torch.from_numpy(none if row is None else row)
        self.objects.requires_grad_(False)

    def states(self, batch: Batch) -> Tensor:
        text = self._text(batch)
        guided = self._guided(text, batch)
        if guided is not None:
            text = text + guided.output
        states: Tensor = self.norm(text, batch.attention_mask)
        return states

    def _text(self, batch: Batch) -> Tensor:
        assert batch.characters is not None
        mask = batch.attention_mask
        letters = self.characters(batch.characters, mask)
        words = torch.cat([self.encoder(batch.input_ids), letters], dim=-1)
        text: Tensor = self.text_dropout(self.recurrent(self.word_dropout(words), mask))
        return text

    def _guided(self, text: Tensor, batch: Batch) -> Attended | None:
        """Return what the objects say to each word, and its attention to them; None without any object."""
        labels, present = batch.object_labels, batch.object_mask
        if labels is None or present is None or not labels.shape[1]:
            return None
        objects = self.project(self.objects(torch.where(present, labels, 0)))
        found: Attended = self.co_attention(text, batch.attention_mask, entering(objects, present), present)
        return found

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        """Return each word's attention to the objects, in the one layer that words attend to them in."""
        found = self._guided(self._text(batch), batch)
        shape = len(batch.input_ids), _HEADS, batch.input_ids.shape[1], 0
        weights = torch.zeros(shape) if found is None else found.weights.cpu()
        present = torch.zeros(shape[0], 0).bool() if batch.object_mask is None else batch.object_mask.cpu()
        return Explanation(None, weights[None], present, over="objects")


class CoAttention(nn.Module):
    """Self-attention over words, and objects that attend to themselves and to the words, `layers` of each.

    The last of the objects' layers turns around: words attend to objects. It has no residual, so that what it
    returns carries objects alone.
    """

    def __init__(self, width: int, layers: int) -> None:
        super().__init__()

        def block() -> TransformerBlock:
            return TransformerBlock(width, _HEADS, _INNER, torch.relu, eps=_EPS, dropout=_ATTENTION_DROPOUT)

        self.words = nn.ModuleList(block() for _ in range(layers))
        self.among = nn.ModuleList(_Among(width) for _ in range(layers))
        self.guided = nn.ModuleList(block() for _ in range(layers - 1))
        self.turned = MultiHeadAttention(width, _HEADS, dropout=_ATTENTION_DROPOUT)
        self.turned_norm, self.norm = (nn.LayerNorm(width, eps=_EPS) for _ in range(2))
        self.feed_forward = FeedForward(width, _INNER, torch.relu)
        self.dropout = nn.Dropout(_ATTENTION_DROPOUT)

    def forward(self, words: Tensor, word_mask: Tensor, objects: Tensor, object_mask: Tensor) -> Attended:
        """Return what the objects say to each word, (B, W, d), zero in a text without any, and the weights.

        words: (B, W, d). word_mask: (B, W). objects: (B, N, d). object_mask: (B, N).
        """
        for block in self.words:
            words = block(words, words, word_mask).output
        for among, guided in zip(self.among[:-1], self.guided, strict=True):
            objects = guided(among(objects, object_mask), words, word_mask).output
        objects = self.among[-1](objects, object_mask)
        seen, weights = self.turned(words, objects, object_mask)
        seen = self.turned_norm(self.dropout(seen))
        seen = self.norm(self.dropout(self.feed_forward(seen)))
        # Without an object, the norms would leave their learned biases.
        return Attended(entering(seen, object_mask.any(dim=1)), weights)


class _Among(nn.Module):
    """The objects' attention to one another, with a residual: the half of a block before its feed-forward."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = MultiHeadAttention(width, _HEADS, dropout=_ATTENTION_DROPOUT)
        self.norm = nn.LayerNorm(width, eps=_EPS)
        self.dropout = nn.Dropout(_ATTENTION_DROPOUT)

    def forward(self, objects: Tensor, mask: Tensor) -> Tensor:
        states: Tensor = self.norm(objects + self.dropout(self.attention(objects, objects, mask).output))
        return states


class WordNorm(nn.Module):
    """BatchNorm over the real words of a batch; padded ones are zero, and count for nothing."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(width)

    def forward(self, states: Tensor, mask: Tensor) -> Tensor:
        """Return the normalised states. states: (B, W, d). mask: (B, W)."""
        if states.device.type != "cpu":  # how many words are real, a GPU would have to be asked
            return normalised_words(self.norm, states, mask)
        real = states[mask]  # shape: (N, d)
        if len(real) > 1 or not self.training:
            real = self.norm(real)
        else:  # one word has no deviation: it is normalised by the words so far
            norm = self.norm
            real = nn.functional.batch_norm(
                real, norm.running_mean, norm.running_var, norm.weight, norm.bias, eps=norm.eps
            )
        return real.new_zeros(states.shape).masked_scatter(mask[..., None], real)


def normalised_words(norm: nn.BatchNorm1d, states: Tensor, mask: Tensor) -> Tensor:
    """Return what `norm` makes of the real words of states (B, W, d), as WordNorm has it, and zero elsewhere.

    mask: (B, W). Its shapes do not depend on how many words are real.
    """
    present = mask[..., None]
    real = states.to(torch.promote_types(states.dtype, torch.float32)).masked_fill(~present, 0)
    assert norm.running_mean is not None
    assert norm.running_var is not None
    assert norm.num_batches_tracked is not None
    mean, variance = norm.running_mean, norm.running_var
    if norm.training:
        count = mask.sum()
        own = real.sum(dim=(0, 1)) / count
        spread = (real - own).masked_fill(~present, 0).square().sum(dim=(0, 1))
        with torch.no_grad():
            several, rate = count > 1, norm.momentum or 0.0
            unbiased = spread / (count - 1).clamp(min=1)
            before = mean.clone(), variance.clone()
            mean.lerp_(torch.where(several, own, mean).to(mean.dtype), rate)
            variance.lerp_(torch.where(several, unbiased, variance).to(variance.dtype), rate)
            norm.num_batches_tracked += several
        mean, variance = torch.where(several, own, before[0]), torch.where(several, spread / count, before[1])
    scaled = (real - mean) * (variance + norm.eps).rsqrt() * norm.weight + norm.bias
    return scaled.masked_fill(~present, 0)
