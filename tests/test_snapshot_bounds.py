"""The reader of snapshots: each refusal by its reason, each bound from both sides."""

from __future__ import annotations

import json
import math
import operator
from pathlib import Path
from typing import Any

import pytest
import sympy
import torch
from program_tools import program_of
from safetensors.torch import save_file
from test_hostile_programs import ARGUMENTS, DAMAGE, ROWS, Values, X, call, node, program
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots import weight_store
from strop.compiler.ir.snapshots.reader import (
    _require_few_pieces,
    load_inputs,
    load_program,
)
from strop.compiler.ir.snapshots.schema import SnapshotValues
from strop.compiler.ir.snapshots.size_arithmetic import (
    _require_short,
    require_bounded,
    stand_in,
)
from strop.compiler.ir.snapshots.weight_store import WeightStore, read_tensors
from strop.compiler.ir.snapshots.writer import save_inputs, save_program
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import validated
from strop.compiler.util.operators import require_kinds

aten = torch.ops.aten
# By what a refusal says, each kind of damage that the reader itself looks for.
REASONS: dict[str, tuple[str, ...]] = {
    "or that is no name for one": (
        "a node called like code", "a node with no name", "a node called like a keyword",
        "a name with a command", "a name twice", "a name that is taken",
    ),
    "its last node returns nothing": (
        "no output", "an output of no list", "an output of nothing",
    ),
    "it returns before its last node": ("an output in the middle", "nodes after the output"),
    "it returns something that is not a value": ("an output of a number",),
    "has no dtype": ("no dtype",),
    "there is no dtype 'f31'": ("an unknown dtype",),
    "'rows' has a size outside its range": ("a symbol outside its range", "a range from above"),
    "is not the name of a weight": ("a weight elsewhere", "a weight by a path"),
    "No such file": ("a weight that is not there",),
    "names the weight '__class__', which it lacks": ("a weight that no one has",),
    "raised to a power that is not a small number": (
        "a power of numbers", "a power of a size", "a size as exponent",
    ),
    "the arithmetic on sizes fails": (
        "a negative power of zero", "a division by zero", "more numbers than a call takes",
    ),
    "has more than 63 bits": ("squares of squares",),
    "an expression that is too long": ("an expression that doubles",),
    "on something that is not a size": (
        "a list times a number", "a text times a number", "arithmetic on a tensor",
    ),
    "picks a result where there are none": (
        "an element of a tensor", "an element of a number", "an element by a text",
    ),
    "are too large together": (
        "a large tensor", "a long range", "a tensor that doubles", "many large tensors",
        "an expanded tensor", "a padded tensor", "many classes",
    ),
    "splits a value into more than 4096 pieces": (
        "many pieces", "many chunks", "many sections", "all of a long axis",
    ),
    "is not known here": (
        "another device", "a device that is none", "the device of no data",
        "a layout that is none", "an unknown kind", "a node before it is there",
        "a node by a number", "a float that is a number",
    ),
    "is no ScalarType": (
        "a number for a dtype", "a number for a dtype by name", "a truth value for a dtype",
    ),
    "is no Layout": ("a number for a layout",),
    "is no MemoryFormat": ("a number for a format",),
    "is no Device": ("a text for a device",),
    "an argument is of no known kind": ("two kinds",),
    "makes other sizes from data than it names": (
        "a size of the data without a name", "a name without a size of the data",
    ),
}  # fmt: skip
KINDS = [(kind, says) for says, kinds in REASONS.items() for kind in kinds]


def read(folder: Path, values: Values) -> Program:
    (folder / "e.json").write_text(json.dumps(values))
    return load_program(folder / "e.json")


def refusal(folder: Path, values: Values) -> str:
    with pytest.raises(UsageError) as raised:
        read(folder, values)
    return str(raised.value)


@pytest.mark.parametrize(("kind", "says"), KINDS, ids=[kind for kind, _ in KINDS])
def test_what_is_damaged_is_refused_for_that_reason(tmp_path: Path, kind: str, says: str) -> None:
    values = program(*ARGUMENTS.get(kind, ()))
    if kind in DAMAGE:
        DAMAGE[kind](values)
    said = refusal(tmp_path, values)
    assert says in said
    # What the reader itself says needs no name of an exception before it.
    assert "Error: " not in said.replace("Value error", "") or says == "No such file"


