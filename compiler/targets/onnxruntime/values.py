"""Look inside a written ONNX file: its text, and every value that it computes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort

from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.compiler.util.files.reading import read_bytes
from strop.compiler.util.numerics import Array

# What protobuf takes.
MOST_BYTES = 2**31

_WEIGHTS_FOLDER = "session.model_external_initializers_file_folder_path"


def file_text(path: Path) -> str:
    """One node a line: ``%linear = MatMul(%input, %weight)``."""
    return "\n".join(_line(node) for node in read_model(path).graph.node)


def read_model(path: Path) -> onnx.ModelProto:
    """The model in a file, without its external data.

    Raises:
        UsageError: the file is not an ONNX model.
    """
    content = read_bytes(path, "the model", most_bytes=MOST_BYTES)
    try:
        return onnx.load_model_from_string(content)
    except Exception as error:  # protobuf has exceptions of its own, by its backend
        raise UsageError(f"{path} is not an ONNX model, or was damaged: {error}") from error


def _line(node: Any) -> str:
    results = ", ".join(f"%{name}" for name in node.output if name)
    inputs = ", ".join(f"%{name}" if name else "-" for name in node.input)
    return f"{results} = {node.op_type}({inputs})"


def file_values(path: Path, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """Run a file without the runtime's own fusions; every tensor computed, by name, in order.

    Raises:
        RuntimeRefusedError: the runtime does not load or run it.
    """
    model = read_model(path)
    given = {o.name for o in model.graph.output}
    names = [name for node in model.graph.node for name in node.output if name]
    model.graph.output.extend(onnx.ValueInfoProto(name=n) for n in names if n not in given)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    # External weights stay where they are: the runtime takes no copy by a link.
    options.add_session_config_entry(_WEIGHTS_FOLDER, str(path.parent.resolve()))
    try:
        session = ort.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
        wanted = {i.name for i in session.get_inputs()}
        found = session.run(names, {n: a for n, a in feeds.items() if n in wanted})
    except Exception as error:  # the runtime raises many types; the message is reported
        raise RuntimeRefusedError(f"{path} does not run with all its values: {error}") from error
    return {n: v for n, v in zip(names, found) if isinstance(v, np.ndarray)}
