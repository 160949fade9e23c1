"""Small classifiers of grey images of 28×28: a residual network, and a vision transformer."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SIDE = 28


class Basic(nn.Module):
    """Two 3×3 convolutions beside a shortcut; He et al., Deep Residual Learning (2016), fig. 5."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.norm1, self.norm2 = nn.BatchNorm2d(outside), nn.BatchNorm2d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            project = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.shortcut = nn.Sequential(project, nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inside, side, side] to [batch, outside, side / stride, side / stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """Three stages of residual blocks, at 14×14, 7×7 and 4×4; the last one is averaged."""

    def __init__(self, width: int = 16, blocks: int = 1, classes: int = 10) -> None:
        super().__init__()
        stem = nn.Conv2d(1, width, 3, 2, 1, bias=False)
        self.stem = nn.Sequential(stem, nn.BatchNorm2d(width), nn.ReLU())
        sizes = [width] + [width << i for i in range(3) for _ in range(blocks)]
        strides = [2 if i and not i % blocks else 1 for i in range(3 * blocks)]
        self.blocks = nn.ModuleList(map(Basic, sizes, sizes[1:], strides))
        self.head = nn.Linear(sizes[-1], classes)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """[batch, 1, 28, 28] to logits, [batch, classes]."""
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(x.mean((2, 3)))}


class Layer(nn.Module):
    """Attention and a feed-forward network, each after a norm and beside a shortcut."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        self.out = nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, patches, width] to the same."""
        y = self.norm1(x)
        q, k, v = (self._in_heads(f(y)) for f in (self.query, self.key, self.value))
        x = x + self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        fed: Tensor = self.down(F.gelu(self.up(self.norm2(x))))
        return x + fed

    def _in_heads(self, x: Tensor) -> Tensor:
        batch, patches, width = x.shape
        return x.reshape(batch, patches, self.heads, width // self.heads).transpose(1, 2)


class ViT(nn.Module):
    """A vision transformer, averaged over patches; Dosovitskiy et al., An Image Is Worth (2021)."""

    def __init__(
        self, width: int = 64, layers: int = 4, heads: int = 4, patch: int = 7, classes: int = 10
    ) -> None:
        super().__init__()
        self.patches = nn.Conv2d(1, width, patch, patch)
        self.places = nn.Parameter(0.02 * torch.randn((SIDE // patch) ** 2, width))
        self.layers = nn.ModuleList(Layer(width, heads) for _ in range(layers))
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """[batch, 1, 28, 28] to logits, [batch, classes]."""
        x = self.patches(pixels).flatten(2).transpose(1, 2) + self.places
        for layer in self.layers:
            x = layer(x)
        return {"logits": self.head(self.norm(x).mean(1))}
