"""VisualBERT's encoder: a BERT that reads vectors of views behind the text, in one sequence.

It is transformers' own VisualBertModel, from a checkpoint of VisualBERT or of a BERT.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import VisualBertConfig, VisualBertModel

from ....manifests.errors import WeightsError
from ...base.hub import quiet
from .bert import encoder_type, load_encoder, pretrained

__all__ = ["encode_with_views", "is_of_bert", "load_visual_bert", "visual_bert_from_config"]

_TYPE, _PROJECTION = "visual_bert", "embeddings.visual_projection"

# In the configuration of an encoder that started from BERT, whose weights know text and no images.
_START = "started_from"


def load_visual_bert(folder: Path, width: int) -> nn.Module:
    """Return VisualBERT, without its pooler, on the pretrained encoder in `folder`.

    width: the numbers of a view's vector. A checkpoint of VisualBERT is loaded as it is. From one of BERT
    come the common parts, and then the tables of types and positions of the views are copied from the text's.
    (With `special_visual_initialize`, transformers copies them before any weights are loaded, and so copies
    random numbers.) The projection of the vectors is new in any case, N(0, 0.02): public checkpoints saw the
    regions of other detectors.

    Raises WeightsError for encoders of other types.
    """
    kind = encoder_type(folder)
    # The projection's numbers come from the seed, and leave the generator to the heads as they found it.
    with torch.random.fork_rng(devices=[]):
        if kind == _TYPE:
            encoder = pretrained(
                folder, VisualBertModel, lambda values: _building(values, width), _PROJECTION
            )
        elif kind == "bert":
            encoder = _of_bert(load_encoder(folder), width)
        else:
            raise WeightsError(
                f"{folder} is of type {kind}, whose embeddings and layers are not those of VisualBERT; use "
                "an encoder of type bert, or a checkpoint of VisualBERT (visual_bert)"
            )
        projection: Any = encoder.get_submodule(_PROJECTION)
        nn.init.normal_(projection.weight, 0.0, 0.02)
        nn.init.zeros_(projection.bias)
    return encoder


@quiet()
def visual_bert_from_config(values: dict[str, Any]) -> nn.Module:
    """Return an encoder of this configuration with random weights, into which to load a state dict."""
    config = VisualBertConfig(**values)
    encoder: nn.Module = VisualBertModel(config, **_building(config, config.visual_embedding_dim))
    return encoder


def is_of_bert(encoder: nn.Module) -> bool:
    """Return whether an encoder started from a BERT rather than a VisualBERT."""
    return getattr(encoder.config, _START, None) == "bert"


def encode_with_views(
    encoder: nn.Module, input_ids: Tensor, attention_mask: Tensor, vectors: Tensor, mask: Tensor, **asked: Any
) -> Any:
    """Return the output of transformers' model for texts with views behind them.

    input_ids, attention_mask: (B, n). vectors: (B, V, width). mask: (B, V) bool. Every view is of visual
    type 1 at visual position 0: views have no order.
    """
    model: Any = encoder
    states = model.embeddings(
        input_ids=input_ids,
        visual_embeds=vectors,
        visual_token_type_ids=torch.ones(mask.shape, dtype=torch.long, device=mask.device),
    )
    # Some releases of transformers bring a number from the CPU for this, which no CUDA graph can record.
    absent = ~torch.cat((attention_mask.bool(), mask), 1)[:, None, None]  # shape: (B, 1, 1, n + V)
    bias = states.new_zeros(absent.shape).masked_fill(absent, torch.finfo(states.dtype).min)
    return model.encoder(states, attention_mask=bias, **asked)


def _of_bert(bert: nn.Module, width: int) -> nn.Module:
    """Return VisualBERT with the parts that it has in common with a BERT."""
    config: Any = bert.config
    if config.type_vocab_size < 2:
        raise WeightsError(
            "the encoder has one type of token, and VisualBERT needs a second one for views; use another BERT"
        )
    names = VisualBertConfig().to_dict().keys() - {"model_type", "architectures", "transformers_version"}
    values = {name: value for name, value in config.to_dict().items() if name in names}
    encoder = visual_bert_from_config({**values, "visual_embedding_dim": width, _START: "bert"})
    loaded = encoder.load_state_dict(bert.state_dict(), strict=False)
    own = ("visual_projection", "visual_token_type_embeddings", "visual_position_embeddings")
    assert not loaded.unexpected_keys, loaded.unexpected_keys
    assert all(name.startswith(tuple(f"embeddings.{part}." for part in own)) for name in loaded.missing_keys)
    tables: Any = encoder.get_submodule("embeddings")
    with torch.no_grad():
        tables.visual_token_type_embeddings.weight.copy_(tables.token_type_embeddings.weight)
        tables.visual_position_embeddings.weight.copy_(tables.position_embeddings.weight)
    return encoder


def _building(config: Any, width: int) -> dict[str, Any]:
    """Return the options by which VisualBERT is built. Raises WeightsError for what it is not built for."""
    if config.bypass_transformer:
        raise WeightsError("its views bypass the transformer (bypass_transformer), so that no word sees them")
    config.visual_embedding_dim = width
    return {"add_pooling_layer": False}
