"""Snapshots that a stranger wrote: what they call, name and compute is refused or bounded."""

from __future__ import annotations

import json
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import run_strop
from hostile_tools import Stranger, in_time, stranger  # noqa: F401
from safetensors.torch import save_file

import strop.compiler.lower.onnx.rules  # noqa: F401  (fills the table)
from strop.compiler.debug import apart
from strop.compiler.ir.snapshots.allowed import allowed_operator
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.lower.onnx.table import TABLE
from strop.compiler.util.errors import UsageError

CODE = "x=__import__('pathlib').Path('canary').touch()"
Values = dict[str, Any]


def call(name: str, target: str, *args: Any, **kwargs: Any) -> Values:
    return {
        "name": name,
        "op": "call_function",
        "target": target,
        "args": list(args),
        "kwargs": kwargs,
    }


def node(name: str) -> Values:
    return {"node": name}


X, ROWS = node("x"), call("rows", "aten.sym_size.int", node("x"), 0)


def program(*calls: Values, result: str = "x", shape: list[Any] | None = None) -> Values:
    """A snapshot of calls on one input ``x`` of ``[s0, 8]``."""
    spec = {"name": "x", "dtype": "f32", "shape": ["rows", 8]}
    returned = {"name": "y", "dtype": "f32", "shape": shape or ["rows", 8]}
    place = {
        "name": "x",
        "op": "placeholder",
        "target": "x",
        "dtype": "f32",
        "shape": ["s0", 8],
    }
    end = {"name": "output", "op": "output", "target": "output", "args": [[node(result)]]}
    return {
        "strop_snapshot": 1,
        "contract": {
            "inputs": [spec],
            "outputs": [returned],
            "dims": [{"name": "rows", "min": 0, "max": None}],
        },
        "symbols": {"s0": {"name": "rows", "min": 0, "max": None, "hint": 3}},
        "weights": {},
        "trained": [],
        "origins": {},
        "nodes": [place, *calls, end],
    }


def handed(stranger: Stranger, values: Values, x: torch.Tensor | None = None) -> tuple[Any, ...]:  # noqa: F811
    """Write a snapshot with its inputs; returns the command that compares it with itself."""
    folder = stranger.given / "theirs"
    folder.mkdir()
    (folder / "e.json").write_text(json.dumps(values))
    save_file({"x": torch.ones(3, 8) if x is None else x}, folder / "inputs.safetensors")
    return ("debug", "diff", folder / "e.json", folder / "e.json")


def test_a_program_of_this_form_is_read_and_run(stranger: Stranger) -> None:  # noqa: F811
    values = program(ROWS, call("y", "aten.mul.Tensor", X, X), result="y")
    result = stranger.read(*handed(stranger, values))
    assert result.code == 0, result.err
    assert "1 values are in both" in result.out


OPERATORS = (
    "os.system", "builtins.eval", "operator.attrgetter", "operator.methodcaller", "torch.load",
    "aten.save.default", "aten.from_file.default", "aten.relu_.default", "aten.add.out",
    "aten.as_strided.default", "aten._reshape_alias.default", "aten.set_.source_Storage",
    "aten.resize.default", "aten._resize_output.default", "aten._foobar.default",
    "aten._print.default", "aten.record_stream.default", "aten._cufft_clear_plan_cache.default",
    "aten.max_pool2d_with_indices_backward.default", "aten.embedding_dense_backward.default",
    "aten._sparse_coo_tensor_unsafe.default", "aten.segment_reduce.default",
    "aten._nested_view_from_buffer.default", "aten.quantized_lstm.input",
    "aten.special_zeta.default", "aten.special_legendre_polynomial_p.default",
    "aten.polygamma.default", "aten.matrix_power.default",
    "aten.mkldnn_convolution.default", "aten.cudnn_convolution.default",
    "aten.fractional_max_pool2d.default", "aten.ctc_loss.Tensor", "aten._fused_dropout.default",
    "aten._weight_int4pack_mm_for_cpu.default", "aten._sobol_engine_draw.default",
    "aten._index_put_impl.default", "aten.embedding_renorm.default", "aten.combinations.default",
    "prims.copy_to.default", "quantized.linear.default", "profiler._record_function_enter.default",
    "debugprims.load_tensor.default", "inductor.resize_storage_bytes_.default", "strop.no.default",
    "strop.__class__.__init__", "aten.__class__.mro", "aten.relu.__class__", "aten.relu.op",
    "aten.relu.default.default", "aten..default", "..", "", "aten", "aten.relu", "__class__.a.b",
)  # fmt: skip