def test_the_last_node_is_the_output(tmp_path: Path) -> None:
    values = program()
    values["nodes"][-1]["op"] = "placeholder"
    assert "its last node returns nothing" in refusal(tmp_path, values)


def test_what_only_torch_finds_bears_the_name_of_its_error(tmp_path: Path) -> None:
    said = refusal(tmp_path, program(*ARGUMENTS["an index out of range"]))
    assert "or was damaged: IndexError: Dimension out of range" in said
    assert len(said.splitlines()) == 1


SPLITS: dict[str, tuple[Any, Any]] = {
    "split": (aten.split.Tensor, lambda n: ((2, n), 1, 1)),
    "split from the right": (aten.split.Tensor, lambda n: ((2, 3 * n), 3, -1)),
    "split the first axis": (aten.split.Tensor, lambda n: ((5 * n, 2), 5)),
    "unbind": (aten.unbind.int, lambda n: ((2, n), 1)),
    "unbind the first axis": (aten.unbind.int, lambda n: ((n, 2),)),
    "chunk": (aten.chunk.default, lambda n: ((2, 3), n, 1)),
    "sections": (aten.tensor_split.sections, lambda n: ((2, 3), n)),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_a_value_is_split_into_so_many_pieces_and_no_more(kind: str) -> None:
    target, arguments = SPLITS[kind]
    for count in (4096, 4097):
        graph = torch.fx.Graph()
        whole = graph.placeholder("x")
        shape, *more = arguments(count)
        whole.meta["val"] = torch.empty(shape, device="meta")
        made = graph.call_function(target, (whole, *more))
        if count == 4096:
            _require_few_pieces(made)
        else:
            with pytest.raises(UsageError, match="more than 4096 pieces"):
                _require_few_pieces(made)


def test_pieces_by_a_size_are_counted_at_that_size(tmp_path: Path) -> None:
    read(tmp_path, program(ROWS, call("p", "aten.split.Tensor", X, node("rows"), 1)))
    read(tmp_path, program(ROWS, call("p", "aten.tensor_split.sections", X, node("rows"), 1)))
    rows = [ROWS, call("o", "aten.ones.default", [3 * 4096 + 1])]
    said = refusal(
        tmp_path, program(*rows, call("p", "aten.split.Tensor", node("o"), node("rows")))
    )
    assert "more than 4096 pieces" in said
    # No length is a size to divide by: torch says so itself.
    assert "RuntimeError" in refusal(tmp_path, program(call("p", "aten.split.Tensor", X, 0)))


def test_a_size_in_a_node_counts_as_the_number_that_it_is() -> None:
    graph = torch.fx.Graph()
    whole, each = graph.placeholder("x"), graph.placeholder("n")
    whole.meta["val"], each.meta["val"] = torch.empty(3 * 4096, device="meta"), 3
    _require_few_pieces(graph.call_function(aten.split.Tensor, (whole, each)))


def test_an_argument_of_another_kind_than_text_is_not_known(tmp_path: Path) -> None:
    said = refusal(tmp_path, program(call("p", "aten.neg.default", {"node": ["x"]})))
    assert "the argument node = ['x'] is not known here" in said


def test_all_values_together_have_so_many_bytes_and_no_more(tmp_path: Path) -> None:
    left = 2**32 - 3 * 8 * 4  # of x
    for dtype, width in (("i8", 1), ("f32", 4)):
        most = left // width
        for count, fits in ((most, True), (most + 1, False)):
            values = program(call("p", "aten.ones.default", [count], dtype={"dtype": dtype}))
            if fits:
                read(tmp_path, values)
            else:
                assert "up to %p are too large together" in refusal(tmp_path, values)


def test_a_weight_allows_sixteen_bytes_for_each_of_its_own(tmp_path: Path) -> None:
    digest = WeightStore(tmp_path / "weights").put(torch.ones(10))
    weight = {"name": "w", "op": "get_attr", "target": "w"}
    most = (2**32 - 3 * 8 * 4) // 4 + 16 * 10
    for count in (most, most + 1):
        values = program(weight, call("p", "aten.ones.default", [count]))
        values["weights"] = {"w": digest}
        if count == most:
            read(tmp_path, values)
        else:
            assert "are too large together" in refusal(tmp_path, values)


@pytest.mark.parametrize(
    ("low", "hint", "high", "fits"),
    [
        (3, 3, 3, True), (3, 3, None, True), (0, 3, 3, True), (4, 3, None, False),
        (0, 3, 2, False), (0, 2, 5, True), (4, 4, 3, False),
    ],
)  # fmt: skip
def test_a_dim_was_traced_at_a_size_within_its_range(
    tmp_path: Path, low: int, hint: int, high: int | None, fits: bool
) -> None:
    values = program()
    values["symbols"]["s0"] = {"name": "rows", "min": low, "max": high, "hint": hint}
    if fits:
        made = read(tmp_path, values)
        size = next(iter(made.graph.nodes)).meta["val"].shape[0]
        bounds = size.node.shape_env.bound_sympy(size.node.expr)
        assert (bounds.lower, size.node.hint) == (low, hint)
        assert bounds.upper == (sympy.oo if high is None else high) or not bounds.upper.is_Integer
    else:
        assert "a size outside its range" in refusal(tmp_path, values)


def test_a_snapshot_has_so_many_nodes_and_sizes_so_many_bits_and_no_more() -> None:
    values = program()
    one = values["nodes"][0]
    bounds = SnapshotValues.model_fields["nodes"].metadata
    assert [getattr(bound, "max_length", None) for bound in bounds] == [None, 100_000]
    for size, fits in ((2**48 - 1, True), (2**48, False), (0, True), (-1, False)):
        values["nodes"] = [{**one, "shape": [size]}]
        if fits:
            validated(SnapshotValues, values, "it")
        else:
            with pytest.raises(UsageError, match="shape"):
                validated(SnapshotValues, values, "it")
    values["nodes"] = [one]
    for hint, fits in ((1, False), (2, True), (2**48 - 1, True), (2**48, False)):
        values["symbols"]["s0"]["hint"] = hint
        if fits:
            validated(SnapshotValues, values, "it")
        else:
            with pytest.raises(UsageError, match="symbols.s0.hint"):
                validated(SnapshotValues, values, "it")


def test_where_a_node_comes_from_is_read(tmp_path: Path) -> None:
    made = call("y", "aten.neg.default", X)
    made |= {"source": "a:b.py:31", "modules": [["up", "Linear"], ["up.act", "GELU"]]}
    first = read(tmp_path, program(made | {"made_by": "a pass"}, result="y")).outputs[0]
    assert first.meta["stack_trace"] == 'File "a:b.py", line 31'
    assert list(first.meta["nn_module_stack"].values()) == [("up", "Linear"), ("up.act", "GELU")]
    assert first.meta["made_by"] == "a pass"
    bare = read(tmp_path, program(call("y", "aten.neg.default", X), result="y")).outputs[0]
    assert not {"stack_trace", "nn_module_stack", "made_by"} & set(bare.meta)


def everything(a: Tensor, b: Tensor) -> Any:
    """Arguments of every kind that JSON has no form for, and every kind that it has."""
    rows = a.shape[0]
    masked = a.masked_fill(a > 0, -math.inf).clamp(min=-math.inf, max=math.inf)
    wide = a.to(torch.float64).clone(memory_format=torch.contiguous_format)
    made = torch.full((rows, 2), math.nan, dtype=torch.float16, device="cpu")
    ranges = torch.arange(rows * 2 - 1, dtype=torch.int32)
    best = a.max(1)
    masked = masked.clamp(max=1.0) * 0.5 + 2
    return masked, wide, made, ranges, best[0], best[1], F_GELU(a), a[:, 1:], b.sum(), W + a[:1]


W = torch.linspace(0, 1, 6)


def F_GELU(a: Tensor) -> Tensor:  # noqa: N802
    return torch.nn.functional.gelu(a, approximate="tanh")


@pytest.mark.parametrize("ends", [(2, 9), None])
def test_a_program_reads_back_as_it_was_written(
    tmp_path: Path, ends: tuple[int, int] | None
) -> None:
    a, b = torch.randn(4, 6), torch.ones(3, dtype=torch.bool)
    made = program_of(everything, a, b, dims={0: {0: ("rows", *ends) if ends else "rows"}})
    save_program(made, tmp_path / "e.json", WeightStore(tmp_path / "weights"))
    read_back = load_program(tmp_path / "e.json")
    assert str(read_back) == str(made)
    assert (list(read_back.symbols.values()), read_back.contract) == (["rows"], made.contract)
    assert read_back.origins == made.origins and set(read_back.weights) == set(made.weights)
    symbols = json.loads((tmp_path / "e.json").read_text())["symbols"]
    first = made.graph.find_nodes(op="placeholder")[0]
    rows = first.meta["val"].shape[0].node.hint
    assert list(symbols.values()) == [
        {"name": "rows", "min": 2, "max": ends[1] if ends else None, "hint": rows}
    ]
    for got, want in zip(
        read_back.run(input_0=a, input_1=b), made.run(input_0=a, input_1=b), strict=True
    ):
        torch.testing.assert_close(got, want, equal_nan=True)


def test_parameters_stay_parameters(tmp_path: Path) -> None:
    made = program_of(lambda a, w: a * w, torch.ones(3), w=torch.ones(3))
    made.weights["constant"] = torch.ones(2)
    save_program(made, tmp_path / "e.json", WeightStore(tmp_path / "weights"))
    kinds = {n: type(w) for n, w in load_program(tmp_path / "e.json").weights.items()}
    assert kinds == {n: type(w) for n, w in made.weights.items()}
    assert set(kinds.values()) == {torch.nn.Parameter, Tensor}


@pytest.mark.parametrize("argument", [3 + 1j, object(), {"a": 1}])
def test_an_argument_that_a_snapshot_cannot_hold_is_refused(tmp_path: Path, argument: Any) -> None:
    made = program_of(lambda a: a + 1, torch.ones(3))
    (call_node,) = made.calls()
    call_node.kwargs = {"alpha": argument}
    with pytest.raises(UsageError, match="a snapshot cannot hold the argument"):
        save_program(made, tmp_path / "e.json", WeightStore(tmp_path))


def test_a_function_that_a_snapshot_cannot_hold_is_refused(tmp_path: Path) -> None:
    made = program_of(lambda a: a + 1, torch.ones(3))
    (call_node,) = made.calls()
    call_node.target = operator.xor
    with pytest.raises(UsageError, match="which a snapshot cannot hold"):
        save_program(made, tmp_path / "e.json", WeightStore(tmp_path))


def contract() -> Values:
    """Two inputs that share a dim, and one of a fixed size."""
    values = program()
    spec = values["contract"]["inputs"][0]
    place = values["nodes"][0]
    for name in ("y", "z"):
        values["contract"]["inputs"].append({**spec, "name": name})
        values["nodes"].insert(-1, {**place, "name": name, "target": name})
    return values


GIVEN: dict[str, tuple[dict[str, Tensor], str]] = {
    "what it takes": ({n: torch.ones(3, 8) for n in "xyz"}, ""),
    "at another size": ({n: torch.ones(5, 8) for n in "xyz"}, ""),
    "one less": ({n: torch.ones(3, 8) for n in "xy"}, "other inputs"),
    "one more": ({n: torch.ones(3, 8) for n in "xyzw"}, "other inputs"),
    "unequal dims": ({n: torch.ones(3 + (n == "z"), 8) for n in "xyz"}, "holds 'z' as"),
    "another size": ({n: torch.ones(3, 8 + (n == "y")) for n in "xyz"}, "holds 'y' as"),
    "another size first": ({n: torch.ones(3, 8 + (n == "x")) for n in "xyz"}, "holds 'x' as"),
    "another rank": ({n: torch.ones(3, 8, 1) for n in "xyz"}, "holds 'x' as"),
    "a lower rank": ({n: torch.ones(3) for n in "xyz"}, "holds 'x' as"),
    "another dtype": ({n: torch.ones(3, 8).long() for n in "xyz"}, "the program takes f32"),
}


@pytest.mark.parametrize("kind", GIVEN)
def test_inputs_beside_a_snapshot_are_those_that_it_takes(tmp_path: Path, kind: str) -> None:
    inputs, says = GIVEN[kind]
    made = read(tmp_path, contract())
    save_inputs(inputs, tmp_path)
    if says:
        with pytest.raises(UsageError, match=says):
            load_inputs(tmp_path, made)
    else:
        found = load_inputs(tmp_path, made)
        assert {n: t.shape for n, t in found.items()} == {n: t.shape for n, t in inputs.items()}


def test_inputs_are_written_in_order_whatever_their_strides(tmp_path: Path) -> None:
    given = torch.arange(24.0).view(8, 3).t()
    save_inputs({"x": given}, tmp_path)
    assert torch.equal(load_inputs(tmp_path, read(tmp_path, program()))["x"], given)


NUMBERS: list[tuple[Any, tuple[Any, ...], Any]] = [
    (operator.add, (2**63 - 2, 1), 2**63 - 1),
    (operator.add, (2**63 - 1, 1), "more than 63 bits"),
    (operator.sub, (2 - 2**63, 1), 1 - 2**63),
    (operator.sub, (1 - 2**63, 1), "more than 63 bits"),
    (operator.neg, (2**63 - 1,), 1 - 2**63),
    (operator.neg, (2**63,), "not a size"),
    (operator.neg, (-2**63,), "not a size"),
    (operator.neg, (1 - 2**63,), 2**63 - 1),
    (operator.pow, (1, 64), 1),
    (operator.pow, (1, 65), "not a small number"),
    (operator.pow, (1, -64), 1),
    (operator.pow, (1, -65), "not a small number"),
    (operator.pow, (2, 62), 2**62),
    (operator.pow, (2, 63), "more than 63 bits"),
    (operator.pow, (2,), "not a small number"),
    (operator.pow, (2, 3, 5), "not a small number"),
    (operator.pow, (2, 0.5), 2**0.5),
    (operator.mul, (3, "a"), "not a size"),
    (operator.mul, (3, [2]), "not a size"),
    (operator.eq, (3, True), False),
    (torch.sym_sum, ([1, 2, 3],), 6),
    (torch.sym_sum, ([1, 2**63],), "not a size"),
    (torch.sym_max, (3, 5), 5),
    (operator.truediv, (1, 0), "arithmetic on sizes fails"),
    (math.floor, (math.inf,), "not a size"),
    (operator.lt, (1, math.nan), "not a size"),
]  # fmt: skip


@pytest.mark.parametrize(("function", "args", "wanted"), NUMBERS)
def test_arithmetic_on_sizes_is_bounded(function: Any, args: Any, wanted: Any) -> None:
    if isinstance(wanted, str):
        with pytest.raises(UsageError, match=wanted):
            require_bounded(function, args, {})
    else:
        assert require_bounded(function, args, {}) == wanted


def test_an_expression_has_so_many_parts_and_no_more() -> None:
    symbols = sympy.symbols("a0:500")
    _require_short(sympy.Add(*symbols[:499]))
    with pytest.raises(UsageError, match="an expression that is too long"):
        _require_short(sympy.Add(*symbols))


def test_what_stands_for_a_size_is_at_least_two(tmp_path: Path) -> None:
    sizes = {}
    for less in range(4):
        values = program(ROWS, call("p", "operator.sub", node("rows"), less))
        *_, less_rows = read(tmp_path, values).calls()
        sizes[3 - less] = stand_in(less_rows.meta["val"])
    assert sizes == {0: 2, 1: 2, 2: 2, 3: 3}
    assert (stand_in(5), stand_in(True), stand_in("5"), stand_in(None)) == (5, True, None, None)
    for number in (2**63, -(2**63)):
        with pytest.raises(UsageError, match="more than 63 bits"):
            stand_in(number)
    assert stand_in(1 - 2**63) == 1 - 2**63


def test_kinds_of_arguments_are_held_to_the_schema() -> None:
    to, ones = aten.to.dtype, aten.ones.default
    require_kinds(to, (None, torch.float32), {})
    require_kinds(ones, ([3],), {"dtype": None, "device": torch.device("cpu")})
    require_kinds(ones, ([3],), {"dtype": torch.int64, "layout": torch.strided})
    require_kinds(aten.clone.default, (None,), {"memory_format": torch.preserve_format})
    for target, args, kwargs, kind in (
        (to, (None, 6), {}, "ScalarType"), (to, (None,), {"dtype": 6}, "ScalarType"),
        (ones, ([3],), {"dtype": True}, "ScalarType"), (ones, ([3],), {"layout": 0}, "Layout"),
        (ones, ([3],), {"device": "cpu"}, "Device"),
        (aten.clone.default, (None,), {"memory_format": 0}, "MemoryFormat"),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=f"is no {kind}"):
            require_kinds(target, args, kwargs)


TENSORS = {
    "plain": torch.arange(6.0).view(2, 3),
    "turned": torch.arange(6.0).view(2, 3).t(),
    "empty": torch.zeros(0, 3),
    "a number": torch.tensor(2.0),
    "bfloat16": torch.ones(3, dtype=torch.bfloat16),
    "bools": torch.tensor([True, False]),
}


def test_a_weight_is_kept_once_under_its_content(tmp_path: Path) -> None:
    store = WeightStore(tmp_path / "w")
    names = {name: store.put(tensor) for name, tensor in TENSORS.items()}
    assert len(set(names.values())) == len(TENSORS) == len(list((tmp_path / "w").iterdir()))
    again = WeightStore(tmp_path / "w")
    for name, tensor in TENSORS.items():
        assert store.put(tensor) == again.put(tensor.clone()) == names[name]
        assert torch.equal(again.get(names[name]), tensor)
        assert again.get(names[name]) is again.get(names[name])
    # Of another shape or dtype, but of the same bytes, it is another weight.
    assert store.put(torch.arange(6.0)) != names["plain"]
    assert store.put(torch.zeros(0)) != names["empty"]
    assert store.put(torch.tensor([1, 0], dtype=torch.uint8)) != names["bools"]


def test_the_content_of_a_weight_is_looked_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = []
    real = weight_store._digest
    monkeypatch.setattr(weight_store, "_digest", lambda t: (looked.append(1), real(t))[1])
    store = WeightStore(tmp_path)
    digest = store.put(TENSORS["plain"])
    assert store.put(TENSORS["plain"]) == digest and len(looked) == 1
    assert store.get(digest) is store.get(digest) and len(looked) == 2


def test_a_weight_that_is_there_is_not_written_again(tmp_path: Path) -> None:
    digest = WeightStore(tmp_path).put(TENSORS["plain"])
    (path,) = tmp_path.iterdir()
    path.chmod(0o444)
    before = path.stat().st_mtime_ns
    assert WeightStore(tmp_path).put(TENSORS["plain"].clone()) == digest
    assert path.stat().st_mtime_ns == before


def test_what_is_no_weight_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    digest = WeightStore(folder).put(TENSORS["plain"])
    path = folder / f"{digest}.safetensors"
    for name in ("", "a" * 31, "a" * 33, "A" * 32, f"{digest}x", "g" * 32):
        with pytest.raises(UsageError, match="is not the name of a weight"):
            WeightStore(folder).get(name)
    for tensors in (
        {"weight": torch.zeros(2, 3)}, {"weights": TENSORS["plain"]},
        {"weight": TENSORS["plain"], "more": TENSORS["plain"].clone()},
    ):  # fmt: skip
        save_file(tensors, path)
        with pytest.raises(UsageError, match="has changed since it was written"):
            WeightStore(folder).get(digest)
    path.write_bytes(b"no tensors")
    with pytest.raises(UsageError, match="is damaged"):
        WeightStore(folder).get(digest)
    save_file({"c": torch.zeros(2, dtype=torch.float8_e5m2)}, path)
    with pytest.raises(UsageError, match="holds 'c' of torch.float8_e5m2, which is not read"):
        read_tensors(path, "the weight", within=folder)
