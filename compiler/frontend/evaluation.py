"""The user's own measure of a model, on the original and on the artifact."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from strop.compiler.frontend.inputs import Signature
from strop.compiler.frontend.model import Evaluate
from strop.compiler.frontend.original import run_original
from strop.compiler.targets.runtime import Run
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import RuntimeEndedError, UsageError
from strop.compiler.util.numerics import Array
from strop.compiler.util.user_code import blame, file_of


def evaluate(measure: Evaluate | None, run: Callable[[], Run], of: str) -> dict[str, float]:
    """The metrics of one runner, made only if there is a measure; empty without one.

    Args:
        measure: the user's.
        run: makes what is measured.
        of: what that is, for messages: "the artifact".

    Raises:
        UsageError: the measure raised, or returned something other than finite numbers by name.
        RuntimeEndedError: the runtime crashed or hung.
    """
    if measure is None:
        return {}
    try:
        found = measure(run())
    except (UsageError, RuntimeEndedError):
        raise
    except Exception as error:
        raise UsageError(f"evaluate raised {blame(error, file_of(measure))}") from error
    if not isinstance(found, Mapping) or not all(map(_is_number, found.values())):
        raise UsageError(f"evaluate returned {found!r}; it must return numbers by name")
    metrics = {str(name): float(value) for name, value in found.items()}
    for name, value in metrics.items():
        if not math.isfinite(value):  # a manifest is JSON, which has neither NaN nor infinity
            raise UsageError(
                f"evaluate returned {value} for '{name}' of {of}; give a finite number"
            )
    return metrics


def _is_number(value: Any) -> bool:
    """Whether a metric is a number: of Python or NumPy, a truth value, or a tensor of no axes."""
    if isinstance(value, torch.Tensor):
        return value.ndim == 0 and not value.is_complex()
    return isinstance(value, (int, float, np.integer, np.floating, np.bool_))


def module_runner(module: torch.nn.Module, signature: Signature) -> Run:
    """The original module as ``run(**inputs) -> tuple of arrays``."""

    def run(**inputs: Any) -> tuple[Array, ...]:
        tensors = {n: torch.as_tensor(value) for n, value in inputs.items()}
        outputs = run_original(module, signature, tensors)
        return tuple(to_array(t) for t in outputs.values())

    return run