@pytest.mark.parametrize("target", OPERATORS)
def test_an_operator_that_does_more_than_compute_is_refused(target: str) -> None:
    with pytest.raises(UsageError, match="not an operator that programs from files may call"):
        allowed_operator(target)


def test_an_operator_that_is_refused_is_refused_by_the_command(stranger: Stranger) -> None:  # noqa: F811
    values = program(call("y", "aten.from_file.default", "outside/secret", False, 3))
    assert "aten.from_file.default" in stranger.refused(*handed(stranger, values))


def test_what_is_lowered_may_be_called() -> None:
    # detach_ writes to nothing, but looks as if it did: no program holds it. resize may give
    # memory that nobody wrote.
    left_out = {f"aten.{name}.default" for name in ("detach_", "resize", "resize_as")}
    names = {str(target) for target in TABLE} - left_out
    # What decompositions are made of is in the table too, and so are operators of other tests.
    captured = sorted(n for n in names if n.startswith(("aten.", "strop.")))
    assert len(captured) > 200
    for name in captured:
        assert str(allowed_operator(name)) == name


def _set(*path: Any) -> Callable[[Values], None]:
    """Put the last of the path at the place that the others lead to."""
    *places, key, value = path

    def change(values: Any) -> None:
        for place in places:
            values = values[place]
        values[key] = value

    return change


def _drop(*path: Any) -> Callable[[Values], None]:
    *places, key = path

    def change(values: Any) -> None:
        for place in places:
            values = values[place]
        del values[key]

    return change


