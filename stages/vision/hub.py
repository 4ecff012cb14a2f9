"""Vision models of the Hugging Face hub by `hf:NAME` or `hf:FOLDER`: which files they are, without torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, WeightsError
from ...manifests.files import reason_of
from ...manifests.fingerprint import digest_file, digest_json
from ..base.hub import check_readable, damaged_file, model_folder
from ..base.settings import split_hub

__all__ = ["HubModel"]

_CONFIG = "config.json"
# What says how pixels become what the network reads; newer releases of transformers write the second.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PATTERNS = ("*.json", "model*.safetensors")


@dataclass(frozen=True)
class HubModel:
    """A model as the user asks for it.

    name: with HUB before it. choice: "default" for its own weights, "random", or another folder that holds
    all of it.
    what: how messages call it; it is also the option that names it.
    """

    name: str
    choice: str
    what: str

    @property
    def random(self) -> bool:
        """Return whether its weights are drawn from seed 0, as the user asked."""
        return self.choice == "random"

    def folder(self) -> Path:
        """Return the folder of its files, downloaded if need be.

        Raises InputError or WeightsError where there is none, or where files are missing or damaged.
        """
        if self.choice in ("default", "random"):
            name = split_hub(self.name)[1]
            folder = model_folder(name, _PATTERNS, what=self.what, option=f"--{self.what} hf:")
        else:
            folder = Path(self.choice).expanduser()
            if not (folder / _CONFIG).is_file():
                raise InputError(
                    f"--weights: {folder} is not a folder with a {_CONFIG}; {self.name} brings its own "
                    "weights: leave --weights at 'default', or give the folder where all of it lies"
                )
        check_readable(folder, _PATTERNS, self.what)
        if not any((folder / name).is_file() for name in _PROCESSORS):
            raise WeightsError(
                f"{folder} holds no {_PROCESSORS[0]}, which says how an image is resized and normalised; put "
                f"the {self.what}'s own there"
            )
        if not self.random and not self._weights(folder):
            raise WeightsError(
                f"{folder} holds no model.safetensors; random weights are never used in its place"
            )
        return folder

    def kind(self) -> str:
        """Return the type of the model, as transformers names it."""
        path = self.folder() / _CONFIG
        try:
            values: Any = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise WeightsError(
                f"{path} is damaged ({reason_of(error)}); put the {self.what}'s own file there"
            ) from error
        found = values.get("model_type") if isinstance(values, dict) else None
        if not isinstance(found, str) or not found:
            raise WeightsError(f"{path} does not say its model_type, so that it is no model of transformers")
        return found

    def digest(self) -> str:
        """Return the digest of everything in its folder that decides its numbers."""
        folder = self.folder()
        names = [name for name in (_CONFIG, *_PROCESSORS) if (folder / name).is_file()]
        digests = {name: digest_file(folder / name) for name in names}
        if self.random:
            return digest_json({**digests, "weights": self.choice})
        return digest_json({**digests, **{path.name: digest_file(path) for path in self._weights(folder)}})

    def refused(self, error: Exception) -> WeightsError:
        """Return what to say of an error of transformers over its files."""
        folder = self.folder()
        if (damaged := damaged_file(folder)) is not None:
            path, reason = damaged
            return WeightsError(f"{path} is damaged ({reason}); put the {self.what}'s own file there")
        if "trust_remote_code" in str(error):
            return WeightsError(
                f"{folder} needs code of its own, which is never run here; use a {self.what} of a type that "
                "transformers itself has"
            )
        return WeightsError(f"{folder} cannot be loaded as a {self.what} ({reason_of(error)})")

    def _weights(self, folder: Path) -> list[Path]:
        """Return the files of its weights: safetensors where there are any."""
        tensors = sorted(folder.glob("model*.safetensors"))
        pickled = folder / "pytorch_model.bin"
        return tensors or ([pickled] if pickled.is_file() else [])
