"""How long a launch takes, measured on a GPU: what ``--tune`` chooses configurations by.

Give ``measured_seconds`` to ``strop.kernels.selection.select`` in place of the model, in a process
that does not interpret kernels.
"""

from __future__ import annotations

import os
from typing import Any

import torch
from torch import Tensor

from strop.kernels.architecture import Architecture
from strop.kernels.gate import Checked
from strop.kernels.kernel import Configuration, Launch
from strop.kernels.launching import launch as run

# Milliseconds for which a launch is repeated, before and while it is timed.
_WARM_UP, _TIMED = 10, 40


class MeasureError(Exception):
    """Nothing can be measured here; the message is a sentence that says why."""


def measured_seconds(checked: Checked, launch: Launch, configuration: Configuration) -> float:
    """The median time of a launch on the current device, the L2 cache emptied before each.

    Args:
        checked: the variant of this launch and configuration; Triton compiles it once more.
        launch: all of its sizes are plain numbers; its tensors are taken to be zeros.
        configuration: how it is compiled.

    Raises:
        MeasureError: there is no CUDA device, or it has another architecture.
    """
    need_device(checked.architecture)
    from triton.testing import do_bench

    arguments = {name: _on_device(value) for name, value in launch.arguments.items()}
    milliseconds = do_bench(
        lambda: run(launch.kernel, arguments, launch.constants, configuration),
        warmup=_WARM_UP, rep=_TIMED, return_mode="median",
    )  # fmt: skip
    return float(milliseconds) / 1e3


def need_device(architecture: Architecture) -> None:
    """Refuse to measure where the kernels of an architecture do not run.

    Raises:
        MeasureError: there is no CUDA device, or it has another architecture.
    """
    if not torch.cuda.is_available():
        raise MeasureError(
            "measuring kernels needs a CUDA device, and there is none here; without measuring, "
            "configurations are chosen by a model"
        )
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise MeasureError("kernels are interpreted here (TRITON_INTERPRET=1), not compiled")
    major, minor = torch.cuda.get_device_capability()
    if 10 * major + minor != architecture.capability:
        raise MeasureError(
            f"kernels for {architecture.name} cannot be measured on "
            f"{torch.cuda.get_device_name()}, which is sm{major}{minor}"
        )


def _on_device(value: Any) -> Any:
    if not isinstance(value, Tensor):
        return value
    made = torch.empty_strided(value.shape, value.stride(), dtype=value.dtype, device="cuda")
    return made.zero_()