DAMAGE: dict[str, Callable[[Values], None]] = {
    "an input called like code": _set("nodes", 0, "target", CODE),
    "a node called like code": _set("nodes", 0, "name", CODE),
    "a node with no name": _set("nodes", 0, "name", ""),
    "a node called like a keyword": _set("nodes", 0, "name", "class"),
    "a name with a command": _set("nodes", 0, "name", "\x1b]52;c;eA==\x07"),
    "no output": _drop("nodes", -1),
    "no nodes": _set("nodes", []),
    "an output in the middle": lambda v: v["nodes"].insert(1, v["nodes"][-1]),
    "nodes after the output": lambda v: v["nodes"].append(v["nodes"][0]),
    "an output of a number": _set("nodes", -1, "args", [[3]]),
    "an output of no list": _set("nodes", -1, "args", [3]),
    "an output of nothing": _set("nodes", -1, "args", []),
    "an output of a size": lambda v: (v["nodes"].insert(1, ROWS),
                                      v["nodes"][-1].update(args=[[node("rows")]])),
    "two outputs": _set("nodes", -1, "args", [[X, X]]),
    "an output of another dtype": _set("contract", "outputs", 0, "dtype", "i64"),
    "an output of another rank": _set("contract", "outputs", 0, "shape", [3]),
    "an input of another name": _set("contract", "inputs", 0, "name", "z"),
    "no dtype": _drop("nodes", 0, "dtype"),
    "an unknown dtype": _set("nodes", 0, "dtype", "f31"),
    "an unknown symbol": _set("nodes", 0, "shape", ["s1", 8]),
    "a negative size": _set("nodes", 0, "shape", ["s0", -8]),
    "a huge size": _set("nodes", 0, "shape", ["s0", 2**62]),
    "many huge sizes": _set("nodes", 0, "shape", [2**40] * 60),
    "a size in words": _set("nodes", 0, "shape", ["s0", "8"]),
    "a symbol that is too large": _set("symbols", "s0", "hint", 2**60),
    "a symbol outside its range": _set("symbols", "s0", "max", 2),
    "a range from above": _set("symbols", "s0", "min", 9),
    "a symbol of another type": _set("symbols", "s0", "hint", "3"),
    "a weight that is not there": _set("weights", {"w": "0" * 32}),
    "a weight elsewhere": _set("weights", {"w": "../../outside/secret"}),
    "a weight by a path": _set("weights", {"w": "/etc/hostname"}),
    "a trained weight that is none": _set("trained", ["w"]),
    "a weight that no one has": lambda v: v["nodes"].insert(
        1, {"name": "w", "op": "get_attr", "target": "__class__"}),
    "a method": lambda v: v["nodes"].insert(
        1, {"name": "w", "op": "call_method", "target": "numpy", "args": [X]}),
    "a module": lambda v: v["nodes"].insert(
        1, {"name": "w", "op": "call_module", "target": "m", "args": [X]}),
    "a format of the future": _set("strop_snapshot", 2),
    "no format": _drop("strop_snapshot"),
    "a format that is true": _set("strop_snapshot", "1"),
    "nodes that are none": _set("nodes", {"0": 1}),
    "a node that is none": _set("nodes", 0, 3),
    "an origin that is none": _set("origins", {"w": 3}),
    "a dim without end or beginning": _set("contract", "dims", [{"name": "rows"}]),
    "modules that are none": _set("nodes", 0, "modules", [["a"]]),
    "sizes that nothing makes": _set("nodes", 0, "makes", 3),
}  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_snapshot_that_is_not_whole_is_refused(stranger: Stranger, damage: str) -> None:  # noqa: F811
    values = program()
    DAMAGE[damage](values)
    assert "the snapshot" in stranger.refused(*handed(stranger, values))


def chain(count: int, target: str, first: str, *more: Any) -> list[Values]:
    """``v1 = target(v0, v0)``, ``v2 = target(v1, v1)`` and so on."""
    names = [first, *(f"v{i}" for i in range(1, count + 1))]
    return [call(b, target, node(a), *(more or (node(a),))) for a, b in zip(names, names[1:])]


