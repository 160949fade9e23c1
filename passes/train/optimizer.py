"""AdamW over named tensors, and its state as tensors by name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from strop.passes.train.policy import Policy

Tensors = dict[str, torch.Tensor]


def optimizer_of(parameters: Mapping[str, torch.Tensor], policy: Policy) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter, 2019); biases and scales of norms do not decay."""
    groups: list[dict[str, Any]] = [
        {"params": [p for p in parameters.values() if p.ndim > 1]},
        {"params": [p for p in parameters.values() if p.ndim <= 1], "weight_decay": 0.0},
    ]
    # On a CPU the default, one operation after another, takes several times longer.
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=policy.lr,
        betas=policy.betas,
        weight_decay=policy.weight_decay,
        fused=True,
    )


def state_of(optimizer: torch.optim.Optimizer, parameters: Mapping[str, torch.Tensor]) -> Tensors:
    """The weights and what the optimizer knows of them, by ``KIND/name``."""
    found = {f"weight/{name}": p for name, p in parameters.items()}
    for name, parameter in parameters.items():
        for kind, tensor in optimizer.state[parameter].items():
            found[f"{kind}/{name}"] = tensor
    return found


def restore(
    optimizer: torch.optim.Optimizer,
    parameters: Mapping[str, torch.Tensor],
    state: Mapping[str, torch.Tensor],
) -> None:
    """Put back what ``state_of`` gave.

    Raises:
        KeyError: a weight is missing.
    """
    for name, parameter in parameters.items():
        with torch.no_grad():
            parameter.copy_(state[f"weight/{name}"])
        kinds = ("step", "exp_avg", "exp_avg_sq")
        held = {kind: state[f"{kind}/{name}"] for kind in kinds if f"{kind}/{name}" in state}
        if held:
            optimizer.state[parameter] = held
