"""Plans on a GPU: which ones it takes, and that it gives what torch gives, again and again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from program_tools import program_of
from torch import Tensor
from triton_tools import session_of

from strop.compiler.targets.triton import cuda, driver
from strop.compiler.util.errors import RuntimeRefusedError

NO_GPU = not torch.cuda.is_available()
need_gpu = pytest.mark.skipif(NO_GPU, reason="needs a GPU")
DIMS = {0: {0: ("batch", 1, 8), 1: ("seq", 1, 64)}}


@pytest.mark.parametrize(
    ("arch", "device", "runs"),
    [
        ("sm80", (8, 0), True),
        ("sm80", (8, 6), True),
        ("sm80", (8, 9), True),
        ("sm80", (7, 5), False),
        ("sm80", (9, 0), False),
        ("sm89", (8, 6), False),
        ("sm89", (8, 9), True),
        ("sm90", (9, 0), True),
        ("sm90", (8, 9), False),
        ("sm90", (10, 0), False),
    ],
)
def test_an_architecture_runs_where_its_machine_code_does(
    arch: str, device: tuple[int, int], runs: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: device)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "some GPU")
    if runs:
        cuda.require_architecture(arch)
        return
    with pytest.raises(RuntimeRefusedError, match=f"built for {arch}, and some GPU is sm"):
        cuda.require_architecture(arch)


@pytest.mark.skipif(not NO_GPU, reason="there is a driver here")
def test_without_a_driver_it_says_so() -> None:
    with pytest.raises(RuntimeRefusedError, match="the CUDA driver cannot be loaded"):
        driver.driver_version()


def block(x: Tensor, w: Tensor) -> Any:
    y = F.layer_norm(x, (16,), w)
    return F.linear(F.gelu(y), torch.diag(w)) + x


@need_gpu
def test_runs_at_sizes_that_were_seen_repeat_a_graph() -> None:
    session = session_of(program_of(block, torch.ones(2, 5, 16), dims=DIMS, w=torch.ones(16)))
    assert isinstance(session, cuda.CudaSession)
    for shape in ((2, 5, 16), (3, 7, 16), (2, 5, 16), (3, 7, 16), (2, 5, 16)):
        x = torch.randn(shape)
        (found,) = session.run({"input_0": x.numpy()}).values()
        torch.testing.assert_close(
            torch.from_numpy(found), block(x, torch.ones(16)), rtol=1e-4, atol=1e-4
        )
    assert len(session.graphs) == 2


def test_a_prepared_run_reads_its_inputs_anew() -> None:
    session = session_of(program_of(block, torch.ones(2, 5, 16), dims=DIMS, w=torch.ones(16)))
    given = torch.zeros(2, 5, 16, device=session.device.device)
    prepared = session.prepared([given])
    for _ in range(3):
        x = torch.randn(2, 5, 16)
        prepared.inputs[0].copy_(x)
        (found,) = prepared.run()
        torch.testing.assert_close(found.cpu(), block(x, torch.ones(16)), rtol=1e-4, atol=1e-4)
    assert not given.any()


@need_gpu
def test_no_more_graphs_are_kept_than_that() -> None:
    session = session_of(program_of(block, torch.ones(2, 5, 16), dims=DIMS, w=torch.ones(16)))
    assert isinstance(session, cuda.CudaSession)
    for seq in range(1, cuda.MOST_GRAPHS + 3):
        session.run({"input_0": torch.ones(1, seq, 16).numpy()})
    assert len(session.graphs) == cuda.MOST_GRAPHS


@need_gpu
def test_a_damaged_kernel_is_refused_with_the_driver_that_it_needs(tmp_path: Path) -> None:
    with pytest.raises(RuntimeRefusedError, match="does not load the kernel"):
        driver.CompiledKernel(b"no machine code", "norm_kernel", 0, 4)
