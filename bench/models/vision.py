"""The vision suite: convolutional networks at their usual sizes; weights do not matter for time."""

from __future__ import annotations

import torch

from strop.bench.models.inputs import randomize
from strop.compiler import Model

SIDE = 224


def mobilenet_v2() -> Model:
    """MobileNetV2 1.0, 3.5 million weights: depthwise convolutions."""
    return _classifier("MobileNetV2")


def resnet50() -> Model:
    """ResNet-50, 25.6 million weights: dense convolutions."""
    return _classifier("ResNet")


def _classifier(family: str) -> Model:
    """A classifier of transformers at its default sizes, the same each time."""
    import transformers

    config = getattr(transformers, f"{family}Config")()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module = getattr(transformers, f"{family}ForImageClassification")(config)
        images = torch.randn(2, 3, SIDE, SIDE)
    return Model(
        randomize(module), {"pixel_values": images}, {"pixel_values": {0: ("batch", 1, 32)}}
    )
