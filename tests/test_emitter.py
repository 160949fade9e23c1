"""The lowered graph beside its numbers: names, what is shared, what is left out, what is told."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import torch
import torch.nn.functional as F
from program_tools import program_of, session
from test_lowering import ints, x
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.lower.choices import Choices
from strop.compiler.lower.onnx.candidates import emit_call
from strop.compiler.lower.onnx.dtypes import DTYPES, onnx_dtype
from strop.compiler.lower.onnx.emitter import MICROSOFT, Emitter
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.lower.onnx.refusal import NotLowered
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UnsupportedError

MATRIX, WEIGHT = x(4, 6), x(6, 6, seed=1)
ROWS = {0: {0: "rows"}}


def lowered(program: Program) -> Any:
    return lower_to_onnx(program, get_target("cpu"), Choices({}))


def emitter(program: Program | None = None) -> Emitter:
    program = program or program_of(lambda a: a + 1, MATRIX)
    return Emitter(program, get_target("cpu"), Choices({}), emit_call)


def outputs(model: Any) -> list[str]:
    return [value.name for node in model.graph for value in node.outputs]


def inputs(model: Any) -> list[list[str | None]]:
    return [[v.name if v is not None else None for v in n.inputs] for n in model.graph]


def test_a_value_bears_the_name_of_its_node_and_what_helps_it_a_number() -> None:
    program = program_of(lambda a: F.silu(a).exp() + 1, MATRIX, dims=ROWS)
    model = lowered(program)
    silu, exp, add = (node.name for node in program.calls())
    assert [node.name for node in model.graph] == [f"{silu}.1", silu, exp, add]
    assert outputs(model) == [f"{silu}.1", silu, exp, program.contract.outputs[0].name]
    assert [i.name for i in model.graph.inputs] == ["input_0"]
    assert (model.ir_version, model.producer_name, model.graph.name) == (10, "strop", "strop")
    assert dict(model.graph.opset_imports) == {"": get_target("cpu").opset, MICROSOFT: 1}


def test_weights_keep_their_names_and_constants_bear_those_of_their_nodes() -> None:
    program = program_of(lambda a, w: a @ w + torch.arange(6.0).exp(), MATRIX, w=WEIGHT)
    names = set(lowered(program).graph.initializers)
    (weight,) = program.weights
    (made,) = (n.name for n in program.calls() if "exp" in str(n.target))
    assert names == {weight, made}


def test_a_weight_that_nothing_reads_is_left_out() -> None:
    program = program_of(lambda a, w, v: (a @ w, a.diff(n=1) * 1)[0], MATRIX, w=WEIGHT, v=WEIGHT)
    assert len(lowered(program).graph.initializers) == 1


def test_names_of_callers_are_theirs() -> None:
    class Named(torch.nn.Module):
        def forward(self, exp: Tensor) -> dict[str, Tensor]:
            return {"add": exp.exp(), "exp_1": exp + 1, "const_0": exp.neg()}

    from strop.compiler import Model
    from strop.compiler.frontend.export.capture import capture
    from strop.compiler.frontend.inputs import read_inputs

    model = Model(Named().eval(), {"exp": MATRIX})
    signature, example, _ = read_inputs(model)
    made = lowered(capture(model.module, signature, example))
    assert [o.name for o in made.graph.outputs] == ["add", "exp_1", "const_0"]
    every = [*outputs(made), *(i.name for i in made.graph.inputs), *made.graph.initializers]
    assert len(set(every)) == len(every)


def test_an_output_that_is_an_input_a_weight_or_given_twice_is_a_value_of_its_own() -> None:
    def function(a: Tensor, w: Tensor) -> tuple[Tensor, ...]:
        b = a.exp()
        return a, w, b, b, a

    program = program_of(function, MATRIX, w=WEIGHT)
    model = lowered(program)
    names = [o.name for o in program.contract.outputs]
    assert [o.name for o in model.graph.outputs] == names and len(set(names)) == 5
    assert [n.op_type for n in model.graph].count("Identity") == 4
    found = session(program).run(None, {"input_0": MATRIX.numpy()})
    for got, want in zip(found, function(MATRIX, WEIGHT), strict=True):
        np.testing.assert_allclose(got, want.numpy(), rtol=1e-6)


def test_types_and_shapes_of_the_callers_values_are_said() -> None:
    model = lowered(program_of(lambda a, i: (a * 2, i[:, 0]), MATRIX, ints(4, 6), dims=ROWS))
    first, second = model.graph.inputs
    assert [str(d) for d in first.shape] == ["rows", "6"]
    assert (first.dtype, second.dtype) == (ir.DataType.FLOAT, ir.DataType.INT64)
    assert [str(d) for d in model.graph.outputs[0].shape] == ["rows", "6"]
    assert model.graph.outputs[1].dtype == ir.DataType.INT64


def test_equal_constants_are_one_and_others_are_not() -> None:
    on = emitter()
    one = on.constant([1, 2])
    assert on.constant(np.array([1, 2])) is one
    others = [
        on.constant([1, 2], torch.int32), on.constant([[1, 2]]), on.constant([1, 3]),
        on.constant(1), on.constant([1]),
    ]  # fmt: skip
    names = {value.name for value in (one, *others)}
    assert len(names) == len(others) + 1
    assert {one.name, *on.initializers} == set(on.initializers)
    zeros = (on.constant(0.0, torch.float32), on.constant(-0.0, torch.float32))
    assert zeros[0] is not zeros[1]
    assert one.const_value.numpy().dtype == np.int64 and list(one.shape) == [2]


def test_names_are_numbered_from_the_first_free_one() -> None:
    on = emitter()
    assert [on.unique("a"), on.unique("a"), on.unique("a")] == ["a", "a.1", "a.2"]
    assert [on.unique("b", start=1), on.unique("b"), on.unique("b", start=1)] == [
        "b.1", "b", "b.2",
    ]  # fmt: skip


def test_a_value_is_made_once_for_a_key() -> None:
    on = emitter()
    made = []

    def make() -> Any:
        made.append(1)
        return on.constant([len(made)])

    assert on.once("a", make) is on.once("a", make)
    assert on.once("b", make) is not on.once("a", make)
    assert len(made) == 2


def test_a_size_is_computed_once() -> None:
    def function(a: Tensor) -> tuple[Tensor, ...]:
        rows = a.shape[0]
        made = tuple(torch.full((2 * rows + 1,), float(k)) for k in range(3))
        return (*made, a.new_zeros(rows, rows), a * (2 * rows + 1))

    model = lowered(program_of(function, MATRIX, dims=ROWS))
    kinds = [node.op_type for node in model.graph]
    assert (kinds.count("Shape"), kinds.count("Add")) == (1, 1)


def test_optional_inputs_left_out_at_the_end_leave_nothing_behind() -> None:
    program = program_of(lambda a, w: F.linear(a, w), MATRIX, w=WEIGHT)
    model = lowered(program)
    assert all(None not in given for given in inputs(model))
    on = emitter()
    value = on.constant([1.0], torch.float32)
    made = on.op("Clip", value, None, value, None, min_of=None, keep=1)
    node = made.producer()
    assert len(node.inputs) == 3 and node.inputs[1] is None
    assert list(node.attributes) == ["keep"]


def test_what_is_computed_is_no_weight() -> None:
    program = program_of(lambda a, w: (a.exp(), w.abs()), MATRIX, w=WEIGHT)
    on = emitter(program)
    exp, absolute = program.calls()
    with pytest.raises(NotLowered, match=f"%{exp.name} is no weight, but computed from inputs"):
        on.derived([exp], lambda a: a)
    made = on.derived([absolute], lambda w: w[:2] + 1, "named")
    assert (made.name, list(made.shape)) == ("named", [2, 6])
    np.testing.assert_allclose(made.const_value.numpy(), WEIGHT.abs()[:2] + 1)
    assert on.derived([absolute], lambda w: w).name == f"{on.node.name}.weight"


def test_an_int8_grid_is_shared_where_it_is_used_again() -> None:
    strop = torch.ops.strop

    def function(a: Tensor, w: Tensor) -> Tensor:
        scale = strop.int8_scale(w)
        once = strop.linear_w8a8(a, w, scale, None)
        return strop.linear_w8a8(once, w, scale, None) + a @ strop.stored_int8(w, scale).t()

    program = program_of(function, MATRIX, w=WEIGHT)
    model = lowered(program)
    grids = {n: v for n, v in model.graph.initializers.items() if v.dtype == ir.DataType.INT8}
    (weight,) = program.weights
    assert sorted(grids) == [f"{weight}.int8", f"{weight}.int8.1"]
    first, second = (grids[n].const_value.numpy() for n in sorted(grids))
    np.testing.assert_array_equal(first, second.T)


def test_everything_that_nothing_lowers_is_told_and_nothing_else() -> None:
    def function(a: Tensor) -> Tensor:
        values, vectors = torch.linalg.eig(a @ a.mT)
        drawn = torch.rand_like(a)
        return (
            (drawn @ a.mT).exp() + torch.view_as_real(values).sum() + torch.bernoulli(a.abs())[0, 0]
        )

    with pytest.raises(UnsupportedError) as raised:
        lowered(program_of(function, x(4, 4)))
    said = str(raised.value)
    assert "rand_like" in said and "bernoulli" in said and "linalg_eig" in said
    assert "exp" not in said.replace("expand", "").replace("expected", "").replace("export", "")
    assert int(said.split("no lowering for ")[1].split()[0]) == len(said.splitlines()) - 1


def test_a_number_that_depends_on_the_data_and_is_not_known_is_refused() -> None:
    on = emitter(program_of(lambda a: a.nonzero(), MATRIX))
    (found,) = on.program.calls()
    with pytest.raises(NotLowered, match="a number that depends on the data"):
        on.size(found.meta["val"].shape[0])


def test_dtypes_are_onnxs_or_refused() -> None:
    for dtype, known in DTYPES.items():
        assert onnx_dtype(dtype) == known
        assert known.name.lower().startswith(("float", "double", "bfloat", "int", "uint", "bool"))
    with pytest.raises(NotLowered, match="strop writes no torch.complex64"):
        onnx_dtype(torch.complex64)


def test_an_input_of_a_dtype_that_onnx_lacks_is_refused() -> None:
    program = program_of(lambda a: a + 1, MATRIX)
    (given,) = program.graph.find_nodes(op="placeholder")
    given.meta["val"] = given.meta["val"].to(torch.complex64)
    with pytest.raises(UnsupportedError, match="an input cannot be given: strop writes no torch"):
        lowered(program)


def test_a_kernel_that_the_runtime_lacks_is_refused_by_name() -> None:
    on = emitter()
    wide = on.constant([1.0], torch.float64)
    with pytest.raises(NotLowered, match="no kernel of Erf in double"):
        on.op("Erf", wide)
    assert on.op("Erf", wide, domain=MICROSOFT) is not None
    both = on.op("Split", wide, outputs=2)
    with pytest.raises(NotLowered, match="no kernel of Erf in double"):
        on.op("Erf", both[1])
    assert isinstance(on.op("Exp", wide, outputs=1), ir.Value) and len(both) == 2


RESHAPED: dict[str, tuple[Any, list[int] | None]] = {
    "to itself": (lambda a: a.reshape(a.shape) + 1, None),
    "one axis merged": (lambda a: a.reshape(a.shape[0], -1), [0, 6]),
    "behind a kept axis": (lambda a: a.reshape(a.shape[0], 3, 2), [0, 3, 2]),
    "the rows moved": (lambda a: a.reshape(2, a.shape[0], 3), [2, -1, 3]),
    "the rows doubled": (lambda a: a.reshape(a.shape[0] * 2, 3), [-1, 3]),
}


@pytest.mark.parametrize("name", RESHAPED)
def test_a_reshape_says_what_it_can_without_arithmetic(name: str) -> None:
    function, wanted = RESHAPED[name]
    model = lowered(program_of(function, x(4, 2, 3), dims={0: {0: ("rows", 1, 9)}}))
    found = [
        n.inputs[1].const_value.numpy().tolist() for n in model.graph if n.op_type == "Reshape"
    ]
    assert found == ([] if wanted is None else [wanted])
    assert "Shape" not in {n.op_type for n in model.graph}


@pytest.mark.parametrize("low", [0, 1])
def test_where_an_axis_may_be_empty_all_sizes_are_said(low: int) -> None:
    def function(a: Tensor) -> tuple[Tensor, ...]:
        return a.reshape(a.shape[0], 3, 2), a.reshape(a.shape[0] * 2, 3)

    program = program_of(function, MATRIX, dims={0: {0: ("rows", low, 9)}})
    model = lowered(program)
    zeros = [n.attributes.get_int("allowzero", 0) for n in model.graph if n.op_type == "Reshape"]
    assert zeros == ([1, 0] if low == 0 else [0, 0])
    run = session(program)
    for rows in (low, 1, 5):
        given = x(rows, 6)
        for got, want in zip(run.run(None, {"input_0": given.numpy()}), function(given)):
            np.testing.assert_array_equal(got, want.numpy())
