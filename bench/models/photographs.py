"""Crops of real photographs that packages ship.

A temple and a flower come with scikit-learn, a portrait with matplotlib: the packages are
``scikit-learn`` and ``matplotlib``.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

SIDE = 224
# The share of a photograph's shorter side that a crop takes.
_SMALLEST, _LARGEST = 0.35, 1.0


def crops(count: int, seed: int) -> Tensor:
    """Square crops of random places and sizes, some of them mirrored.

    Args:
        count: how many; the photographs take turns.
        seed: of what is drawn.

    Returns:
        float32 [count, 3, 224, 224], from -1 to 1, as EfficientNet-Lite takes pixels.
    """
    generator = torch.Generator().manual_seed(seed)
    photographs = _photographs()
    return torch.cat([_crop(photographs[i % len(photographs)], generator) for i in range(count)])


def _crop(photograph: Tensor, generator: torch.Generator) -> Tensor:
    _, _, height, width = photograph.shape
    size, down, right, mirrored = torch.rand(4, generator=generator).tolist()
    side = int(min(height, width) * (_SMALLEST + (_LARGEST - _SMALLEST) * size))
    top, left = int((height - side) * down), int((width - side) * right)
    cut = photograph[:, :, top : top + side, left : left + side]
    made = F.interpolate(cut, (SIDE, SIDE), mode="bilinear", antialias=True)
    return made.flip(3) if mirrored > 0.5 else made


@cache
def _photographs() -> list[Tensor]:
    """The photographs, [1, 3, height, width] each, from -1 to 1."""
    from matplotlib import get_data_path, image
    from sklearn.datasets import load_sample_images

    portrait = Path(get_data_path(), "sample_data", "grace_hopper.jpg")
    arrays = [*load_sample_images().images, image.imread(portrait)]
    pixels = [torch.from_numpy(np.array(a)).float() for a in arrays]
    return [((p - 127) / 128).permute(2, 0, 1)[None] for p in pixels]
