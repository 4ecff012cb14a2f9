"""Backbones of transformers, by AutoBackbone: ResNet, Swin, ConvNeXt, DINOv2, DINOv3, Hiera and others."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from transformers import AutoBackbone, AutoConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_BACKBONE_MAPPING

from ....cache.spec import IMAGENET_MEAN, IMAGENET_STD
from ...base.hub import check_complete, quiet
from ..hub import HubModel
from ..weights import read_state
from .families import check_type
from .layout import Loaded, pixels, spaced

__all__ = ["load"]

_KNOWN: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}


@quiet()
def load(model: HubModel, *, random: bool) -> Loaded:
    """Return the network of `model` with its weights, or with random ones, drawn from seed 0.

    Raises InputError or WeightsError where it is no backbone, or where anything would be random that was not
    asked to be. Nothing but tensors is unpickled, and no code of its own is run.
    """
    folder = model.folder()
    check_type(model)
    missing: Sequence[str] = ()
    with model.loading():
        config = AutoConfig.from_pretrained(folder, **_KNOWN)
        config.out_features = _levels(config.stage_names, config.out_features)
        if random:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                network = AutoBackbone.from_config(config, trust_remote_code=False)
        else:
            state = None if model.file is None else read_state(model.file)
            network, loading = MODEL_FOR_BACKBONE_MAPPING[type(config)].from_pretrained(
                str(folder) if state is None else None,
                config=config,
                state_dict=state,
                output_loading_info=True,
                dtype=torch.float32,
                **_KNOWN,
            )
            missing = _random(network, loading)
    check_complete(model.file or folder, missing)
    return Loaded(network.float(), _maps, **_pixels(model, config))


def _maps(network: nn.Module, views: Tensor) -> Sequence[Tensor]:
    maps: Sequence[Tensor] = network(views).feature_maps
    return maps


def _levels(stages: Sequence[str], chosen: Sequence[str]) -> list[str]:
    """Return which stages' maps are taken: the chosen ones where there are several, or all but the stem's.

    Of layers of one width, see `spaced`.
    """
    if len(chosen) > 1:
        return list(chosen)
    stages = [stage for stage in stages if stage != "stem"]
    layers = spaced(len(stages))
    return stages if layers is None else [stages[i] for i in layers]


def _random(network: nn.Module, loading: Mapping[str, Any]) -> list[str]:
    """Return the tensors that would be random: those that were not loaded and are not all of one number.

    A backbone's own normalisation of each map begins with ones and zeros, which leave it as it is.
    """
    state = network.state_dict()
    new = [name for name in loading["missing_keys"] if name not in state or state[name].unique().numel() > 1]
    return sorted({*new, *(name for name, *_ in loading["mismatched_keys"])})


def _pixels(model: HubModel, config: Any) -> dict[str, Any]:
    """Return the mean, deviation, size and interpolation that the model's image processor has.

    Raises WeightsError where they are none.
    """
    processor = model.processor()
    normalises, mean, std = (processor.get(f"{key}") for key in ("do_normalize", "image_mean", "image_std"))
    if normalises is False:
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    sizes = [processor.get("crop_size"), processor.get("size"), getattr(config, "image_size", None)]
    if processor.get("do_center_crop") is False:
        del sizes[0]
    size = next((side for given in sizes if (side := _side(given))), 224)
    resample = processor.get("resample")
    if resample is None:
        resample = Image.Resampling.BILINEAR
    names = {int(one): one.name for one in Image.Resampling}
    return pixels(
        model.processor_file(),
        IMAGENET_MEAN if mean is None else mean,
        IMAGENET_STD if std is None else std,
        size,
        names.get(resample, resample) if isinstance(resample, int) else resample,
    )


def _side(given: Any) -> Any:
    """Return the side of a view that a processor's or a configuration's size stands for; 0 for none."""
    if isinstance(given, Mapping):
        given = next((given[key] for key in ("height", "shortest_edge", "width") if given.get(key)), 0)
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = given[0] if given else 0
    return given or 0
