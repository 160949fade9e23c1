"""What is traced in place of torch's functions that tracing cannot follow.

They look at values, in order to check them (``cov``, ``ctc_loss``) or to make a size or a place of
them (``narrow`` with a tensor), have no types without values (``histogram``), or are written for
training (``linear_cross_entropy`` in chunks). The formulas here are torch's own, in its own simple
operators, without its checks of values.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from strop.compiler.stand_ins import ctc, histogram, losses, places, statistics

FUNCTIONS: dict[Any, Callable[..., Any]] = {
    **dict.fromkeys((torch.corrcoef, Tensor.corrcoef), statistics.corrcoef),
    **dict.fromkeys((torch.cov, Tensor.cov), statistics.cov),
    **dict.fromkeys((torch.histogram, Tensor.histogram), histogram.histogram),
    **dict.fromkeys((torch.narrow, Tensor.narrow), places.narrow),
    F.ctc_loss: ctc.ctc_loss,
    F.gaussian_nll_loss: losses.gaussian_nll_loss,
    F.linear_cross_entropy: losses.linear_cross_entropy,
    torch.combinations: places.combinations,
    torch.histogramdd: histogram.histogramdd,
}


class StandIns(TorchFunctionMode):
    """While this is active, the functions of the table take the place of torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return FUNCTIONS.get(func, func)(*args, **(kwargs or {}))
