"""Where model weights come from: the publisher's download, a user's file, or, only if asked for, chance.

No function here ever falls back from one of these to another. Which file it is, and its digest, are found
without torch.
"""

from __future__ import annotations

import hashlib
import os
import urllib.error
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlparse

from ...manifests.errors import InputError, WeightsError
from ...manifests.files import check_regular, reason_of
from ...manifests.fingerprint import digest_file
from ..base.settings import HUB
from .backbones import BACKBONES
from .backbones.outside import is_outside, outside_model
from .detectors import DETECTORS
from .hub import HubModel

if TYPE_CHECKING:
    import torch
    from torch import nn

__all__ = [
    "DEFAULT",
    "RANDOM",
    "WeightsSource",
    "digest_of",
    "downloads_folder",
    "load_into",
    "place_of",
    "read_state",
    "weights_of",
]

DEFAULT = "default"
RANDOM = "random"


@dataclass(frozen=True)
class WeightsSource:
    """Weights as the user asks for them, and the architecture's default.

    choice: "default", "random" or a file's path.
    default: the address of the publisher's file, or a file that ships with this package.
    """

    choice: str
    default: str | Path

    def path(self) -> Path | None:
        """Return the file that holds the weights, downloaded if need be; None for random ones.

        Raises WeightsError where a file is missing or not the publisher's; the message names it, its address
        and where to put it.
        """
        if self.choice == RANDOM:
            return None
        if self.choice != DEFAULT:
            path = Path(self.choice)
            if not path.is_file():
                raise InputError(f"--weights: {path} is not a file (give a file, 'default' or 'random')")
            return path
        return self.default if isinstance(self.default, Path) else _downloaded(self.default)

    def digest(self) -> str:
        """Return the sha256 of the weights file, or of the word "random" (for the seed 0 of `load_into`)."""
        path = self.path()
        return hashlib.sha256(RANDOM.encode()).hexdigest() if path is None else _digest(path)


def weights_of(architecture: str, choice: str) -> WeightsSource:
    """Return the weights that `choice` stands for, of the backbone or detector `architecture`."""
    known = BACKBONES[architecture] if architecture in BACKBONES else DETECTORS[architecture]
    return WeightsSource(choice, known.weights)


def digest_of(what: str, name: str, choice: str) -> str:
    """Return the digest of the weights that `choice` stands for, of the detector or backbone `name`.

    what: which of the two it is, for messages.
    """
    if what == "backbone" and is_outside(name):
        return outside_model(name, choice).digest()
    return (HubModel(name, choice, what) if name.startswith(HUB) else weights_of(name, choice)).digest()


def downloads_folder() -> Path:
    """Return the folder of torch.hub's downloads, which torchvision uses too.

    This is torch's own rule, without importing torch.
    """
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return Path(os.environ.get("TORCH_HOME", f"{cache}/torch")).expanduser() / "hub" / "checkpoints"


def place_of(url: str) -> Path:
    """Return where the publisher's file at `url` lies once it is downloaded."""
    return downloads_folder() / Path(urlparse(url).path).name


def _downloaded(url: str) -> Path:
    path = place_of(url)
    if not path.is_file():
        import torch

        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.hub.download_url_to_file(url, str(path), hash_prefix=_promised(path))
        except (urllib.error.URLError, OSError, RuntimeError) as error:
            raise WeightsError(
                f"{path.name} is not here and cannot be downloaded ({error}); on a machine with internet get "
                f"{url} and put it at {path}, or give its place with --weights FILE"
            ) from error
    # A copy may have been cut short, and another file may have been given this name.
    elif not (digest := _digest(path)).startswith(promised := _promised(path)):
        raise WeightsError(
            f"{path} is not the file of that name at {url}: its sha256 begins with {digest[:8]} instead of "
            f"{promised}; delete it to have it downloaded again, or rename it and give it with --weights FILE"
        )
    return path


def _digest(path: Path) -> str:
    """Return the sha256 of a weights file. Raises WeightsError where it may not be read."""
    try:
        return digest_file(path)
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read ({reason_of(error)}); allow it to be read, or give other weights with "
            "--weights FILE"
        ) from error


def _promised(path: Path) -> str:
    """Return the first digits of a file's sha256, which its publisher has put at the end of its name."""
    return path.stem.rpartition("-")[2]


def read_state(path: Path) -> dict[str, torch.Tensor]:
    """Return the state dict in a .safetensors file or in torch's format. Only tensors are ever unpickled."""
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        check_regular(path)
        if path.suffix == ".safetensors":
            return load_file(path)
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read ({reason_of(error)}); allow it to be read") from error
    except (SafetensorError, RuntimeError, ValueError, EOFError, KeyError) as error:
        raise WeightsError(
            f"{path} cannot be read as weights ({error}); it must be .safetensors or a torch state dict"
        ) from error
    # torch raises its own pickle.UnpicklingError, and refuses whatever is not a tensor with it.
    except Exception as error:
        raise WeightsError(
            f"{path} holds something other than tensors, which is never unpickled ({type(error).__name__})"
        ) from error
    if not isinstance(state, dict) or not all(isinstance(value, torch.Tensor) for value in state.values()):
        raise WeightsError(
            f"{path} is not a state dict of tensors; save it with torch.save(model.state_dict(), FILE)"
        )
    return state


def load_into(
    build: Callable[[dict[str, torch.Tensor] | None], nn.Module], source: WeightsSource
) -> nn.Module:
    """Build a network and load its weights strictly.

    An architecture that does not fit is an error that names the file.

    build: makes the network with its own random initialisation, given the state that it will hold or None for
    random weights, which are drawn from seed 0. It may look at the state (for the number of classes) and drop
    or rename entries in place.
    """
    import torch

    path = source.path()
    if path is None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return build(None)
    state: dict[str, Any] = dict(read_state(path))
    try:
        network = build(state)
        network.load_state_dict(state)
    except (RuntimeError, KeyError) as error:
        reason = " ".join(line.strip() for line in str(error).strip().splitlines()[:3])[:300]
        raise WeightsError(f"{path} does not fit the architecture: {reason}") from error
    return network