HALVES = [
    part
    for i in range(60)
    for part in (
        call(f"h{i}", "operator.floordiv", node(f"g{i}"), 2),
        call(f"g{i + 1}", "operator.add", node(f"g{i}"), node(f"h{i}")),
    )
]
ARGUMENTS: dict[str, list[Values]] = {
    "a power of numbers": [call("p", "operator.pow", 10, 10**9)],
    "a power of a size": [ROWS, call("p", "operator.pow", node("rows"), 10**9)],
    "a size as exponent": [ROWS, call("p", "operator.pow", 2, node("rows"))],
    "a negative power of zero": [call("p", "operator.pow", 0, -1)],
    "a division by zero": [ROWS, call("p", "operator.floordiv", node("rows"), 0)],
    "squares of squares": [ROWS, *chain(70, "operator.mul", "rows")],
    "an expression that doubles": [ROWS, call("g0", "operator.add", node("rows"), 0), *HALVES],
    "a list times a number": [call("p", "operator.mul", [0], 10**9)],
    "a text times a number": [call("p", "operator.mul", "a", 10**9)],
    "arithmetic on a tensor": [call("p", "operator.mul", X, 10**9)],
    "an element of a tensor": [call("p", "operator.getitem", X, 0)],
    "an element of a number": [call("p", "operator.getitem", 3, 0)],
    "an element by a text": [
        call("m", "aten.max.dim", X, 1), call("p", "operator.getitem", node("m"), "a"),
    ],
    "an element that is not there": [
        call("m", "aten.max.dim", X, 1), call("p", "operator.getitem", node("m"), 7),
    ],
    "more numbers than a call takes": [call("p", "math.floor", 1, 2, 3)],
    "a large tensor": [call("p", "aten.ones.default", [10**6, 10**6])],
    "a larger tensor": [call("p", "aten.ones.default", [2**62, 2**62])],
    "a tensor of negative size": [call("p", "aten.ones.default", [-5])],
    "a long range": [call("p", "aten.arange.default", 10**12)],
    "a tensor that doubles": [
        call(f"v{i + 1}", "aten.cat.default", [node(f"v{i}" if i else "x")] * 2, 1)
        for i in range(45)
    ],
    "many large tensors": [
        call(f"p{i}", "aten.ones.default", [2**15, 2**13]) for i in range(20)
    ],
    "an expanded tensor": [call("p", "aten.repeat.default", X, [2**20, 2**20])],
    "a padded tensor": [call("p", "aten.constant_pad_nd.default", X, [0, 2**45], 0)],
    "many classes": [
        call("i", "aten.ones.default", [3], dtype={"dtype": "i64"}),
        call("p", "aten.one_hot.default", node("i"), 2**45),
    ],
    "many pieces": [
        call("o", "aten.ones.default", [2**24]), call("p", "aten.split.Tensor", node("o"), 1),
    ],
    "many chunks": [call("p", "aten.chunk.default", X, 10**9)],
    "many sections": [call("p", "aten.tensor_split.sections", X, 10**9)],
    "all of a long axis": [
        call("o", "aten.ones.default", [2**24]), call("p", "aten.unbind.int", node("o")),
    ],
    "another device": [call("p", "aten.ones.default", [3], device={"device": "cuda"})],
    "a device that is none": [call("p", "aten.ones.default", [3], device={"device": "hpu:7"})],
    "the device of no data": [call("p", "aten.ones.default", [3], device={"device": "meta"})],
    "a layout that is none": [call("p", "aten.ones.default", [3], layout={"torch": "jagged"})],
    "a number for a dtype": [call("p", "aten.to.dtype", X, -1)],
    "a number for a dtype by name": [call("p", "aten.ones.default", [3], dtype=99)],
    "a truth value for a dtype": [call("p", "aten.view.dtype", X, True)],
    "a number for a layout": [call("p", "aten.ones.default", [3], layout=-7)],
    "a number for a format": [call("p", "aten.clone.default", X, memory_format=64)],
    "a text for a device": [call("p", "aten.ones.default", [3], device="cpu")],
    "an unknown kind": [call("p", "aten.ones.default", {"code": "1"})],
    "two kinds": [call("p", "aten.ones.default", {"node": "x", "dtype": "f32"})],
    "a node before it is there": [call("p", "aten.neg.default", node("q"))],
    "a node by a number": [call("p", "aten.neg.default", {"node": 3})],
    "a float that is a number": [call("p", "aten.mul.Scalar", X, {"float": "1e5"})],
    "no arguments": [call("p", "aten.neg.default")],
    "too many arguments": [call("p", "aten.neg.default", X, X, X)],
    "a size of the data without a name": [call("p", "aten.nonzero.default", X)],
    "a name without a size of the data": [call("p", "aten.neg.default", X) | {"makes": ["u0"]}],
    "an argument of no name": [call("p", "aten.neg.default", X, __class__=3)],
    "an argument twice": [call("p", "aten.neg.default", X, self=X)],
    "a text for a tensor": [call("p", "aten.neg.default", "x")],
    "an index out of range": [call("p", "aten.select.int", X, 9, 0)],
    "a name twice": [call("p", "aten.neg.default", X)] * 2,
    "a name that is taken": [call("x", "aten.neg.default", X)],
}  # fmt: skip


@pytest.mark.parametrize("kind", ARGUMENTS)
def test_a_call_that_is_none_or_without_bounds_is_refused(stranger: Stranger, kind: str) -> None:  # noqa: F811
    said = stranger.refused(*handed(stranger, program(*ARGUMENTS[kind])))
    assert "is not a program, or was damaged" in said


