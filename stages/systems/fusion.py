"""The visual side of HMNeT: from cached pyramids to a prefix for each text layer (equations 1 to 8).

A prefix is keys and values that the layer attends to besides text.

Symbols: B batch, V views (global first, then objects), L text layers, d hidden size, H heads, c levels of C_i
channels, p pooled side.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, linear

from ..text.prefix import LayerPrefix, probabilities
from .variants import Variant

__all__ = ["VisualPrefix", "as_sequence"]

_ALL_VIEWS = slice(None)


class VisualPrefix(nn.Module):
    """Equations 1 to 8: projection, gate, and the prefix of every layer.

    The cells of a view are row-major and the views keep their order, so that the visual sequence is (B,
    V*p*p, d). Keys and values are split into heads exactly as the text's are: every head sees every view.
    """

    def __init__(
        self,
        *,
        levels: Sequence[int],
        layers: int,
        hidden: int,
        heads: int,
        variant: Variant,
        seen: slice = _ALL_VIEWS,
    ) -> None:
        """Build the parts. seen: the views that the variant looks at."""
        super().__init__()
        self.levels, self.layers, self.heads, self.variant = tuple(levels), layers, heads, variant
        self.seen = seen
        # Which levels each layer can see: all through the gate, one otherwise.
        last = len(levels) - 1
        self.level_of_layer = [
            layer * len(levels) // layers if variant.routing == "blocks" else last for layer in range(layers)
        ]
        gated = variant.routing == "gate"
        used = (
            range(len(levels))
            if gated
            else sorted({self.level_of_layer[layer] for layer in self.prefixed_layers})
        )
        # Equations 1 and 2 (after pooling): one 1x1 convolution a level, shared by global and object views.
        self.projections = nn.ModuleDict(
            {str(level): nn.Conv2d(levels[level], hidden, kernel_size=1) for level in used}
        )
        # Equation 3: W_l, d -> c, of every layer.
        self.gates = nn.ModuleList(nn.Linear(hidden, len(levels)) for _ in range(layers if gated else 0))
        # Equation 8: W_l^phi, d -> 2d, of every layer that has a prefix.
        self.phi = nn.ModuleDict(
            {str(layer): nn.Linear(hidden, 2 * hidden) for layer in self.prefixed_layers}
        )

    @property
    def prefixed_layers(self) -> range:
        return range(self.layers - 1 if self.variant.last_layer_only else 0, self.layers)

    def forward(self, pyramid: Tensor, view_mask: Tensor) -> list[LayerPrefix | None]:
        """Return a prefix (or None) for each layer.

        pyramid: (B, V, sum C_i, p, p), of any float type. view_mask: (B, V) bool.
        """
        maps = self.maps(pyramid, view_mask)
        view_mask = view_mask[:, self.seen]
        cells = pyramid.shape[-1] * pyramid.shape[-2]
        mask = view_mask.repeat_interleave(cells, dim=1)  # shape: (B, V*p*p)
        prefixes: list[LayerPrefix | None] = [None] * self.layers
        for layer, sequence in self._sequences(maps).items():
            keys, values = self.phi[str(layer)](sequence).chunk(2, dim=-1)
            prefixes[layer] = LayerPrefix(self._split_heads(keys), self._split_heads(values), mask)
        return prefixes

    def _sequences(self, maps: dict[int, Tensor]) -> dict[int, Tensor]:
        """Return the visual sequence (B, V*p*p, d) of every layer that has a prefix (equations 5 to 7)."""
        if self.variant.routing != "gate":
            return {layer: as_sequence(maps[self.level_of_layer[layer]]) for layer in self.prefixed_layers}
        gates = torch.stack(self.gate_probabilities(maps), dim=2)  # shape: (B, V, L, c)
        levels = torch.stack([cells_of(level) for level in maps.values()], dim=2)  # shape: (B, V, c, p*p, d)
        # One product for all layers. shape: (B, V, L, p*p, d)
        gated = (gates @ levels.flatten(-2)).reshape(*gates.shape[:3], *levels.shape[-2:])
        return {
            layer: part.flatten(1, 2)
            for layer, part in enumerate(gated.unbind(dim=2))
            if layer in self.prefixed_layers
        }

    def sees(self, view_mask: Tensor) -> bool:
        """Return whether any view of a batch, (B, V) bool, is one that this variant looks at."""
        return bool(view_mask[:, self.seen].any())

    def maps(self, pyramid: Tensor, view_mask: Tensor) -> dict[int, Tensor]:
        """Return V_i of the views that this variant looks at, from pyramids of any float type.

        Absent views are zero whatever the pyramids hold: an infinity would survive any mask of the attention.
        """
        seen, mask = pyramid[:, self.seen], view_mask[:, self.seen, None, None, None]
        return self.project(torch.where(mask, seen.to(next(self.phi.parameters()).dtype), 0.0))

    def gates_of(self, pyramid: Tensor, view_mask: Tensor) -> list[Tensor] | None:
        """Return the gate probabilities of every layer for these pyramids, or None without a gate."""
        if self.variant.routing != "gate":
            return None
        return self.gate_probabilities(self.maps(pyramid, view_mask))

    def project(self, pyramid: Tensor) -> dict[int, Tensor]:
        """Return V_i, (B, V, d, p, p), of each level that this variant uses (equations 1 and 2).

        A 1x1 convolution is a linear map of every cell, which is several times as fast on such small maps. d
        is innermost in memory, as the sequence needs it.
        """
        levels = torch.split(pyramid, list(self.levels), dim=2)
        maps = {}
        for level, conv in self.projections.items():
            assert isinstance(conv, nn.Conv2d)
            cells = linear(
                cells_of(levels[int(level)]), conv.weight.flatten(1), conv.bias
            )  # shape: (B, V, p*p, d)
            maps[int(level)] = cells.transpose(-1, -2).view(*pyramid.shape[:2], -1, *pyramid.shape[-2:])
        return maps

    def gate_probabilities(self, maps: dict[int, Tensor]) -> list[Tensor]:
        """Return the probabilities (B, V, c) of the levels for every layer (equations 3 and 4).

        Each view's come from its own maps.
        """
        squeezed = torch.stack([maps[level].mean(dim=(-2, -1)) for level in range(len(self.levels))]).mean(
            dim=0
        )  # (B, V, d)
        return [probabilities(leaky_relu(gate(squeezed))) for gate in self.gates]

    @contextmanager
    def without_level(self, level: int) -> Iterator[None]:
        """Close the gate of one level in every layer: equation 4 is then the softmax over the others."""

        def close(gate: nn.Module, given: tuple[Tensor], scores: Tensor) -> Tensor:
            closed = scores.clone()
            closed[..., level] = -torch.inf
            return closed

        hooks = [gate.register_forward_hook(close) for gate in self.gates]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _split_heads(self, sequence: Tensor) -> Tensor:
        """Return (B, P, d) as (B, H, P, d/H).

        The transpose is needed: reshaping alone would give each head other views.
        """
        batch, length, hidden = sequence.shape
        return sequence.reshape(batch, length, self.heads, hidden // self.heads).transpose(1, 2)


def as_sequence(maps: Tensor) -> Tensor:
    """Return maps (B, V, d, p, p) as the visual sequence (B, V*p*p, d) of equations 6 and 7.

    Views are in order, cells row-major.
    """
    return cells_of(maps).flatten(1, 2)


def cells_of(maps: Tensor) -> Tensor:
    """Return maps (B, V, C, p, p) as the cells of each view, (B, V, p*p, C), row-major."""
    return maps.flatten(-2).transpose(-1, -2)
