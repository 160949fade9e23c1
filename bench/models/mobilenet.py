"""MobileNetV2 for small images, at any width; Sandler et al., MobileNetV2 (2018), table 2."""

from __future__ import annotations

from torch import Tensor, nn

# Expansion t, channels c, repeats n and stride s of each row of the table.
ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
_FIRST, _LAST = 32, 1280


class Inverted(nn.Module):
    """Expand, filter each channel, project; beside a shortcut where sizes allow one."""

    def __init__(self, inside: int, outside: int, stride: int, expansion: int) -> None:
        middle = inside * expansion
        expand = [_convolution(inside, middle, 1)] if expansion > 1 else []
        super().__init__()
        self.layers = nn.Sequential(
            *expand,
            _convolution(middle, middle, 3, stride, groups=middle),
            nn.Conv2d(middle, outside, 1, bias=False),
            nn.BatchNorm2d(outside),
        )
        self.shortcut = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inside, side, side] to [batch, outside, side / stride, side / stride]."""
        y: Tensor = self.layers(x)
        return x + y if self.shortcut else y


class MobileNetV2(nn.Module):
    """The network of the paper for grey images of 28×28: 14×14 at first, 1×1 at last."""

    def __init__(self, width: float = 1.0, classes: int = 10) -> None:
        super().__init__()
        inside = channels(_FIRST * width)
        self.stem = _convolution(1, inside, 3, 2)
        self.blocks = nn.ModuleList()
        for expansion, outside, repeats, stride in ROWS:
            for i in range(repeats):
                made = channels(outside * width)
                self.blocks.append(Inverted(inside, made, 1 if i else stride, expansion))
                inside = made
        # The paper keeps the last layer whole in narrow networks.
        last = channels(_LAST * max(width, 1.0))
        self.last = _convolution(inside, last, 1)
        self.head = nn.Linear(last, classes)

    def forward(self, pixels: Tensor) -> dict[str, Tensor]:
        """[batch, 1, 28, 28] to logits, [batch, classes]."""
        x = self.stem(pixels)
        for block in self.blocks:
            x = block(x)
        return {"logits": self.head(self.last(x).mean((2, 3)))}


def channels(count: float) -> int:
    """The nearest multiple of 8, and not more than 10 % less, as the authors' code has it."""
    rounded = max(8, int(count + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * count else rounded + 8


def _convolution(
    inside: int, outside: int, size: int, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution, batch norm and ReLU6."""
    convolution = nn.Conv2d(inside, outside, size, stride, size // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outside), nn.ReLU6())
