"""Small backbones with random weights, of families of transformers' and of timm, saved to folders."""

import json
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors.torch import save_file
from transformers import AutoBackbone, AutoConfig

__all__ = ["CONFIGS", "TIMM_MODELS", "save_backbone", "save_timm"]

_STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
_LAYERS: dict[str, Any] = {
    "hidden_size": 16,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "image_size": 64,
}
_WINDOWS: dict[str, Any] = {
    "embed_dim": 8,
    "depths": [1, 1, 1, 1],
    "num_heads": [1, 1, 2, 2],
    "image_size": 64,
}

CONFIGS: dict[str, dict[str, Any]] = {
    "beit": {**_LAYERS, "patch_size": 16},
    "bit": {**_STAGES, "embedding_size": 8, "num_groups": 4},
    "convnext": _STAGES,
    "convnextv2": _STAGES,
    "dinov2": {**_LAYERS, "patch_size": 14, "num_hidden_layers": 8},
    "dinov2_with_registers": {**_LAYERS, "patch_size": 14},
    "dinov3_convnext": _STAGES,
    "dinov3_vit": {**_LAYERS, "patch_size": 16},
    "focalnet": {
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "image_size": 64,
        "hidden_sizes": [8, 16, 32, 64],
        "focal_levels": [1, 1, 1, 1],
        "focal_windows": [3, 3, 3, 3],
    },
    "hiera": {
        "embed_dim": 8,
        "image_size": [64, 64],
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "masked_unit_size": [8, 8],
    },
    "pvt_v2": {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2]},
    "resnet": {**_STAGES, "embedding_size": 8},
    "swin": {**_WINDOWS, "window_size": 4},
    "swinv2": {**_WINDOWS, "window_size": 4},
    "vitdet": {**_LAYERS, "patch_size": 16, "num_hidden_layers": 3},
}

# timm's own networks for tests, and of its Swin a small one.
TIMM_MODELS: dict[str, dict[str, Any]] = {
    "test_convnext": {},
    "test_resnet": {},
    "test_vit2": {},
    "swin_tiny_patch4_window7_224": {
        "img_size": 64,
        "embed_dim": 8,
        "depths": [1, 1, 1, 1],
        "num_heads": [1, 1, 2, 2],
        "window_size": 4,
    },
}


def save_backbone(folder: Path, kind: str, *, size: int = 64, **config: Any) -> Path:
    """Save a backbone of this type with random weights, and what makes its pixels; return its folder."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = AutoBackbone.from_config(AutoConfig.for_model(kind, **{**CONFIGS[kind], **config}))
    network.save_pretrained(folder)
    processor = {
        "image_mean": [0.5, 0.4, 0.3],
        "image_std": [0.2, 0.3, 0.4],
        "size": {"height": size, "width": size},
        "resample": 3,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(processor))
    return folder


def save_timm(folder: Path, name: str) -> Path:
    """Save a network of timm with random weights as timm does for the hub; return its folder."""
    options = TIMM_MODELS[name]
    with torch.random.fork_rng():
        torch.manual_seed(7)
        network = timm.create_model(name, num_classes=5, **options)
    side = options.get("img_size", 64)
    pixels = {"mean": [0.5, 0.4, 0.3], "std": [0.2, 0.3, 0.4], "interpolation": "bicubic"}
    config = {
        "architecture": name,
        "num_classes": 5,
        "model_args": options,
        "pretrained_cfg": {**pixels, "input_size": [3, side, side]},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(network.state_dict(), folder / "model.safetensors")
    return folder
