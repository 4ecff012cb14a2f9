"""Backbones of timm (the extra `timm`), by `features_only`."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import timm
import torch
from PIL import Image
from torch import Tensor, nn

from ....manifests.errors import InputError, WeightsError, unknown_name
from ...base.hub import check_complete, model_folder, read_json
from ..hub import HubModel
from ..weights import read_state
from .layout import Loaded, pixels, spaced
from .outside import NamedModel, OutsideModel

__all__ = ["load", "published"]


def published(name: str) -> Path:
    """Return the file of the weights that timm publishes for `name`, downloaded if need be.

    Raises InputError where it publishes none, and WeightsError where they cannot be reached.
    """
    config = _config(name)
    if config is None or not config.hf_hub_id:
        where = f"; get {config.url} and give it with --weights FILE" if config and config.url else ""
        raise InputError(f"timm:{name} has no weights on the Hugging Face hub{where or ', only random ones'}")
    folder = model_folder(
        config.hf_hub_id, ("*.json", "model*.safetensors"), what="backbone", option="--backbone timm:"
    )
    return _file(folder)


def _file(folder: Path) -> Path:
    """Return the file of the weights in a folder. Raises WeightsError where there is none."""
    for name in ("model.safetensors", "pytorch_model.bin"):
        if (folder / name).is_file():
            return folder / name
    raise WeightsError(f"{folder} holds no model.safetensors; random weights are never used in its place")


def _config(name: str) -> Any:
    """Return what timm says of the weights of the network `name`, or None where it publishes none.

    Raises InputError where it has no such network, or no such weights of it.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(architecture):
        raise unknown_name("timm's model", architecture, timm.list_models())
    try:
        config = timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # no such weights
        config = None
    if config is None and "." in name:
        tags = timm.list_pretrained(f"{architecture}.*")
        raise InputError(f"timm:{name} has no such weights; it has {', '.join(tags) or 'none'}")
    return config


def load(model: OutsideModel, *, random: bool) -> Loaded:
    """Return the network of `model` with its weights, or with random ones, drawn from seed 0.

    Raises InputError or WeightsError where it is no backbone, or where anything would be random that was not
    asked to be. Nothing but tensors is unpickled.
    """
    name, options, file = _asked(model, random=random)
    state = None if file is None else read_state(file)
    try:
        with _quiet():
            network = _network(name, options, state, str(file))
    except (InputError, WeightsError):
        raise
    except Exception as error:  # networks of others break in any way
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        place = "cannot be the backbone" if file is None else f"does not take the weights in {file}"
        raise WeightsError(f"{model.name} {place}: {reason}") from error
    known: Any = network.pretrained_cfg
    given = str(known.get("interpolation")).lower()
    says = model.folder() / "config.json" if isinstance(model, HubModel) else model.name
    interpolation = given if given.upper() in Image.Resampling.__members__ else "bicubic"
    prepared = pixels(says, known.get("mean"), known.get("std"), known["input_size"][-1], interpolation)
    return Loaded(network, _maps, **prepared)


def _asked(model: OutsideModel, *, random: bool) -> tuple[str, dict[str, Any], Path | None]:
    """Return timm's name of a network, the options that build it, and the file of its weights, if any."""
    if isinstance(model, NamedModel):
        _config(model.bare)
        return model.bare, {}, None if random else model.file
    folder = model.folder()
    model.kind()  # raises where its config.json is none
    values = read_json(folder / "config.json", model.what)
    _config(values["architecture"])
    prepared = {
        key: value
        for key, value in (values.get("pretrained_cfg") or {}).items()
        if key in ("mean", "std", "input_size", "interpolation", "crop_pct", "fixed_input_size", "first_conv")
    }
    options = {**(values.get("model_args") or {}), "pretrained_cfg_overlay": prepared}
    return values["architecture"], options, None if random else model.file or _file(folder)


def _network(
    name: str, options: Mapping[str, Any], state: Mapping[str, Tensor] | None, file: str
) -> nn.Module:
    """Return the network that gives its maps, with random weights or those in `state`.

    timm renames what older files have, and passes over what is missing. So the file is first loaded with no
    numbers in it: what has some then would be random. Raises WeightsError where anything would.
    """
    first = _build(name, options, None if state is None else _without_numbers(state))
    layers = _layers(first)
    if layers is not None:
        options = {**options, "out_indices": layers}
    if state is None:
        return first if layers is None else _build(name, options, None)
    random = [key for key, value in first.state_dict().items() if _has_numbers(value)]
    check_complete(file, random)
    return _build(name, options, state)


def _build(name: str, options: Mapping[str, Any], state: Mapping[str, Tensor] | None) -> nn.Module:
    """Return what timm builds, with random weights of seed 0 or those in `state`."""
    overlay = dict(options.get("pretrained_cfg_overlay", {}))
    if state is not None:
        overlay["state_dict"] = dict(state)
    known = {**options, "pretrained_cfg_overlay": overlay}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, features_only=True, pretrained=state is not None, **known)
    built: nn.Module = network.float()
    return built


def _layers(network: Any) -> tuple[int, ...] | None:
    """Return which layers of a network of one stride are levels: timm gives the last ones. None: its own."""
    layers = network.feature_info.info
    return None if len({layer["reduction"] for layer in layers}) > 1 else spaced(len(layers))


def _without_numbers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {
        key: torch.full_like(value, torch.nan) if value.is_floating_point() else value
        for key, value in state.items()
    }


def _has_numbers(value: Tensor) -> bool:
    return value.is_floating_point() and not bool(torch.isnan(value).all())


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence timm for a moment: that a classifier is left out is no news."""
    logger = logging.getLogger("timm")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _maps(network: nn.Module, views: Tensor) -> Sequence[Tensor]:
    maps: Sequence[Tensor] = network(views)
    return maps
