"""Our kernels beside those of others: what a launch is, how bytes are counted, who is better."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

import pytest
import torch
import triton
import triton.language as tl
from kernel_cases import device

from strop.bench.kernel_peers.calls import WORKS, our_norm
from strop.bench.kernel_peers.recorder import Recorder
from strop.bench.kernel_peers.traffic import counted
from strop.bench.measures import kernel_peers
from strop.bench.measures.kernel_peers import Side, verdicts
from strop.kernels.architecture import SM90


def need_interpreter() -> None:
    if device() == "cuda":
        pytest.skip("bytes are counted by the interpreter, and there is a GPU")


@triton.jit
def _kernel(x, y, n, stride, BLOCK: tl.constexpr, EVEN: tl.constexpr = False):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(y + at, tl.load(x + at * stride, mask=at < n), mask=at < n)


def test_a_launch_is_recorded_for_each_configuration_that_a_tuner_would_try() -> None:
    tuned = triton.autotune([triton.Config({"BLOCK": b}, num_warps=2) for b in (16, 32)], ["n"])
    even = triton.heuristics({"EVEN": lambda given: given["n"] % given["BLOCK"] == 0})
    recorder = Recorder(tuned(even(_kernel)))
    x = torch.zeros(48)
    recorder[lambda given: (triton.cdiv(given["n"], given["BLOCK"]),)](x, x, 48, stride=1)
    assert [one.grid for one in recorder.launches] == [(3,), (2,)]
    assert [one.given["EVEN"] for one in recorder.launches] == [True, False]
    assert [one.num_warps for one in recorder.launches] == [2, 2]
    assert dict(recorder.launches[0].configuration)["BLOCK"] == 16


def test_a_configuration_may_be_given() -> None:
    recorder = Recorder(_kernel, {"BLOCK": 64, "num_stages": 5})
    recorder[(1,)](torch.zeros(8), torch.zeros(8), 8, 1)
    (one,) = recorder.launches
    assert (one.given["BLOCK"], one.num_stages, one.given["EVEN"]) == (64, 5, False)


def test_bytes_are_those_of_lanes_that_are_not_masked() -> None:
    need_interpreter()
    x, y = torch.zeros(64), torch.zeros(64)
    assert counted(lambda: _kernel[(2,)](x, y, 40, 1, 32)) == 2 * 40 * 4
    # Rows, the weight once for the rows of a program, and the result.
    assert counted(lambda: our_norm(3, 128)) == (3 * 2 * 128 + 128) * 2
    # All programs read the same number.
    assert counted(lambda: _kernel[(2,)](x, y, 64, 0, 32)) == (2 * 1 + 64) * 4


def side(**changed: Any) -> Side:
    values = {"registers": 32, "spills": 0, "shared_memory": 64, "occupancy": 0.5}
    return Side(**{**values, "bytes_per_element": 4.0, **changed})


def test_less_is_better_but_for_occupancy() -> None:
    better = side(registers=31, occupancy=0.6)
    assert list(verdicts({"ours": better, "peer": side()})) == [1, 0, 0, 1, 0]
    assert list(verdicts({"ours": side(), "peer": better})) == [-1, 0, 0, -1, 0]
    assert list(verdicts({"ours": side(), "peer": "not installed"})) == []


def test_a_peer_that_is_not_installed_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernel_peers, "_installed", lambda work: None)
    monkeypatch.setattr(kernel_peers, "isolated", lambda *_, timeout: 4096)
    monkeypatch.setattr(kernel_peers, "our_kernel", lambda *_: MagicMock())
    monkeypatch.setattr(kernel_peers, "_side", lambda *_: side())
    found = kernel_peers.compare(0, SM90)
    assert found[WORKS[0].package] == "not installed: pip install liger-kernel"
