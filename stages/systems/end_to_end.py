"""A visual system with its backbone in one module: from pixels and text to scores.

    model = EndToEnd.from_pretrained(Path("runs/twitter2015/models/hmnet/finetuned-seed-1"))

The backbone is extract's own, so that frozen and in fp32 it gives what the cache holds.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from ...manifests.errors import WeightsError
from ...manifests.files import atomic_path, make_folder
from ...manifests.fingerprint import digest_file
from ..base.writing import writing
from ..text.reader import TextReader
from ..vision.backbones.backbone import Backbone
from ..vision.backbones.build import build_backbone
from ..vision.pooling import pooled_and_joined
from ..vision.views import normalise
from .batch import Batch, ModelConfig
from .folder import load_system
from .registry import BACKBONE_FILE
from .system import Explanation, Model, Scored, System

__all__ = ["EndToEnd"]


class EndToEnd(Model):
    """A system on batches whose `views` are pixels, (B, V, S, S, 3) uint8: it gets their features.

    pooled: the side that each level of the backbone is pooled to. unfreeze: how many of the backbone's parts
    learn, from the last: 1 to 4 are its stages from layer4 down, 5 is the stem too. batch_norm: whether
    BatchNorm's statistics follow the data in the parts that learn; their weights learn in any case. augment:
    in training, each sample's views are mirrored together with probability 1/2, and made up to 10% brighter
    or darker.
    """

    def __init__(
        self,
        system: System,
        backbone: Backbone,
        pooled: int,
        *,
        unfreeze: int = 0,
        batch_norm: bool = False,
        augment: bool = False,
    ) -> None:
        super().__init__()
        self.system = system
        self.config: ModelConfig = system.config
        self.pooled, self.batch_norm, self.augment = pooled, batch_norm, augment
        self.learning = [module for part in backbone.parts[::-1][:unfreeze] for module in part]
        backbone.requires_grad_(False)
        for module in self.learning:
            module.requires_grad_(True)
        self.backbone = backbone.to(memory_format=torch.channels_last) if backbone.fuses else backbone

    def train(self, mode: bool = True) -> "EndToEnd":
        super().train(mode)
        if self.batch_norm:
            for module in self.learning:
                for layer in module.modules():
                    if isinstance(layer, nn.BatchNorm2d):
                        layer.training = mode
        return self

    def forward(self, batch: Batch) -> Tensor:
        """Return the system's scores."""
        scores: Tensor = self.system(self.with_features(batch))
        return scores

    def loss(self, batch: Batch) -> Tensor:
        return self.system.loss(self.with_features(batch))

    def path(self, batch: Batch) -> None:
        """Return None: the backbone runs on as many views as there are."""

    @torch.inference_mode()
    def predict(self, batch: Batch) -> list[list[str]]:
        return self.system.predict(self.with_features(batch))

    @torch.inference_mode()
    def scored(self, batch: Batch, temperature: float = 1.0) -> Scored:
        return self.system.scored(self.with_features(batch), temperature)

    @torch.inference_mode()
    def explain(self, batch: Batch) -> Explanation:
        return self.system.explain(self.with_features(batch))

    def set_made_by(self, made_by: Mapping[str, Any]) -> None:
        self.system.set_made_by(made_by)
        self.config = self.system.config

    def part_of(self, parameter: str) -> str:
        module, rest = parameter.split(".", 1)
        return "backbone" if module == "backbone" else self.system.part_of(rest)

    def with_features(self, batch: Batch) -> Batch:
        """Return the batch with features, (B, V, C, p, p), instead of pixels; one that has them as it is.

        Absent views, and those that the system does not look at, cost nothing and are zero.
        """
        assert batch.views is not None
        assert batch.view_mask is not None
        if batch.views.is_floating_point():
            return batch
        device, shape = batch.views.device, batch.view_mask.shape
        # Where the mask is known to the CPU, nothing here waits for a GPU to say how many views there are.
        looked_at = self.system.looks_at(batch.view_mask if batch.known_mask is None else batch.known_mask)
        place = looked_at.flatten().nonzero()[:, 0]
        if device.type == "cuda" and place.device.type == "cpu":
            place = place.pin_memory()
        place = place.to(device, non_blocking=True)  # shape: (N,)
        p = self.pooled
        pyramid = torch.zeros(shape.numel(), sum(self.config.levels), p, p, device=device)
        if len(place):
            pixels = batch.views.flatten(0, 1)[place]  # shape: (N, S, S, 3)
            values = normalise(pixels, self.backbone.info.mean, self.backbone.info.std)
            if self.augment and self.training:
                values = self._augmented(values, place // shape[1], shape[0])
            features = pooled_and_joined(self.backbone(values), p)
            pyramid = pyramid.index_copy(0, place, features.to(pyramid.dtype))
        return replace(batch, views=pyramid.unflatten(0, shape))

    def _augmented(self, values: Tensor, sample: Tensor, samples: int) -> Tensor:
        """Return the views (N, 3, S, S), mirrored and brightened or darkened at random, a sample's alike.

        sample: (N,), whose view each is. The draws are from torch's generator, which checkpoints hold.
        Normalised values scale about the mean grey.
        """
        mirrored = torch.rand(samples, device=values.device)[sample] < 0.5
        brightness = (0.9 + 0.2 * torch.rand(samples, device=values.device))[sample]
        values = torch.where(mirrored[:, None, None, None], values.flip(-1), values)
        return values * brightness[:, None, None, None]

    def save_pretrained(self, folder: Path, reader: TextReader) -> None:
        """Write what the system writes, and the backbone beside it.

        `config.features` then names this very backbone: the system alone reads features that it made.
        """
        make_folder(folder)
        weights = self.backbone.network.state_dict()
        with atomic_path(folder / BACKBONE_FILE) as temporary, writing(temporary):
            save_file({name: value.detach().cpu().contiguous() for name, value in weights.items()}, temporary)
        features = {**(self.config.features or {}), "weights": digest_file(folder / BACKBONE_FILE)}
        self.config = self.system.config = replace(self.config, features=features)
        self.system.save_pretrained(folder, reader)

    @classmethod
    def from_pretrained(cls, folder: Path | str) -> "EndToEnd":
        """Return the model that `save_pretrained` wrote, in evaluation mode.

        Raises WeightsError where there is none.
        """
        folder = Path(folder)
        system = load_system(folder)
        features = system.config.features
        if not (folder / BACKBONE_FILE).is_file() or features is None:
            raise WeightsError(
                f"{folder} holds no {BACKBONE_FILE}: it is a model on cached features; open it with "
                "`load_system`"
            )
        backbone = build_backbone(features["backbone"], str(folder / BACKBONE_FILE))
        return cls(system, backbone, features["pooled"]).eval()
