"""The text encoder: a pretrained model of transformers, with a visual prefix in its self-attention (eq. 9).

The prefix enters through transformers' attention interface (encoders.attention), so that the pretrained
weights load unchanged and the rest of the encoder (position embeddings, LayerNorm, feed-forward) is not
touched. Without a prefix the attention is transformers' own. Which types there are is in encoders.families.
"""

import inspect
import shutil
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, AutoTokenizer
from transformers.models.mobilebert.modeling_mobilebert import MobileBertEmbeddings
from transformers.models.xmod.modeling_xmod import XmodAdapter

from ....manifests.errors import WeightsError
from ...base.hub import check_complete, more_than_tensors, quiet, unreadable
from ...base.writing import writing
from ..prefix import LayerPrefix
from .attention import ATTENTION, seeing
from .disentangled import see_prefixes
from .families import family_of
from .files import check_readable

__all__ = [
    "encode",
    "encoder_from_config",
    "encoder_type",
    "load_encoder",
    "load_tokenizer",
    "longest_text",
    "pretrained",
    "save_tokenizer",
    "without_embedding",
]


def encode(
    encoder: nn.Module,
    input_ids: Tensor,
    attention_mask: Tensor,
    prefix: Sequence[LayerPrefix | None] | None,
    attention_to_prefix: dict[int, Tensor] | None = None,
    segments: Tensor | None = None,
) -> Tensor:
    """Return the last hidden states, (B, n, d).

    input_ids, attention_mask: (B, n). prefix: one entry per layer, or None for plain text. segments: (B, n),
    the segment of each sub-word, 0 or 1; None: all are of the first.

    attention_to_prefix: receives the attention to the prefix, (B, H, n, P), of every layer that has one. The
    fast attention kernels never compute it, so it is computed separately, and only on request.
    """
    asked = {} if segments is None else {"token_type_ids": segments}
    # Of integers: the convolution of DeBERTa v2 subtracts the mask from 1.
    attention_mask = attention_mask.long()
    with seeing(prefix, attention_to_prefix):
        states: Tensor = encoder(
            input_ids=input_ids, attention_mask=attention_mask, **asked
        ).last_hidden_state
    return states


def load_encoder(folder: Path) -> nn.Module:
    """Return the pretrained encoder in `folder`, without its pooler (which no head here reads)."""
    return _ready(pretrained(folder, AutoModel, _building))


@quiet()
def encoder_type(folder: Path) -> str:
    """Return the type of the encoder in `folder`, as transformers names it."""
    try:
        return str(
            AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False).model_type
        )
    except Exception as error:  # files of others break their readers in any way
        raise unreadable(folder, "text encoder", error, whose="encoder") from error


@quiet()
def pretrained(
    folder: Path, kind: Any, building: Callable[[Any], dict[str, Any]], new: str | None = None
) -> nn.Module:
    """Return the pretrained model in `folder`, in single precision.

    kind: the class of transformers that builds it. building: returns the options by which it is built, from
    its configuration, or raises WeightsError. new: the one module whose weights need not be there or fit.
    Raises WeightsError where anything but those would be random.
    """
    check_readable(folder)
    if not any(
        (folder / name).is_file()
        for name in ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")
    ):
        raise WeightsError(f"{folder} holds no model.safetensors; random weights are never used in its place")
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        encoder, loading = kind.from_pretrained(
            folder,
            config=config,
            output_loading_info=True,
            local_files_only=True,
            ignore_mismatched_sizes=new is not None,
            **building(config),
        )
    except WeightsError as error:
        raise WeightsError(f"{folder} cannot be the text encoder: {error}") from error
    except UnpicklingError as error:
        raise more_than_tensors(folder, "encoder") from error
    except Exception as error:  # files of others break their readers in any way
        raise unreadable(folder, "text encoder", error, whose="encoder") from error
    random = {*loading["missing_keys"], *(name for name, *_ in loading["mismatched_keys"])}
    check_complete(folder, sorted(name for name in random if new is None or not name.startswith(f"{new}.")))
    loaded: nn.Module = encoder.float()
    return loaded


@quiet()
def encoder_from_config(config: dict[str, Any]) -> nn.Module:
    """Return an encoder of this configuration with random weights, into which to load a state dict."""
    values = dict(config)
    hf_config = AutoConfig.for_model(values.pop("model_type"), **values)
    return _ready(AutoModel.from_config(hf_config, **_building(hf_config)))


