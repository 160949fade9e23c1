"""Functions that are traced in place of those of torch that tracing cannot follow.

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

from strop.compiler.frontend.export.stand_ins import ctc, histogram, losses, places, statistics
from strop.compiler.frontend.export.unraised import sentence

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


_WEIGHTS = ("weights are negative or sum to 0", "a quotient by their sum")
_RANGE = ("elements are not finite and bins have no given edges", "edges that are NaN")
# For which values torch raises an error, and what a stand-in gives for them.
INSTEAD: dict[Any, tuple[str, str]] = {
    **dict.fromkeys((torch.cov, Tensor.cov), _WEIGHTS),
    **dict.fromkeys((torch.histogram, Tensor.histogram, torch.histogramdd), _RANGE),
    F.ctc_loss: ("there are more steps than time has", "the loss of all of time"),
    F.gaussian_nll_loss: ("a variance is negative", "the loss of the least variance"),
}


class StandIns(TorchFunctionMode):
    """While this is active, the functions of the table take the place of torch's."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return FUNCTIONS.get(func, func)(*args, **(kwargs or {}))


class Seen(TorchFunctionMode):
    """While this is active, remembers which functions are called that have stand-ins."""

    def __init__(self) -> None:
        super().__init__()
        self.functions: dict[Any, None] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in FUNCTIONS:
            self.functions[func] = None
        return func(*args, **(kwargs or {}))

    def unraised(self) -> list[str]:
        """A note for each function that raises an error where its stand-in does not."""
        named = {func.__name__: INSTEAD[func] for func in self.functions if func in INSTEAD}
        return [sentence(name, case) for name, case in named.items()]
