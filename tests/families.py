"""Configurations of small encoders, one of each type that takes a visual prefix."""

from typing import Any

LAYERS, HEADS = 3, 4

SMALL = {
    "vocab_size": 30,
    "hidden_size": 32,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": 24,
    "max_position_embeddings": 40,
    "pad_token_id": 1,
}
OWN: dict[str, dict[str, Any]] = {
    "albert": {"embedding_size": 16},
    "camembert": {"bos_token_id": 0, "eos_token_id": 2},
    "deberta": {"relative_attention": True, "pos_att_type": ["c2p", "p2c"], "max_relative_positions": 6},
    "deberta-v2": {  # as v3 has it
        "relative_attention": True,
        "pos_att_type": ["c2p", "p2c"],
        "position_buckets": 4,
        "max_relative_positions": 12,
        "share_att_key": True,
        "norm_rel_ebd": "layer_norm",
        "position_biased_input": False,
        "conv_kernel_size": 3,
    },
    "distilbert": {"dim": 32, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": 24},
    "eurobert": {"num_key_value_heads": 2},
    "mobilebert": {
        "embedding_size": 16,
        "intra_bottleneck_size": 16,
        "true_hidden_size": 16,
        "num_feedforward_networks": 2,
    },
    # The second and third layers see one neighbour on each side.
    "modernbert": {"local_attention": 2, "global_attn_every_n_layers": 3},
    "xmod": {"languages": ["en_XX", "de_DE"], "default_language": "de_DE"},
}


def config_of(kind: str) -> dict[str, Any]:
    """Return the configuration of a small encoder of the type."""
    return {"model_type": kind, **SMALL, **OWN.get(kind, {})}
