"""HMNeT with its visual backbone in one module: from pixels and text to scores.

    model = EndToEnd.from_pretrained(Path("runs/twitter2015/models/hmnet/finetuned-seed-1"))

The backbone is extract's own, so that frozen and in fp32 it gives what the cache holds.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...manifests.errors import WeightsError
from ...manifests.files import atomic_path
from ...manifests.fingerprint import digest_file
from ..vision.backbones.backbone import Backbone
from ..vision.backbones.build import build_backbone
from ..vision.pooling import pooled_and_joined
from ..vision.views import normalise
from .batch import Batch
from .hmnet import Explanation, HMNeT

__all__ = ["BACKBONE_FILE", "EndToEnd"]

BACKBONE_FILE = "backbone.safetensors"


class EndToEnd(HMNeT):
    """Takes batches whose `views` are pixels, (B, V, S, S, 3) uint8, and gives what HMNeT gives for their pyramids.

    pooled: the side that each level of the backbone is pooled to.
    unfreeze: how many of the backbone's parts learn, from the last: 1 to 4 are its stages from layer4 down, 5 is the
    stem too. batch_norm: whether BatchNorm's statistics follow the data in the parts that learn; their weights learn in
    any case. augment: in training, each sample's views are mirrored together with probability 1/2, and made up to 10%
    brighter or darker.
    """

    def __init__(
        self,
        text: HMNeT,
        backbone: Backbone,
        pooled: int,
        *,
        unfreeze: int = 0,
        batch_norm: bool = False,
        augment: bool = False,
    ) -> None:
        with torch.random.fork_rng(devices=[]):  # the numbers drawn here are replaced at once
            super().__init__(text.config, text.encoder)
        self.load_state_dict(text.state_dict())
        self.pooled, self.batch_norm, self.augment = pooled, batch_norm, augment
        self.learning = [module for part in backbone.parts[::-1][:unfreeze] for module in part]
        backbone.requires_grad_(False)
        for module in self.learning:
            module.requires_grad_(True)
        self.backbone = backbone.to(memory_format=torch.channels_last)

    def train(self, mode: bool = True) -> "EndToEnd":
        super().train(mode)
        if self.batch_norm:
            for layer in (
                layer
                for module in self.learning
                for layer in module.modules()
                if isinstance(layer, nn.BatchNorm2d)
            ):
                layer.training = mode
        return self

    def forward(self, batch: Batch) -> Tensor:
        return super().forward(self.seen(batch))

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        return super().explain(self.seen(batch))

    def seen(self, batch: Batch) -> Batch:
        """The batch with its pixels turned into pooled pyramids, (B, V, C, p, p); one that holds pyramids passes as it is.

        Absent views, and those that the system does not look at, cost nothing and are zero.
        """
        assert self.fusion is not None
        assert batch.views is not None
        assert batch.view_mask is not None
        if batch.views.is_floating_point():
            return batch
        looked_at = batch.view_mask.clone()
        looked_at[:, : self.fusion.first_view] = False
        pixels = batch.views[looked_at]  # shape: (N, S, S, 3)
        p = self.pooled
        pyramid = torch.zeros(*looked_at.shape, sum(self.config.levels), p, p, device=pixels.device)
        if len(pixels):
            values = normalise(pixels, self.backbone.info.mean, self.backbone.info.std)
            if self.augment and self.training:
                values = self._augmented(values, looked_at)
            features = pooled_and_joined(self.backbone(values), p)
            pyramid = pyramid.masked_scatter(looked_at[..., None, None, None], features.to(pyramid.dtype))
        return replace(batch, views=pyramid)

    def _augmented(self, values: Tensor, looked_at: Tensor) -> Tensor:
        """values: (N, 3, S, S). Drawn from torch's generator, which checkpoints hold. Normalised values scale about the mean grey."""
        sample = looked_at.nonzero()[:, 0]
        mirrored = torch.rand(len(looked_at), device=values.device)[sample] < 0.5
        brightness = (0.9 + 0.2 * torch.rand(len(looked_at), device=values.device))[sample]
        values = torch.where(mirrored[:, None, None, None], values.flip(-1), values)
        return values * brightness[:, None, None, None]

    def save_pretrained(self, folder: Path, tokenizer: Any) -> None:
        """What HMNeT writes, and the backbone beside it. `config.features` then means the features of this very backbone."""
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_path(folder / BACKBONE_FILE) as temporary:
            save_file(
                {
                    name: value.detach().cpu().contiguous()
                    for name, value in self.backbone.network.state_dict().items()
                },
                temporary,
            )
        features = {**(self.config.features or {}), "weights": digest_file(folder / BACKBONE_FILE)}
        self.config = replace(self.config, features=features)
        super().save_pretrained(folder, tokenizer)

    def text_state(self) -> dict[str, Tensor]:
        return {
            name: value for name, value in super().text_state().items() if not name.startswith("backbone.")
        }

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "EndToEnd":
        """The model that `save_pretrained` wrote, in evaluation mode. Raises WeightsError where the folder does not hold one."""
        folder = Path(folder)
        text = HMNeT.from_pretrained(folder)
        features = text.config.features
        if not (folder / BACKBONE_FILE).is_file() or features is None:
            raise WeightsError(
                f"{folder} holds no {BACKBONE_FILE}: it is a model on cached features; load it with HMNeT.from_pretrained"
            )
        backbone = build_backbone(features["backbone"], str(folder / BACKBONE_FILE))
        return cls(text, backbone, features["pooled"]).eval()
