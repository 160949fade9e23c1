"""Classifiers of photographs, with crops of photographs to calibrate on."""

from __future__ import annotations

import torch
from torch import nn

from strop.bench.models.efficientnet import pretrained
from strop.bench.models.photographs import crops
from strop.compiler import Model

_BATCHES, _ROWS = 8, 16
_CALIBRATION_SEED = 0


def efficientnet_lite0() -> Model:
    """EfficientNet-Lite0 with its ImageNet weights: depthwise convolutions."""
    return _classifier(pretrained())


def resnet50() -> Model:
    """ResNet-50 with random weights: dense convolutions."""
    return _classifier(_adapted("ResNet"))


def mobilenet_v2() -> Model:
    """MobileNetV2 1.0 with random weights: depthwise convolutions."""
    return _classifier(_adapted("MobileNetV2"))


def _adapted(family: str) -> nn.Module:
    """A random network of transformers whose batch norms have the statistics of photographs."""
    import transformers

    config = getattr(transformers, f"{family}Config")(num_labels=1000)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        module: nn.Module = getattr(transformers, f"{family}ForImageClassification")(config)
        _draw(module)
        norms = [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.momentum = None  # the mean of all batches
        with torch.no_grad():
            for batch in crops(4 * _ROWS, seed=1).split(_ROWS):
                module.train()(batch)
    return module.eval()


def _draw(module: nn.Module) -> None:
    """Weights as before training, with norms that are no identities."""
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight, mode="fan_out", nonlinearity="relu")
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.uniform_(part.weight, 0.5, 1.5)
            nn.init.normal_(part.bias, std=0.2)
        elif isinstance(part, nn.Linear):
            nn.init.normal_(part.weight, std=part.in_features**-0.5)


def _classifier(module: nn.Module) -> Model:
    batches = crops(_BATCHES * _ROWS, _CALIBRATION_SEED).split(_ROWS)
    return Model(
        module,
        {"pixel_values": batches[0][:2]},
        {"pixel_values": {0: ("batch", 1, 32)}},
        calibration=[{"pixel_values": batch} for batch in batches],
    )
