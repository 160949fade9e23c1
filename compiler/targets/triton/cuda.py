"""A plan on a GPU: its compiled kernels, and one CUDA graph for each set of sizes."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from strop.compiler.targets.target import TritonTarget, get_target
from strop.compiler.targets.triton.bound import BoundLaunch
from strop.compiler.targets.triton.driver import CompiledKernel, driver_version
from strop.compiler.targets.triton.plan import Plan, kernel_file
from strop.compiler.targets.triton.session import PlanSession, Prepared, open_plan
from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.compiler.util.files.reading import MEBIBYTE, read_bytes

# Each holds the memory of a run.
MOST_GRAPHS = 8
_MOST_CUBIN = 16 * MEBIBYTE


def open_on_cuda(folder: Path) -> CudaSession:
    """Open the plan in a folder on the current GPU.

    Raises:
        RuntimeRefusedError: the files are damaged or for another architecture, or the driver does
            not take them.
    """
    plan, weights = open_plan(folder)
    target = get_target(plan.target)
    assert isinstance(target, TritonTarget)
    require_architecture(target.arch)
    return CudaSession(plan, weights, CudaDevice(folder, plan, target.arch))


def require_architecture(arch: str) -> None:
    """Check that the current GPU runs machine code for an architecture.

    It does where it has the same major version and is not older; from sm90 on, only where it is the
    same (CUDA C++ Programming Guide, "Binary Compatibility"). The driver could compile the PTX for
    others, but what that gives was never seen by the gate.

    Raises:
        RuntimeRefusedError: it does not.
    """
    major, minor = torch.cuda.get_device_capability()
    wanted = int(arch.removeprefix("sm"))
    found = 10 * major + minor
    runs = found == wanted if wanted >= 90 else wanted <= found < 10 * (wanted // 10 + 1)
    if not runs:
        raise RuntimeRefusedError(
            f"the artifact was built for {arch}, and {torch.cuda.get_device_name()} is sm{found}: "
            f"build it with --target triton:sm{found}"
        )


class CudaDevice:
    """Runs launches on the current GPU, on torch's current stream."""

    def __init__(self, folder: Path, plan: Plan, arch: str) -> None:
        torch.zeros(1, device="cuda")  # makes the context into which modules are loaded
        self.device = torch.device("cuda", torch.cuda.current_device())
        self._kernels = {
            name: self._loaded(folder, plan, kernel_file(arch, name, "cubin"), name)
            for name in plan.variants
        }

    @staticmethod
    def _loaded(folder: Path, plan: Plan, file: str, name: str) -> CompiledKernel:
        variant = plan.variants[name]
        try:
            cubin = read_bytes(folder / file, "the kernel", most_bytes=_MOST_CUBIN, within=folder)
            return CompiledKernel(cubin, variant.entry, variant.shared_memory, variant.num_warps)
        except UsageError as error:
            raise RuntimeRefusedError(str(error)) from error
        except RuntimeRefusedError as error:
            raise RuntimeRefusedError(
                f"{error}; it needs NVIDIA's driver {plan.driver} or newer, and this one is for "
                f"CUDA {driver_version()}"
            ) from error

    def launch(self, launch: BoundLaunch, arguments: Sequence[Any]) -> None:
        """Run a launch."""
        types, values = [], []
        for (name, kind), value in zip(launch.variant.types.items(), arguments):
            if value is None or name in launch.variant.constants:
                continue
            types.append(kind)
            values.append(value.data_ptr() if isinstance(value, Tensor) else value)
        stream = torch.cuda.current_stream(self.device).cuda_stream
        self._kernels[launch.name].launch(launch.grid, types, values, stream)


@dataclass(frozen=True)
class Captured:
    """A run at given sizes as one launch."""

    graph: torch.cuda.CUDAGraph
    inputs: Sequence[Tensor]
    outputs: Sequence[Tensor]

    def run(self) -> Sequence[Tensor]:
        """Run once; the next run overwrites the outputs."""
        self.graph.replay()
        return self.outputs


class CudaSession(PlanSession):
    """A plan on a GPU; runs at sizes that were seen before are one launch of a CUDA graph.

    Attributes:
        graphs: by sizes, those used last at the end.
    """

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.graphs: OrderedDict[tuple[int, ...], Captured] = OrderedDict()
        self._is_captured = True

    def run_tensors(self, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Run once on tensors of the device; the outputs are new ones."""
        if not self._is_captured:
            return super().run_tensors(inputs)
        key = tuple(self.bound(inputs).sizes.values())
        if key not in self.graphs:
            # The first run is a plain one: torch sets up libraries, which cannot be captured.
            outputs = super().run_tensors(inputs)
            self._keep(key, inputs)
            return outputs
        self.graphs.move_to_end(key)
        captured = self.graphs[key]
        for kept, given in zip(captured.inputs, inputs):
            kept.copy_(given)
        return [output.clone() for output in captured.run()]

    def prepared(self, inputs: Sequence[Tensor]) -> Prepared:
        """A run at the sizes of these inputs: a CUDA graph, where it can be captured."""
        super().run_tensors(inputs)  # sets up libraries, as above
        return self._captured(inputs) or super().prepared(inputs)

    def _keep(self, key: tuple[int, ...], inputs: Sequence[Tensor]) -> None:
        if len(self.graphs) >= MOST_GRAPHS:
            self.graphs.popitem(last=False)
        captured = self._captured(inputs)
        if captured is not None:
            self.graphs[key] = captured

    def _captured(self, inputs: Sequence[Tensor]) -> Captured | None:
        """A graph at the sizes of these inputs; None where the model cannot be captured."""
        if not self._is_captured:
            return None
        own = [tensor.clone() for tensor in inputs]
        graph = torch.cuda.CUDAGraph()
        try:
            with torch.no_grad(), torch.cuda.graph(graph):
                outputs = self.walk(self.bound(own), own)
        except RuntimeError as error:  # an operator of torch's that waits for the GPU
            self._is_captured = False
            said = (str(error).splitlines() or [""])[0]
            warnings.warn(
                f"this model runs without CUDA graphs, step by step: {said}",
                RuntimeWarning,
                stacklevel=2,
            )
            return None
        return Captured(graph, own, outputs)