# What only shows when it is run, and would end, stop or fill the process that runs it.
RUN: dict[str, list[Values]] = {
    "an index that is not there": [
        call("i", "aten.full.default", [3], 10**9, dtype={"dtype": "i64"}),
        call("p", "aten.index_select.default", X, 0, node("i")),
    ],
    "counts without bounds": [
        call("i", "aten.full.default", [3], 10**13, dtype={"dtype": "i64"}),
        call("p", "aten.repeat_interleave.self_Tensor", X, node("i"), 0) | {"makes": ["u0"]},
    ],
    "a count of bins from the data": [
        call("i", "aten.full.default", [3], 10**12, dtype={"dtype": "i64"}),
        call("p", "aten.bincount.default", node("i")) | {"makes": ["u0"]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("kind", RUN)
def test_a_program_that_cannot_be_run_is_a_sentence(stranger: Stranger, kind: str) -> None:  # noqa: F811
    said = stranger.refused(*handed(stranger, program(*RUN[kind])))
    assert "the program cannot be run" in said


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT])
def test_a_snapshot_that_crashes_while_it_is_read_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: signal.Signals
) -> None:
    """Torch's own types of calls are code in C++, which may crash; this one always does."""
    (tmp_path / "e.json").write_text(json.dumps(program()))
    monkeypatch.setattr(apart, "load_program", lambda _: os.kill(os.getpid(), number))
    with pytest.raises(UsageError, match=f"e.json cannot be read: it crashes .{number.name}"):
        apart.load_apart(tmp_path / "e.json")


def test_a_snapshot_that_is_read_without_end_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(_: Path) -> None:
        while True:
            pass

    (tmp_path / "e.json").write_text(json.dumps(program()))
    monkeypatch.setattr(apart, "SECONDS", 0.1)
    monkeypatch.setattr(apart, "load_program", endless)
    with pytest.raises(UsageError, match="e.json cannot be read: it took more than 1 s"):
        apart.load_apart(tmp_path / "e.json")


INPUTS: dict[str, dict[str, torch.Tensor]] = {
    "none": {},
    "another name": {"z": torch.ones(3, 8)},
    "one too many": {"x": torch.ones(3, 8), "z": torch.ones(1)},
    "another dtype": {"x": torch.ones(3, 8, dtype=torch.int64)},
    "another rank": {"x": torch.ones(3)},
    "another size": {"x": torch.ones(3, 9)},
}


@pytest.mark.parametrize("kind", INPUTS)
def test_inputs_that_a_program_does_not_take_are_refused(stranger: Stranger, kind: str) -> None:  # noqa: F811
    command = handed(stranger, program(call("y", "aten.neg.default", X)))
    save_file(INPUTS[kind], stranger.given / "theirs" / "inputs.safetensors")
    assert "inputs" in stranger.refused(*command)


def test_a_program_of_many_weights_in_one_file_reads_it_once(tmp_path: Path) -> None:
    values = program()
    store = tmp_path / "weights"
    store.mkdir()
    from strop.compiler.ir.snapshots.weight_store import WeightStore

    digest = WeightStore(store).put(torch.ones(2**20))
    values["weights"] = {f"w{i}": digest for i in range(5000)}
    (tmp_path / "e.json").write_text(json.dumps(values))
    with in_time():
        assert len(load_program(tmp_path / "e.json").weights) == 5000


def test_a_weight_under_the_hash_of_another_is_refused(stranger: Stranger) -> None:  # noqa: F811
    first, second = sorted((stranger.given / "ir" / "weights").iterdir())[:2]
    shutil.copyfile(first, second)
    snapshot = "ir/000_capture.json"
    said = stranger.refused("debug", "diff", snapshot, snapshot)
    assert "has changed since it was written" in said


def test_torch_says_nothing_of_a_call_that_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "e.json").write_text(json.dumps(program(call("p", "aten.mm.default", X, X))))
    result = run_strop("debug", "diff", tmp_path / "e.json", tmp_path / "e.json")
    assert result.code == 2
    assert len(result.err.splitlines()) == 1, result.err
