"""Small detectors with random weights, one of each family of transformers', saved to folders."""

from pathlib import Path
from typing import Any

import torch
import transformers
from torch import nn
from transformers import AutoConfig, AutoModelForObjectDetection

__all__ = ["NAMES", "save_detector"]

NAMES = {0: "person", 1: "N/A", 2: "ball", 3: "no object", 4: "tree", 5: "logo", 6: "trophy"}

_RESNET = {
    "model_type": "resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 12, 16, 24],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
}
_RT_RESNET = {**_RESNET, "model_type": "rt_detr_resnet", "out_features": ["stage2", "stage3", "stage4"]}
_TRANSFORMER: dict[str, Any] = {
    "d_model": 16,
    "encoder_layers": 1,
    "decoder_layers": 2,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "decoder_ffn_dim": 16,
    "num_queries": 12,
}
_DETR = {**_TRANSFORMER, "backbone_config": {**_RESNET, "out_features": ["stage4"]}}
_HYBRID: dict[str, Any] = {
    **_TRANSFORMER,
    "encoder_hidden_dim": 16,
    "encoder_in_channels": [12, 16, 24],
    "decoder_in_channels": [16, 16, 16],
    "num_denoising": 0,
    "backbone_config": _RT_RESNET,
    "hidden_expansion": 0.5,
    "decoder_n_points": 2,
}
_WINDOWED: dict[str, Any] = {
    "decoder_layers": 2,
    "decoder_ffn_dim": 16,
    "decoder_n_points": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "d_model": 32,
    "num_queries": 12,
    "group_detr": 2,
    "hidden_expansion": 0.5,
}
_VIT = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "out_indices": [1, 2]}
_CONFIGS: dict[str, dict[str, Any]] = {
    "detr": _DETR,
    "conditional_detr": _DETR,
    "table-transformer": _DETR,
    "dab-detr": {**_TRANSFORMER, "hidden_size": 16, "backbone_config": _DETR["backbone_config"]},
    "deformable_detr": {
        **_TRANSFORMER,
        "d_model": 32,
        "backbone_config": {**_RESNET, "out_features": ["stage2", "stage3", "stage4"]},
        "num_feature_levels": 4,
    },
    "rt_detr": _HYBRID,
    "rt_detr_v2": _HYBRID,
    "d_fine": {**_HYBRID, "decoder_n_points": [2, 2, 2]},
    "deimv2": {**_HYBRID, "decoder_n_points": [2, 2, 2]},
    "lw_detr": {
        **_WINDOWED,
        "projector_scale_factors": [1.0],
        "backbone_config": {
            **_VIT,
            "model_type": "lw_detr_vit",
            "image_size": 64,
            "patch_size": 16,
            "num_windows": 4,
            "window_block_indices": [0],
        },
    },
    "rf_detr": {
        **_WINDOWED,
        "backbone_config": {
            **_VIT,
            "model_type": "rf_detr_dinov2",
            "image_size": 56,
            "patch_size": 14,
            "num_windows": 2,
        },
    },
    "yolos": {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 16,
        "image_size": [64, 96],
        "patch_size": 16,
        "num_detection_tokens": 12,
    },
}
_PROCESSORS = {
    "detr": "DetrImageProcessor",
    "table-transformer": "DetrImageProcessor",
    "conditional_detr": "ConditionalDetrImageProcessor",
    "dab-detr": "ConditionalDetrImageProcessor",
    "deformable_detr": "DeformableDetrImageProcessor",
    "lw_detr": "DeformableDetrImageProcessor",
    "rf_detr": "RfDetrImageProcessor",
    "yolos": "YolosImageProcessor",
}


def save_detector(folder: Path, family: str, names: dict[int, str] = NAMES) -> Path:
    """Save a small detector of a family, whose scores differ, with its processor; return its folder."""
    config = AutoConfig.for_model(family, **_CONFIGS[family], id2label=names)
    with torch.random.fork_rng():
        torch.manual_seed(2)
        network: Any = AutoModelForObjectDetection.from_config(config)
        for parameter in network.parameters():
            if parameter.dim() > 1:  # those of a new network are too small to tell objects apart
                nn.init.normal_(parameter, 0.0, 0.3)
        for module in network.modules():
            if isinstance(module, nn.Linear) and module.out_features in (len(names), len(names) + 1):
                # Nothing is found now and then, and no query finds nothing alone.
                module.weight.data[1::2] *= 0.5
    network.save_pretrained(folder)
    kind = getattr(transformers, _PROCESSORS.get(family, "RTDetrImageProcessor"))
    # A processor that keeps the image's shape, or one that does not, as the family's own.
    square = family.startswith(("rt", "d_", "dei", "lw", "rf"))
    side = 56 if family == "rf_detr" else 64
    size = {"height": side, "width": side} if square else {"shortest_edge": 64, "longest_edge": 96}
    kind(size=size).save_pretrained(folder)
    return folder
