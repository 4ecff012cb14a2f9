"""Vision models of the Hugging Face hub or in folders: which files they are, without torch.

They are named `hf:NAME` and `hf:FOLDER`, and `timm:USER/NAME` and `timm:FOLDER` where timm saved them.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from ...manifests.errors import InputError, WeightsError
from ...manifests.fingerprint import digest_file, digest_json
from ..base.hub import check_parts, check_readable, model_folder, more_than_tensors, read_json, unreadable
from ..base.settings import HUB, split_hub

__all__ = ["Family", "HubModel"]

_CONFIG = "config.json"
# What says how pixels become what the network reads; newer releases of transformers write the second.
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")
_PATTERNS = ("*.json", "model*.safetensors")


@dataclass(frozen=True)
class Family:
    """A type of models, as `model_type` in config.json names it.

    example: a public one. note: what a user should know of it.
    """

    name: str
    example: str
    note: str = ""


@dataclass(frozen=True)
class HubModel:
    """A model as the user asks for it.

    name: with HUB or TIMM before it. choice: "default" for its own weights, "random", another folder that
    holds all of it, or, of a backbone, a file of other weights.
    what: how messages call it; it is also the option that names it.
    """

    name: str
    choice: str
    what: str

    @property
    def random(self) -> bool:
        """Return whether its weights are drawn from seed 0, as the user asked."""
        return self.choice == "random"

    @property
    def file(self) -> Path | None:
        """Return the file of other weights than its own, where the user gave one for a backbone."""
        if self.choice in ("default", "random") or self.what != "backbone":
            return None
        path = Path(self.choice).expanduser()
        return path if path.is_file() else None

    def folder(self) -> Path:
        """Return the folder of its files, downloaded if need be.

        Raises InputError or WeightsError where there is none, or where files are missing or damaged.
        """
        before, name = split_hub(self.name)
        if self.choice in ("default", "random") or self.file is not None:
            folder = model_folder(name, _PATTERNS, what=self.what, option=f"--{self.what} {before}")
        else:
            folder = Path(self.choice).expanduser()
            if not (folder / _CONFIG).is_file():
                raise InputError(
                    f"--weights: {folder} is not a folder with a {_CONFIG}; {self.name} brings its own "
                    "weights: leave --weights at 'default', or give the folder where all of it lies"
                )
        check_readable(folder, _PATTERNS, self.what)
        if before == HUB and not any((folder / name).is_file() for name in _PROCESSORS):
            raise WeightsError(
                f"{folder} holds no {_PROCESSORS[0]}, which says how an image is resized and normalised; put "
                f"the {self.what}'s own there"
            )
        if not self.random and self.file is None and not self._weights(folder):
            raise WeightsError(
                f"{folder} holds no model.safetensors; random weights are never used in its place"
            )
        if not self.random and self.file is None:
            check_parts(folder, self.what)
        return folder

    def kind(self) -> str:
        """Return the type of the model, as transformers names it, or its architecture, as timm does."""
        path = self.folder() / _CONFIG
        library, key = (
            ("transformers", "model_type") if self.name.startswith(HUB) else ("timm", "architecture")
        )
        values = read_json(path, self.what)
        found = values.get(key) if isinstance(values, dict) else None
        if not isinstance(found, str) or not found:
            raise WeightsError(f"{path} does not say its {key}, so that it is no model of {library}")
        return found

    def check_kind(
        self, taken: Mapping[str, Family], refused: Mapping[str, str], *, unknown: str, instead: str
    ) -> None:
        """Raise WeightsError where its type is not one of those that are taken.

        refused: by type, why. unknown: why another type is refused. instead: what else a user may do, as the
        end of the message.
        """
        if (kind := self.kind()) not in taken:
            raise WeightsError(
                f"{self.folder()} cannot be the {self.what}: its type is {kind}, and "
                f"{refused.get(kind, unknown)}; use one of the types {', '.join(taken)}, {instead}"
            )

    @contextmanager
    def loading(self) -> Iterator[None]:
        """Make a WeightsError of whatever transformers raises over the model's files."""
        try:
            yield
        except UnpicklingError as error:
            raise more_than_tensors(self.folder(), self.what) from error
        except WeightsError:
            raise
        except ImportError as error:
            raise WeightsError(f"{self.folder()} needs a package that is not here ({error})") from error
        except Exception as error:  # files of others break their readers in any way
            raise unreadable(self.folder(), self.what, error) from error

    def digest(self) -> str:
        """Return the digest of everything in its folder that decides its numbers."""
        folder, digests = self.folder(), self.facts()
        if self.random:
            return digest_json({**digests, "weights": self.choice})
        if self.file is not None:
            return digest_json({**digests, "weights": digest_file(self.file)})
        return digest_json({**digests, **{path.name: digest_file(path) for path in self._weights(folder)}})

    def facts(self) -> dict[str, str]:
        """Return the digests of the files that say what it is and how pixels become what it reads."""
        folder = self.folder()
        names = [name for name in (_CONFIG, *_PROCESSORS) if (folder / name).is_file()]
        return {name: digest_file(folder / name) for name in names}

    def processor_file(self) -> Path:
        """Return the file that says how pixels become what it reads."""
        folder = self.folder()
        return next(folder / name for name in _PROCESSORS if (folder / name).is_file())

    def processor(self) -> dict[str, Any]:
        """Return the values of what says how pixels become what it reads."""
        values = read_json(self.processor_file(), self.what)
        values = values.get("image_processor", values) if isinstance(values, dict) else {}
        return values if isinstance(values, dict) else {}

    def _weights(self, folder: Path) -> list[Path]:
        """Return the files of its weights: safetensors where there are any."""
        tensors = sorted(folder.glob("model*.safetensors"))
        pickled = folder / "pytorch_model.bin"
        return tensors or ([pickled] if pickled.is_file() else [])
