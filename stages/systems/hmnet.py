"""HMNeT: a text encoder each of whose layers also attends to a gated prefix of the image.

    model = HMNeT.from_pretrained("runs/twitter2015/models/hmnet/seed-1")

It reads like the paper: project and gate the pyramid (equations 1 to 5), make each layer's prefix (6 to 8),
and encode the text with it (9). The heads (10, 11) are those of every system.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ...cache.spec import ALL, IMAGE, OBJECTS
from ...manifests.errors import InputError, WeightsError
from ..text.encoders.bert import encode
from ..text.encoders.families import attention_width
from ..text.prefix import LayerPrefix
from .batch import Batch, ModelConfig
from .folder import load_system
from .fusion import VisualPrefix
from .hub import model_folder
from .objects import check_regions, first_object
from .system import Explanation, System
from .variants import VARIANTS

__all__ = ["HMNeT"]


class HMNeT(System):
    """HMNeT or one of its variants, by `config.system`."""

    parts: ClassVar[Mapping[str, str]] = {**System.parts, "fusion": "fusion"}

    def __init__(self, config: ModelConfig, encoder: nn.Module) -> None:
        super().__init__(config, encoder)
        hf: Any = encoder.config
        variant = VARIANTS[config.system]
        if variant.views != ALL:
            check_regions(config, variant.views)
        if variant.routing == "blocks" and len(config.levels) > hf.num_hidden_layers:
            raise InputError(
                f"{config.system} gives each level a layer of its own at least, and there are "
                f"{len(config.levels)} levels and {hf.num_hidden_layers} layers; train it on a feature set "
                "of fewer levels, [features.NAME] levels in run.toml"
            )
        seen = {ALL: slice(None), IMAGE: slice(1), OBJECTS: slice(first_object(config), None)}[variant.views]
        # A generator of its own: the text side of every system starts from the same numbers and sees the same
        # dropout.
        with torch.random.fork_rng(devices=[]):
            self.fusion = VisualPrefix(
                levels=config.levels,
                layers=hf.num_hidden_layers,
                hidden=attention_width(hf),
                heads=hf.num_attention_heads,
                variant=variant,
                seen=seen,
            )

    def states(self, batch: Batch) -> Tensor:
        return encode(self.encoder, batch.input_ids, batch.attention_mask, self.prefix(batch))

    def prefix(self, batch: Batch) -> list[LayerPrefix | None] | None:
        """Return each layer's visual prefix, or None without a view: plain text, exactly."""
        if batch.views is None or batch.view_mask is None or not self._sees_any(batch):
            return None
        prefixes: list[LayerPrefix | None] = self.fusion(batch.views, batch.view_mask)
        return prefixes

    def path(self, batch: Batch) -> bool:
        """Return whether any view is seen: otherwise the text is encoded without a prefix."""
        return self._sees_any(batch)

    def _sees_any(self, batch: Batch) -> bool:
        mask = batch.view_mask if batch.known_mask is None else batch.known_mask
        return mask is not None and self.fusion.sees(mask)

    def looks_at(self, view_mask: Tensor) -> Tensor:
        looked_at = torch.zeros_like(view_mask)
        looked_at[:, self.fusion.seen] = view_mask[:, self.fusion.seen]
        return looked_at

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        if batch.views is None or batch.view_mask is None:
            return super().explain(batch)
        prefix = self.prefix(batch)
        weights: dict[int, Tensor] = {}
        encode(self.encoder, batch.input_ids, batch.attention_mask, prefix, attention_to_prefix=weights)
        mask = batch.view_mask[:, self.fusion.seen]
        length, heads = batch.input_ids.shape[1], self.fusion.heads
        cells = batch.views.shape[-1] * batch.views.shape[-2]
        none = torch.zeros(len(mask), heads, length, mask.shape[1], cells)
        # Cells of a view are neighbours. shape: (B, H, n, V*p*p) to (B, H, n, V, p*p)
        layers = [
            weights[i].reshape(none.shape).cpu() if i in weights else none for i in range(self.fusion.layers)
        ]
        to_cells = torch.stack(layers)
        gates = self.fusion.gates_of(batch.views, batch.view_mask)
        present = mask.cpu()
        over = "objects" if VARIANTS[self.config.system].views == OBJECTS else "views"
        stacked = None if gates is None else torch.stack(gates).cpu()
        return Explanation(stacked, to_cells.sum(-1), present, over, cells=to_cells)

    @property
    def gated_levels(self) -> int:
        # Without its only level there would be nothing to choose from.
        return len(self.fusion.levels) if len(self.fusion.gates) and len(self.fusion.levels) > 1 else 0

    def without_level(self, level: int) -> AbstractContextManager[None]:
        return self.fusion.without_level(level)

    @classmethod
    def from_pretrained(
        cls,
        name: Path | str,
        *,
        revision: str | None = None,
        token: str | None = None,
        cache_dir: Path | str | None = None,
    ) -> "HMNeT":
        """Return the model that `save_pretrained` wrote, in evaluation mode.

        name: its folder, or "user/name" on the hub; see `model_folder`, which the other arguments are for.
        Raises InputError where it is neither, and WeightsError where there is no model, or one of another
        system.
        """
        model = load_system(model_folder(name, revision=revision, token=token, cache_dir=cache_dir))
        if not isinstance(model, cls):
            raise WeightsError(f"{name} holds a {model.config.system}; open it with `load_system`")
        return model
