"""Text encoders for benchmarks of what lies around an encoder."""

from pathlib import Path

import torch
from hmnet_pipe.stages.text.encoders.files import DEMO_ENCODER, resolve_encoder
from transformers import AutoTokenizer, BertConfig, BertModel

__all__ = ["small_encoder"]


def small_encoder(folder: Path, *, width: int = 32, layers: int = 1) -> Path:
    """Write an encoder whose arithmetic costs next to nothing, with the tokenizer of a real one."""
    torch.manual_seed(0)
    tokenizer = AutoTokenizer.from_pretrained(resolve_encoder(DEMO_ENCODER))
    tokenizer.save_pretrained(folder)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_hidden_layers=layers,
        num_attention_heads=2,
        intermediate_size=2 * width,
    )
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder
