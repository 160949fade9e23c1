"""The lowering as a suspect: values keep their names in the file; the first that moved is told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Strop
from program_tools import program_of

import strop.compiler.lower.onnx.rules  # noqa: F401  (fills the table)
from strop.bench.models.zoo import ZOO
from strop.compiler import build, load_recipe
from strop.compiler.driver.departure import NOISE_DB, RUNTIME, departure, under_ir_names
from strop.compiler.driver.driver import compile_program
from strop.compiler.frontend.source import load_model
from strop.compiler.ir.program import Program
from strop.compiler.ir.values import values
from strop.compiler.lower.choices import shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.lower.onnx.table import TABLE
from strop.compiler.lower.onnx.write import write_model
from strop.compiler.targets.onnxruntime.runtime import OnnxSession
from strop.compiler.targets.onnxruntime.values import file_values
from strop.compiler.targets.target import get_target
from strop.compiler.util.numerics import drift

aten = torch.ops.aten
CPU = get_target("cpu")


def both_values(program: Program, inputs: dict[str, Any], folder: Path) -> tuple[Any, Any]:
    """What the program computes, and what its file does."""
    path = folder / "model.onnx"
    write_model(lower_to_onnx(program, CPU, shipped(CPU)), path)
    found = file_values(path, {n: t.numpy() for n, t in inputs.items()})
    return values(program, inputs), under_ir_names(found, program)


@pytest.mark.parametrize("stop", [pytest.param("capture", marks=pytest.mark.slow), "cse-last"])
@pytest.mark.parametrize(
    "name",
    ["bert", "llama", "swin", "mobilenet-v2"]
    + [pytest.param(name, marks=pytest.mark.slow) for name in ("t5", "textbook")],
)
def test_a_value_of_the_file_is_the_programs_value_of_that_name(
    name: str, stop: str, tmp_path: Path
) -> None:
    model = ZOO[name].make()
    program = compile_program(model, load_recipe("cpu-fp32"), stop)
    assert isinstance(model.example_inputs, dict)
    old, new = both_values(program, model.example_inputs, tmp_path)
    shared = [n for n in old if n in new]
    # Sizes, views and constants have no node of their own in the file.
    assert len(shared) > 20
    wrong = {n for n in shared if old[n].shape != new[n].shape or not _near(old[n], new[n])}
    assert not wrong


def _near(old: Any, new: Any) -> bool:
    return not drift({"": new.astype(old.dtype)}, {"": old}).above(60.0)


def test_what_is_emitted_on_the_way_is_numbered(tmp_path: Path) -> None:
    x, y = torch.randn(3, 4), torch.randn(3, 4)
    program = program_of(lambda x, y: torch.sub(x, y, alpha=3).tanh(), x, y)
    inputs = dict(zip((s.name for s in program.contract.inputs), (x, y)))
    old, new = both_values(program, inputs, tmp_path)
    np.testing.assert_allclose(new["sub"], old["sub"], atol=1e-6)
    np.testing.assert_allclose(new["sub.1"], 3 * y, atol=1e-6)


def test_parts_of_a_split_bear_the_names_of_their_parts(tmp_path: Path) -> None:
    x = torch.randn(3, 8)
    program = program_of(lambda x: torch.mul(*[p.tanh() for p in x.split(4, -1)]), x)
    old, new = both_values(program, {program.contract.inputs[0].name: x}, tmp_path)
    assert {"getitem", "getitem_1"} <= set(old) & set(new)
    np.testing.assert_array_equal(new["getitem_1"], old["getitem_1"])


@pytest.fixture
def wrong_softmax(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lowering that takes another axis."""

    def emit(on: Any, x: Any, dim: int, dtype: Any) -> Any:
        return on.op("Softmax", on.value(x), axis=0)

    monkeypatch.setitem(TABLE, aten.softmax.int, {"default": emit})


@pytest.mark.usefixtures("wrong_softmax")
@pytest.mark.parametrize(
    "check", [("--metric", "cosine", "--min", "0.99"), ("--check", "false")], ids=lambda c: c[0]
)
def test_bisect_goes_on_into_the_lowering(strop: Strop, small: str, check: tuple[str, ...]) -> None:
    result = strop("debug", "bisect", small, *check)
    assert result.code == 0, result.err
    assert "there is no pass to blame, but the lowering" in result.out
    assert "first value that moved: %softmax = aten.softmax.int (model_1.py:" in result.out
    assert "%output = Softmax(%linear_1)" in result.out


def test_a_runtime_that_computes_something_else_is_named(
    small: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load_model(small)
    program = compile_program(model, load_recipe("cpu-fp32"), "capture")
    assert departure(program, model.example_inputs, CPU) is None
    plain = OnnxSession.run
    monkeypatch.setattr(
        OnnxSession, "run", lambda *given: {n: 0.5 * a for n, a in plain(*given).items()}
    )
    found = departure(program, model.example_inputs, CPU)
    assert found is not None
    assert (found.suspect, found.emitted) == (RUNTIME, "")
    assert "max abs" in found.moved


def test_rounding_to_integers_is_no_departure(small: str) -> None:
    model = load_model(small)
    recipe = load_recipe("cpu-int8")
    program = compile_program(model, recipe, recipe.pipeline().steps[-1].name)
    assert "linear_w8a8" in str(program) or "int8" in str(program)
    assert departure(program, model.example_inputs, CPU) is None


def test_a_snapshot_and_its_artifact_agree(strop: Strop, small: str, tmp_path: Path) -> None:
    build(load_model(small), tmp_path / "out", dump_ir=tmp_path / "ir")
    last = max((tmp_path / "ir").glob("*.json"))
    result = strop("debug", "diff", last, tmp_path / "out")
    assert result.code == 0, result.err
    assert "another shape" not in result.out


def test_the_minus_infinity_of_a_mask_is_no_difference() -> None:
    mask = np.array([[0.0, -np.inf], [0.0, 0.0]])
    assert not drift({"m": mask}, {"m": mask}).above(NOISE_DB)
    assert drift({"m": mask}, {"m": mask}).finite
    other = np.array([[0.0, -np.inf], [-np.inf, 0.0]])
    assert drift({"m": other}, {"m": mask}).above(NOISE_DB)
    assert drift({"m": np.maximum(mask, -1e9)}, {"m": mask}).above(NOISE_DB)


def test_another_mask_or_index_is_a_difference() -> None:
    mask = np.array([True, False, True])
    assert drift({"m": ~mask}, {"m": mask}).above(NOISE_DB)
    assert not drift({"m": mask}, {"m": mask}).above(NOISE_DB)