def _building(config: Any) -> dict[str, Any]:
    """Return the options by which an encoder of this configuration is built.

    They are the attention to a prefix, no code but that of transformers (it would otherwise be asked for on
    the terminal), and no pooler. Raises WeightsError for a type of encoder that takes no prefix.
    """
    family = family_of(config)
    if family.name == "xmod" and config.default_language is None:
        raise WeightsError(
            "its config.json has no default_language, so that no adapters would be used; set it to one of "
            f"{', '.join(config.languages[:5])}, ..."
        )
    if getattr(config, "talking_head", False):
        raise WeightsError(
            "its heads are mixed (talking_head), so that none has a prefix of its own; use an encoder without"
        )
    options: dict[str, Any] = {"trust_remote_code": False}
    if not family.name.startswith("deberta"):  # whose attention is encoders.disentangled's
        options["attn_implementation"] = ATTENTION
    built = AutoModel._model_mapping[type(config)]
    has_pooler = "add_pooling_layer" in inspect.signature(built.__init__).parameters
    return {**options, "add_pooling_layer": False} if has_pooler else options


def _ready(encoder: nn.Module) -> nn.Module:
    """Return the encoder with layers that take prefixes, and without two faults of transformers.

    It writes what the adapters of xmod answer under autocast, bf16, into states of fp32, which torch refuses.
    And mobilebert reads each sub-word with its neighbours: behind the last one that is the padding's
    embedding in a batch, and zero in a text alone, so that a text's numbers would depend on its batch.
    """

    def cast(adapter: nn.Module, given: tuple[Tensor, ...], answer: Tensor) -> Tensor:
        return answer.to(given[0].dtype)

    see_prefixes(encoder)
    for module in encoder.modules():
        if isinstance(module, XmodAdapter):
            module.register_forward_hook(cast)
        if isinstance(module, MobileBertEmbeddings):
            with torch.no_grad():  # training does not move it: the table knows which row is the padding's
                module.word_embeddings.weight[module.word_embeddings.padding_idx] = 0
    return encoder


@quiet()
def load_tokenizer(folder: Path) -> Any:
    """Return the encoder's own tokenizer. Raises WeightsError where its files are not in `folder`.

    RoBERTa's needs a space before every word; others ignore it.
    """
    check_readable(folder)
    try:
        tokenizer = AutoTokenizer.from_pretrained(
            folder, add_prefix_space=True, local_files_only=True, trust_remote_code=False
        )
    except Exception as error:  # files of others break their readers in any way
        there = [path.name for path in folder.glob("*.model")]
        if there and not (folder / "tokenizer.json").is_file() and find_spec("sentencepiece") is None:
            raise WeightsError(
                f"{folder} has its tokenizer as {there[0]} alone, which no package here reads; run "
                "`pip install sentencepiece protobuf`, or copy the encoder's tokenizer.json there"
            ) from error
        raise unreadable(folder, "tokenizer", error, whose="encoder") from error
    # Without its files, transformers makes up a vocabulary of special tokens: every word would be unknown.
    files = {key: name for key, name in tokenizer.vocab_files_names.items() if key != "tokenizer_file"}
    if not (folder / "tokenizer.json").is_file() and not all(
        (folder / name).is_file() for name in files.values()
    ):
        raise WeightsError(
            f"{folder} holds no tokenizer; copy the encoder's own there: tokenizer.json, or "
            f"{' and '.join(files.values())}"
        )
    return tokenizer


def save_tokenizer(tokenizer: Any, folder: Path) -> None:
    """Write a tokenizer into a folder from which `load_tokenizer` reads the same one."""
    with writing(folder):
        tokenizer.save_pretrained(folder)
    if tokenizer.is_fast:
        return
    # transformers writes BERTweet's merges without their counts, and takes the last column for counts when it
    # reads them: nothing would be merged.
    for key, name in tokenizer.vocab_files_names.items():
        source = getattr(tokenizer, key, None)
        if source is not None and Path(source) != folder / name:
            shutil.copyfile(source, folder / name)


def without_embedding(tokenizer: Any, rows: int) -> list[str]:
    """Return the tokens whose ids are beyond `rows` embeddings, in the order of their ids."""
    vocabulary: dict[str, int] = tokenizer.get_vocab()
    beyond = [token for token, number in vocabulary.items() if number >= rows]
    return sorted(beyond, key=lambda token: vocabulary[token])


def longest_text(encoder: nn.Module) -> int:
    """Return the number of sub-words, including special tokens, for which the encoder has positions.

    RoBERTa's positions start after the padding index.
    """
    config: Any = encoder.config
    padding = getattr(getattr(encoder, "embeddings", None), "padding_idx", None)
    return int(config.max_position_embeddings) - (0 if padding is None else int(padding) + 1)
