"""What small random models are given: weights that matter, and inputs with named axes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from strop.compiler import Model

VOCABULARY = 61
Axes = dict[int, Any]
BATCH: Axes = {0: ("batch", 1, 3)}
TEXT: Axes = BATCH | {1: ("seq", 2, 24)}
TARGET_TEXT: Axes = BATCH | {1: ("target", 2, 16)}


def randomize(module: nn.Module) -> nn.Module:
    """Give every weight and statistic a value that matters, the same each time.

    Freshly made norms are identities, biases are zero, and weights are so small that attention
    is a plain mean: a wrong rewrite could pass unseen.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() < 2:
                parameter.add_(0.1 * noise)
            else:
                parameter.copy_(noise / math.sqrt(parameter[0].numel()))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(0.1 * torch.randn(buffer.shape, generator=generator))
            elif name.endswith("running_var"):
                buffer.copy_(0.5 + torch.rand(buffer.shape, generator=generator))
    return module.eval()


def ids(length: int = 9, batch: int = 2) -> Tensor:
    """Token ids without the special ones, int64 [batch, length]."""
    generator = torch.Generator().manual_seed(1)
    return torch.randint(5, VOCABULARY, (batch, length), generator=generator)


def mask(length: int = 9, batch: int = 2) -> Tensor:
    """A padding mask whose second row ends three positions early, int64 [batch, length]."""
    result = torch.ones(batch, length, dtype=torch.int64)
    result[1, -3:] = 0
    return result


def noise(*shape: int) -> Tensor:
    """Normal numbers, the same each time."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def text(module: nn.Module) -> Model:
    """A model of padded texts."""
    inputs = {"input_ids": ids(), "attention_mask": mask()}
    return Model(module, inputs, dynamic=dict.fromkeys(inputs, TEXT))


def two_texts(module: nn.Module) -> Model:
    """A model of a padded text and the beginning of another."""
    inputs = {"input_ids": ids(), "attention_mask": mask(), "decoder_input_ids": ids(6)}
    axes = {"input_ids": TEXT, "attention_mask": TEXT, "decoder_input_ids": TARGET_TEXT}
    return Model(module, inputs, dynamic=axes)


def image(module: nn.Module, size: int = 32) -> Model:
    """A model of square images."""
    return Model(module, {"pixel_values": noise(2, 3, size, size)}, dynamic={"pixel_values": BATCH})
