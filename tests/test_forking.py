"""Forked copies of a process whose garbage holds threads."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable

import onnxruntime
import pytest
from onnx import TensorProto, helper

from strop.bench.processes.forks import ForkedCall, forked
from strop.compiler.debug.apart import apart


def session_with_threads() -> onnxruntime.InferenceSession:
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, [1]) for n in "xy")
    graph = helper.make_graph([helper.make_node("Neg", ["x"], ["y"])], "g", [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def collect() -> bytes:
    gc.collect()
    return b"collected"


def by_forked() -> bytes:
    (ended,) = forked([ForkedCall(collect, 4.0, None)], 1)
    found: bytes = ended.value
    return found


@pytest.mark.parametrize("run", [by_forked, lambda: apart(collect, 0)], ids=["forked", "apart"])
def test_a_copy_does_not_wait_for_threads_of_sessions_that_are_garbage(
    run: Callable[[], bytes],
) -> None:
    gc.collect()
    gc.disable()
    try:
        cycle: list[object] = [session_with_threads()]
        cycle.append(cycle)
        del cycle
        time.sleep(0.2)  # until its thread waits
        assert run() == b"collected"
    finally:
        gc.enable()
