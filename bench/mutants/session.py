"""pytest within a forked copy of this process."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch

# What strop and its tests import from others: imported once here, not in every copy.
THIRD_PARTY = (
    "hypothesis",
    "jinja2",
    "numpy",
    "onnx",
    "onnx_ir",
    "onnxruntime",
    "onnxscript",
    "onnxscript.function_libs.torch_lib.ops.core",
    "pydantic",
    "rich.console",
    "safetensors.torch",
    "sympy",
    "torch",
    "torch._dynamo",
    "torch._export",
    "torch.export",
    "torch.onnx",
    "torch.onnx._internal.exporter._registration",
    "typer",
)
# The quick tests, without what makes pytest slow to start and to end.
QUICK = (
    *("-m", "not slow", "--assert=plain"),
    *("-p", "no:cacheprovider", "-p", "no:anyio", "-p", "no:xdist", "-p", "no:unraisableexception"),
)


def preload() -> None:
    """Import what is slow to import and never mutated, and what a first export imports late."""
    for name in THIRD_PARTY:
        import_module(name)
    dynamic = [{0: torch.export.Dim("n")}]
    torch.export.export(torch.nn.Identity(), (torch.zeros(2, 3),), dynamic_shapes=dynamic)


def run_pytest(arguments: Sequence[str], plugins: Sequence[Any], root: Path) -> int:
    """Run pytest in this process with strop imported anew; returns its exit status.

    What the tests write stays in the folder for temporary files, for whoever made that.
    """
    for name in [n for n in sys.modules if n.split(".")[0] == "strop"]:
        del sys.modules[name]
    os.chdir(root)
    written = Path(tempfile.gettempdir()) / f"tests-{os.getpid()}"
    places = [f"--rootdir={root}", f"--basetemp={written}"]
    return int(pytest.main([*QUICK, *places, *arguments], plugins=list(plugins)))
