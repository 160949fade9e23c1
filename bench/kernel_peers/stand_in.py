"""A GPU that is not there, for packages that ask for one when they are imported or launch."""

from __future__ import annotations

import os
from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

from strop.kernels.architecture import Architecture


def pretend(architecture: Architecture) -> None:
    """For the rest of this process: torch and Triton say that there is such a GPU.

    Tensors that are made on it lie in memory of the CPU. Nothing can be run on it.
    """
    import torch
    import triton
    from torch.overrides import TorchFunctionMode
    from triton.backends.compiler import GPUTarget

    class OnCpu(TorchFunctionMode):
        """Puts what is made on a CUDA device on the CPU."""

        def __torch_function__(
            self, function: Any, types: Any, args: Any = (), kwargs: Any = None
        ) -> Any:
            kwargs = dict(kwargs or {})
            if "cuda" in str(kwargs.get("device")):
                kwargs["device"] = "cpu"
            return function(*args, **kwargs)

    OnCpu().__enter__()  # type: ignore[no-untyped-call]
    # What FlagGems would look for a vendor's tools for.
    os.environ["GEMS_VENDOR"] = "nvidia"
    facts = _properties(architecture)
    torch.cuda.is_available = lambda: True
    torch.cuda.device_count = lambda: 1
    torch.cuda.current_device = lambda: 0
    torch.cuda.device = nullcontext  # type: ignore[misc,assignment]
    torch.cuda.get_device_capability = lambda *_: (facts.major, facts.minor)
    torch.cuda.get_device_properties = lambda *_: facts
    torch.cuda.get_device_name = lambda *_: architecture.device
    target = GPUTarget("cuda", architecture.capability, architecture.warp_threads)
    most = {"max_shared_mem": architecture.block_shared_memory}
    triton.runtime.driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: target,
            get_current_device=lambda: 0,
            get_active_torch_device=lambda: torch.device("cpu"),
            utils=SimpleNamespace(get_device_properties=lambda _: most),
        )
    )


def _properties(architecture: Architecture) -> Any:
    major, minor = divmod(architecture.capability, 10)
    return SimpleNamespace(
        name=architecture.device,
        major=major,
        minor=minor,
        multi_processor_count=architecture.multiprocessors,
        shared_memory_per_block_optin=architecture.block_shared_memory,
        shared_memory_per_multiprocessor=architecture.shared_memory,
        regs_per_multiprocessor=architecture.registers,
        warp_size=architecture.warp_threads,
        total_memory=80 * 2**30,
    )
