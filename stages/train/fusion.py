"""The visual side of HMNeT: from cached pyramids to one prefix of keys and values for each text layer (equations 1 to 8).

Symbols: B batch, V views (global first, then objects), L text layers, d hidden size, H heads, c levels of C_i channels, p pooled side.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu

from .systems import Variant

__all__ = ["LayerPrefix", "VisualPrefix", "as_sequence"]


@dataclass(frozen=True)
class LayerPrefix:
    """What one text layer attends besides text. keys, values: (B, H, P, d/H) with P = V*p*p; mask: (B, P), false where absent."""

    keys: Tensor
    values: Tensor
    mask: Tensor


class VisualPrefix(nn.Module):
    """Equations 1 to 8: projection, gate, and the prefix of every layer.

    The cells of a view are row-major and the views keep their order, so that the visual sequence is (B, V*p*p, d). Keys and values
    are split into heads exactly as the text's are: every head sees every view.
    """

    def __init__(self, *, levels: Sequence[int], layers: int, hidden: int, heads: int, variant: Variant) -> None:
        super().__init__()
        self.levels, self.layers, self.heads, self.variant = tuple(levels), layers, heads, variant
        # Which levels each layer can see: all through the gate, one otherwise.
        last = len(levels) - 1
        self.level_of_layer = [layer * len(levels) // layers if variant.routing == "blocks" else last for layer in range(layers)]
        gated = variant.routing == "gate"
        used = range(len(levels)) if gated else sorted({self.level_of_layer[layer] for layer in self.prefixed_layers})
        # Equations 1 and 2 (after pooling): one 1x1 convolution a level, shared by global and object views.
        self.projections = nn.ModuleDict({str(level): nn.Conv2d(levels[level], hidden, kernel_size=1) for level in used})
        # Equation 3: W_l, d -> c, of every layer.
        self.gates = nn.ModuleList(nn.Linear(hidden, len(levels)) for _ in range(layers if gated else 0))
        # Equation 8: W_l^phi, d -> 2d, of every layer that has a prefix.
        self.phi = nn.ModuleDict({str(layer): nn.Linear(hidden, 2 * hidden) for layer in self.prefixed_layers})

    @property
    def prefixed_layers(self) -> range:
        return range(self.layers - 1 if self.variant.last_layer_only else 0, self.layers)

    def forward(self, pyramid: Tensor, view_mask: Tensor) -> list[LayerPrefix | None]:
        """pyramid: (B, V, sum C_i, p, p), of any float type. view_mask: (B, V) bool. Returns a prefix (or None) for each layer."""
        maps = self.maps(pyramid)
        view_mask = view_mask[:, self.first_view :]
        gates = self.gate_probabilities(maps) if self.variant.routing == "gate" else None
        stacked = torch.stack(list(maps.values()))  # shape: (levels used, B, V, d, p, p)
        cells = pyramid.shape[-1] * pyramid.shape[-2]
        mask = view_mask.repeat_interleave(cells, dim=1)  # shape: (B, V*p*p)
        prefixes: list[LayerPrefix | None] = [None] * self.layers
        for layer in self.prefixed_layers:
            if gates is None:
                gated = maps[self.level_of_layer[layer]]
            else:
                # Equation 5. shape: (B, V, d, p, p)
                gated = torch.einsum("bvc,cbvdxy->bvdxy", gates[layer], stacked)
            keys, values = self.phi[str(layer)](as_sequence(gated)).chunk(2, dim=-1)
            prefixes[layer] = LayerPrefix(self._split_heads(keys), self._split_heads(values), mask)
        return prefixes

    @property
    def first_view(self) -> int:
        """The number of the first view that this variant looks at: 0, the whole image, or 1, the first object."""
        return 0 if self.variant.global_view else 1

    def sees(self, view_mask: Tensor) -> bool:
        """Whether any view of a batch, (B, V) bool, is one that this variant looks at."""
        return bool(view_mask[:, self.first_view :].any())

    def maps(self, pyramid: Tensor) -> dict[int, Tensor]:
        """V_i of the views that this variant looks at, from pyramids of any float type."""
        return self.project(pyramid[:, self.first_view :].to(next(self.phi.parameters()).dtype))

    def gates_of(self, pyramid: Tensor) -> list[Tensor] | None:
        """The gate probabilities of every layer for these pyramids, or None where this variant has no gate."""
        return self.gate_probabilities(self.maps(pyramid)) if self.variant.routing == "gate" else None

    def project(self, pyramid: Tensor) -> dict[int, Tensor]:
        """Equations 1 and 2: V_i, (B, V, d, p, p), of each level that this variant uses."""
        batch, views = pyramid.shape[:2]
        levels = torch.split(pyramid, list(self.levels), dim=2)
        return {int(level): conv(levels[int(level)].flatten(0, 1)).unflatten(0, (batch, views)) for level, conv in self.projections.items()}

    def gate_probabilities(self, maps: dict[int, Tensor]) -> list[Tensor]:
        """Equations 3 and 4: for every layer the probabilities (B, V, c) of the levels, each view's from its own maps."""
        squeezed = torch.stack([maps[level].mean(dim=(-2, -1)) for level in range(len(self.levels))]).mean(dim=0)  # (B, V, d)
        return [leaky_relu(gate(squeezed)).softmax(dim=-1) for gate in self.gates]

    def _split_heads(self, sequence: Tensor) -> Tensor:
        """(B, P, d) to (B, H, P, d/H), through a transpose: a view alone would give each head other views."""
        batch, length, hidden = sequence.shape
        return sequence.reshape(batch, length, self.heads, hidden // self.heads).transpose(1, 2)


def as_sequence(maps: Tensor) -> Tensor:
    """Equations 6 and 7: (B, V, d, p, p) to the visual sequence (B, V*p*p, d), views in order, cells row-major."""
    return maps.flatten(-2).transpose(-1, -2).flatten(1, 2)
