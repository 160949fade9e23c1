"""Training of a module on labels."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

import torch
from torch import nn

from strop.compiler.rewriting.context import Batch, Batches, Context, Loss
from strop.passes.train import Policy, train


def fit(
    module: nn.Module,
    inputs: Collection[str],
    loss: Loss,
    batches: Batches,
    policy: Policy,
    progress: Callable[[str], None] = lambda what: None,
) -> nn.Module:
    """Train a module in place; it comes back in eval mode.

    Args:
        module: its outputs are a mapping by name.
        inputs: the names of what ``forward`` takes of a batch.
        loss: of the outputs by name, and a batch; a scalar.
        batches: the inputs by name and, beside them, what the loss wants.
        policy: how it is trained.
        progress: told what is being done, in a few words.
    """

    def of_batch(batch: Batch) -> tuple[torch.Tensor, Mapping[str, torch.Tensor]]:
        outputs = module(**{name: batch[name] for name in inputs})
        return loss(outputs, batch), {}

    module.train()
    trained = train(
        dict(module.named_parameters()), of_batch, batches, policy, Context(progress=progress)
    )
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            parameter.copy_(trained.tensors[name])
    return module.eval()
