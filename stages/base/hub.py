"""Folders of models as transformers saves them: where they are, here or on the Hugging Face hub."""

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ...manifests.errors import InputError, WeightsError
from ...manifests.files import check_regular, reason_of

__all__ = [
    "check_complete",
    "check_parts",
    "check_readable",
    "damaged_file",
    "model_folder",
    "more_than_tensors",
    "quiet",
    "read_json",
    "unreadable",
]


def model_folder(name: str, patterns: Iterable[str], *, what: str, option: str) -> Path:
    """Return the local folder of the model `name`, downloading it if necessary.

    name: a folder or a Hugging Face name. patterns: of the files that are downloaded; pytorch_model.bin only
    where there are no safetensors. what: how a message calls the model. option: what a folder is given with,
    up to its name. Raises InputError or WeightsError, which say how to get it.
    """
    given = option.strip().partition(" ")[0]
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not os.path.lexists(folder / "config.json"):
            raise InputError(
                f"{given}: {folder} holds no config.json; give a folder made by save_pretrained, or a "
                "Hugging Face name"
            )
        return folder
    if folder.is_absolute() or name.startswith((".", "~")):
        raise InputError(
            f"{given}: {name} is not a folder; give the one where the {what} lies now, or a Hugging Face name"
        )
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        snapshot = Path(snapshot_download(name, allow_patterns=list(patterns)))
        if not list(snapshot.glob("model*.safetensors")):
            snapshot = Path(snapshot_download(name, allow_patterns=[*patterns, "pytorch_model.bin"]))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"{given}: {name} is neither a folder here nor a model on the Hugging Face hub"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"the {what} {name} is not cached here and the Hugging Face hub cannot be reached; "
            f"on a machine with internet run `hf download {name} --local-dir FOLDER`, "
            f"copy FOLDER here and give {option}FOLDER"
        ) from error
    return snapshot


def check_readable(folder: Path, patterns: Iterable[str], what: str) -> None:
    """Raise WeightsError where a file of a model's is there and cannot be read."""
    for path in (path for pattern in (*patterns, "pytorch_model.bin") for path in folder.glob(pattern)):
        try:
            check_regular(path)
            path.open("rb").close()
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be read ({reason_of(error)}); put the {what}'s own file there, and allow it "
                "to be read"
            ) from error


def check_parts(folder: Path, what: str) -> None:
    """Raise WeightsError where weights lie in several files, and one is missing or is nowhere listed.

    Only files of the folder itself count: a digest is made of these.
    """
    index, parts = folder / "model.safetensors.index.json", sorted(folder.glob("model-*-of-*.safetensors"))
    if (folder / "model.safetensors").is_file() or not (parts or index.is_file()):
        return
    remedy = f"put the {what}'s own file there"
    if not index.exists():
        raise WeightsError(f"{index} is missing, which says what {parts[0].name} holds; {remedy}")
    values = read_json(index, what)
    listed = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(f"{index} is damaged (it has no weight_map); {remedy}")
    there = {part.name for part in parts}
    if missing := sorted({str(name) for name in listed.values()} - there):
        raise WeightsError(f"{folder / missing[0]} is missing, which {index.name} lists; {remedy}")


def read_json(path: Path, what: str) -> Any:
    """Return the value of a model's file. Raises WeightsError where it is damaged.

    what: how the message calls the model.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise WeightsError(
            f"{path} is damaged ({reason_of(error)}); put the {what}'s own file there"
        ) from error


def unreadable(folder: Path, what: str, error: Exception, *, whose: str | None = None) -> WeightsError:
    """Return what to say of an error of transformers over the files of a model.

    what: how the message calls what was to be read. whose: how it calls the model, where that is another.
    """
    whose = whose or what
    if "trust_remote_code" in str(error):
        return WeightsError(
            f"{folder} needs code of its own, which is never run here; use another {whose}, of a type that "
            "transformers itself has"
        )
    if (damaged := damaged_file(folder)) is not None:
        path, reason = damaged
        return WeightsError(f"{path} is damaged ({reason}); put the {whose}'s own file there")
    return WeightsError(f"{folder} cannot be loaded as a {what} ({reason_of(error)})")


def damaged_file(folder: Path) -> tuple[Path, str] | None:
    """Return the first file of a model that is not of its format, and why; None where each is.

    What transformers says of such a file seldom names it.
    """
    from safetensors import SafetensorError, safe_open

    for path in sorted(folder.glob("*.json")):
        try:
            json.loads(path.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            return path, reason_of(error)
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(path, "numpy"):
                pass
        except SafetensorError as error:
            return path, reason_of(error)
    return None


def more_than_tensors(folder: Path, what: str) -> WeightsError:
    """Return what to say where the pickled weights in `folder` hold anything but tensors.

    what: how the message calls the model.
    """
    return WeightsError(
        f"{folder / 'pytorch_model.bin'} is damaged or holds more than tensors, and nothing else is ever "
        f"unpickled; save the {what} as model.safetensors"
    )


def check_complete(place: Path | str, missing: Sequence[str]) -> None:
    """Raise WeightsError where a file or a folder lacks the weights of the tensors `missing`."""
    if missing:
        raise WeightsError(
            f"{place} lacks the weights of {len(missing)} tensors ({missing[0]}, ...), which would be random"
        )


@contextmanager
def quiet() -> Iterator[None]:
    """Silence transformers for a moment, and then restore its logging, which is that of the whole process.

    Its report on unused and missing tensors is noise: what loads turns missing ones into an error.
    """
    from transformers.utils import logging

    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
