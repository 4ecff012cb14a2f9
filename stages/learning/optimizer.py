"""Which parameters learn at which rate: appendix B's AdamW, warm-up and linear decay."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..systems.system import Model
from .recipe import TrainSettings

__all__ = ["describe_groups", "make_optimizer", "make_schedule", "parameter_groups"]


def parameter_groups(model: Model, rates: Mapping[str, float], weight_decay: float) -> list[dict[str, Any]]:
    """Return optimizer groups: each part of the model with decay, and without it.

    Biases and the weights of LayerNorm and BatchNorm do not decay. rates: the learning rate of each part that
    the model names. Every trainable parameter is in exactly one group: a head in no group would silently stay
    random.
    """
    members: dict[tuple[str, bool], list[nn.Parameter]] = {}
    normalisers = (module for module in model.modules() if isinstance(module, (nn.LayerNorm, nn.BatchNorm2d)))
    norms = {id(p) for module in normalisers for p in module.parameters(recurse=False)}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        decays = not (name.endswith("bias") or id(parameter) in norms)
        members.setdefault((model.part_of(name), decays), []).append(parameter)
    grouped = [id(p) for group in members.values() for p in group]
    trainable = [id(p) for p in model.parameters() if p.requires_grad]
    assert sorted(grouped) == sorted(trainable), "a trainable parameter is in no optimizer group, or in two"
    return [
        {
            "name": part if decays else f"{part}, no decay",
            "params": group,
            "lr": rates[part],
            "weight_decay": weight_decay if decays else 0.0,
        }
        for (part, decays), group in members.items()
    ]


def make_optimizer(groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
    """Return AdamW on groups made by `parameter_groups`."""
    device = groups[0]["params"][0].device
    return torch.optim.AdamW(groups, fused=device.type in ("cpu", "cuda"))


def make_schedule(
    optimizer: torch.optim.Optimizer, settings: TrainSettings, updates: int
) -> torch.optim.lr_scheduler.LambdaLR:
    """Return a linear warm-up over the first share `settings.warmup` of the updates, then a decay to zero."""
    warmup = max(1, round(settings.warmup * updates))
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer,
        lambda step: min((step + 1) / warmup, max(0.0, (updates - step) / max(1, updates - warmup))),
    )


def describe_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Return what each group holds and how it learns, for metrics.json."""
    return [
        {
            "name": group["name"],
            "tensors": len(group["params"]),
            "parameters": sum(p.numel() for p in group["params"]),
            "learning_rate": group["initial_lr"],
            "weight_decay": group["weight_decay"],
        }
        for group in optimizer.param_groups
    ]
