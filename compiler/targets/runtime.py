"""ONNX Runtime: how a written file is opened and run."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from strop.compiler.targets.target import Target
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import RuntimeRefusedError
from strop.compiler.util.numerics import Array

Run = Callable[..., tuple[Array, ...]]


def open_session(path: Path, target: Target) -> Any:
    """A default ONNX Runtime session on the file.

    Raises:
        RuntimeRefusedError: the runtime does not take the model.
    """
    import onnxruntime as ort

    try:
        return ort.InferenceSession(str(path), providers=list(target.providers))
    except Exception as error:
        raise RuntimeRefusedError(f"ONNX Runtime does not load the model: {error}") from error


def runtime_version() -> str:
    """The version of the runtime that checks and runs artifacts."""
    import onnxruntime as ort

    version: str = ort.__version__
    return version


def run_session(session: Any, feeds: Mapping[str, Array], what: str) -> dict[str, Array]:
    """Run once, on those of the inputs that the file takes; outputs by name.

    Raises:
        RuntimeRefusedError: the runtime does not run the model.
    """
    used = {i.name for i in session.get_inputs()}
    names = [o.name for o in session.get_outputs()]
    try:
        outputs = session.run(None, {n: a for n, a in feeds.items() if n in used})
    except Exception as error:
        raise RuntimeRefusedError(
            f"ONNX Runtime does not run the model ({what}): {error}"
        ) from error
    return dict(zip(names, outputs))


def file_runner(path: Path, target: Target) -> Run:
    """The written file as ``run(**inputs) -> tuple of arrays``."""
    session = open_session(path, target)
    used = [i.name for i in session.get_inputs()]

    def run(**inputs: Any) -> tuple[Array, ...]:
        arrays = {n: to_array(torch.as_tensor(inputs[n])) for n in used}
        return tuple(session.run(None, arrays))

    return run
