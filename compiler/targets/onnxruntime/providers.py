"""Which of ONNX Runtime's providers start on this machine.

``get_available_providers`` names what the package was built with. Whether a provider finds its
libraries and a device shows only in a session, which takes the CPU in its place without an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

import onnxruntime as ort
from onnx import TensorProto, helper

CPU = "CPUExecutionProvider"
_WARNINGS, _NOTHING = 2, 4


def started(providers: Sequence[str]) -> tuple[str, ...]:
    """Those of the providers that start, in order; the CPU's always does."""
    return tuple(name for name in providers if name == CPU or _starts(name))


@cache
def _starts(provider: str) -> bool:
    if provider not in ort.get_available_providers():
        return False
    # That it does not start is the answer, and no error for the user's terminal.
    ort.set_default_logger_severity(_NOTHING)
    try:
        session = ort.InferenceSession(_smallest_model(), providers=[provider, CPU])
    finally:
        ort.set_default_logger_severity(_WARNINGS)  # as it is by default: it cannot be asked for
    return provider in session.get_providers()


def _smallest_model() -> bytes:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy")
    graph = helper.make_graph([helper.make_node("Identity", ["x"], ["y"])], "nothing", [x], [y])
    opset = helper.make_opsetid("", 17)
    model: bytes = helper.make_model(graph, opset_imports=[opset], ir_version=8).SerializeToString()
    return model
