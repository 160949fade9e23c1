"""Capture: from a module and a signature to a program, or to a clear sentence."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from strop.compiler import Model, build
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.frontend.original import run_original
from strop.compiler.ir.printer import op_name
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.util.errors import UnsupportedError

ROWS: dict[str, Any] = {"x": {0: ("batch", 1, 4), 1: ("seq", 2, 9)}}


class Calls(nn.Module):
    """A linear layer and a function of its result."""

    def __init__(self, function: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.linear = nn.Linear(4, 4)
        self.function = function

    def forward(self, x: Tensor) -> Any:
        return self.function(self.linear(x))


def captured(module: nn.Module, inputs: Any, dynamic: Any = None) -> Program:
    signature, example, _ = read_inputs(Model(module.eval(), inputs, dynamic=dynamic))
    return capture(module, signature, example)


def x(batch: int = 2, seq: int = 5) -> Tensor:
    return torch.randn(batch, seq, 4, generator=torch.Generator().manual_seed(0))


def holds(module: nn.Module, program: Program, inputs: Inputs, dynamic: Any = None) -> None:
    signature, _, _ = read_inputs(Model(module, inputs, dynamic=dynamic))
    want = run_original(module, signature, inputs)
    assert [o.name for o in program.contract.outputs] == list(want)
    for got, expected in zip(program.run(**inputs), want.values(), strict=True):
        torch.testing.assert_close(got, expected)


def names(program: Program) -> list[str]:
    return [op_name(n.target) for n in program.calls()]


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(self.embedding(ids))  # type: ignore[no-any-return]


def test_tied_weights_are_kept_once() -> None:
    program = captured(Tied(), {"ids": torch.tensor([[1, 2, 3]])})
    assert list(program.weights) == ["embedding.weight"]
    assert set(program.origins["embedding.weight"].sources) == {"embedding.weight", "head.weight"}


@dataclass
class Result:
    """An output as people return it."""

    logits: Tensor
    hidden: tuple[Tensor, ...]
    loss: Tensor | None = None


pytree.register_dataclass(Result)


@pytest.mark.parametrize(
    ("function", "expected"),
    [
        (lambda y: y, ["output"]),
        (lambda y: (y, y + 1), ["output_0", "output_1"]),
        (lambda y: {"b": y, "a": y + 1}, ["b", "a"]),
        (lambda y: {"b": y, "a": {"z": [y + 1, None, 3]}}, ["b", "a.z.0"]),
        (lambda y: Result(y, (y + 1, y + 2)), ["logits", "hidden.0", "hidden.1"]),
    ],
)
def test_outputs_have_stable_names(function: Any, expected: list[str]) -> None:
    module = Calls(function)
    program = captured(module, {"x": x()}, ROWS)
    assert [o.name for o in program.contract.outputs] == expected
    holds(module, program, {"x": x(3, 7)}, ROWS)


def test_an_output_that_is_an_input_or_a_weight_or_given_twice(tmp_path: Path) -> None:
    module = Calls(lambda y: y)
    module.function = lambda y: (y, y, module.linear.weight)
    checks = build(Model(module.eval(), {"x": x()}, dynamic=ROWS), out=tmp_path / "o").manifest
    assert max(c["max_error"] for c in checks["checks"]) <= 1e-4


class ManyInputs(nn.Module):
    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(6.0).view(3, 2))
        self.register_buffer("scratch", torch.ones(2), persistent=False)

    def forward(self, ids: Tensor, keep: Tensor, scale: Tensor) -> Tensor:
        rows = self.table[ids] * self.scratch
        return torch.where(keep[..., None], rows * scale, 0.0)


def test_buffers_and_int_bool_and_scalar_inputs() -> None:
    inputs = {
        "ids": torch.tensor([[0, 2], [1, 1]], dtype=torch.int32),
        "keep": torch.tensor([[True, False], [True, True]]),
        "scale": torch.tensor(0.5),
    }
    program = captured(ManyInputs(), inputs)
    assert [i.dtype for i in program.contract.inputs] == ["i32", "bool", "f32"]
    assert set(program.weights) == {"table", "scratch"}
    holds(ManyInputs(), program, inputs)


def test_positional_inputs_are_named_after_parameters() -> None:
    module = ManyInputs().eval()
    inputs = (torch.tensor([[0, 2]]), torch.tensor([[True, False]]), torch.tensor(2.0))
    program = captured(module, inputs)
    assert [i.name for i in program.contract.inputs] == ["ids", "keep", "scale"]


class TakesMore(nn.Module):
    def forward(self, first: Tensor, *rest: Tensor) -> Tensor:
        return first + torch.stack(rest).sum(0)


class TakesNamed(nn.Module):
    def forward(self, first: Tensor, **named: Tensor) -> Tensor:
        return first + torch.stack(list(named.values())).sum(0)


def test_inputs_taken_by_star_parameters() -> None:
    inputs = {"first": x(), "extra": x()}
    program = captured(TakesNamed(), inputs)
    holds(TakesNamed(), program, inputs)
    program = captured(TakesNamed(), inputs, {"first": {0: "batch"}, "extra": {0: "batch"}})
    assert [i.shape[0] for i in program.contract.inputs] == ["batch"] * 2
    holds(TakesNamed(), program, inputs)
    rows = {"input_0": {0: "batch"}, "input_1": {0: "batch"}, "input_2": {0: "batch"}}
    program = captured(TakesMore(), (x(), x(), x()), rows)
    assert [i.shape[0] for i in program.contract.inputs] == ["batch"] * 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_are_computed_in_fp32_with_a_note(
    dtype: torch.dtype, tmp_path: Path
) -> None:
    module = nn.Sequential(nn.Linear(4, 4), nn.GELU()).to(dtype).eval()
    manifest = build(Model(module, (x().to(dtype),)), out=tmp_path / "o").manifest
    kept = "f16" if dtype == torch.float16 else "f32"  # callers in NumPy have no bfloat16
    assert {o["dtype"] for o in manifest["contract"]["outputs"]} == {kept}
    assert any(str(dtype).removeprefix("torch.") in note for note in manifest["notes"])
    assert next(module.parameters()).dtype == dtype


def test_dims_of_one_name_are_one_size() -> None:
    class Add(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    axes: dict[int, Any] = {0: "batch", 1: ("seq", 2, 9)}
    program = captured(Add(), {"a": x(), "b": x()}, {"a": axes, "b": axes})
    assert program.contract.outputs[0].shape == ("batch", "seq", 4)


def test_example_sizes_of_one_or_equal_are_not_taken_for_rules() -> None:
    module = Calls(lambda y: y.transpose(0, 1).reshape(-1, 4))
    for size in ((1, 5), (3, 3), (1, 2)):
        program = captured(module, {"x": x(*size)}, ROWS)
        assert program.contract.inputs[0].shape == ("batch", "seq", 4)
        for batch, seq in ((1, 2), (4, 4), (3, 9)):
            holds(module, program, {"x": x(batch, seq)}, ROWS)


def test_dim_names_that_are_no_identifiers() -> None:
    program = captured(Calls(lambda y: y + 1), {"x": x()}, {"x": {0: "batch size", 1: "2nd-dim"}})
    assert program.contract.inputs[0].shape == ("batch size", "2nd-dim", 4)


@pytest.mark.parametrize(
    "function",
    [
        lambda y: y.relu_().add_(1).mul_(y),
        lambda y: y.masked_fill_(y > 0, 2.0),
        lambda y: torch.zeros_like(y).copy_(y),
        lambda y: nn.functional.dropout(y.flatten(1), training=False, inplace=True).view(-1, 4),
    ],
)
def test_writes_to_new_tensors_leave_the_rest_as_it_was(function: Any) -> None:
    module = Calls(lambda y: nn.functional.layer_norm(function(y), (4,)).reshape(-1, 2))
    program = captured(module, {"x": x()}, ROWS)
    assert {"aten.linear", "aten.layer_norm", "aten.reshape"} <= set(names(program))
    holds(module, program, {"x": x(3, 7)}, ROWS)


def _slices(y: Tensor) -> Tensor:
    y[:, 0] = 1.0
    y[..., 1:3] *= 2
    return y


def _seen_through_a_view(y: Tensor) -> Tensor:
    flat = y.view(-1)
    y.add_(1)
    return flat


@pytest.mark.parametrize("function", [_slices, _seen_through_a_view])
def test_writes_through_views(function: Any) -> None:
    module = Calls(function)
    program = captured(module, {"x": x()}, ROWS)
    holds(module, program, {"x": x(3, 7)}, ROWS)


def test_regions_without_gradient_or_autocast_are_copied_in_line() -> None:
    def function(y: Tensor) -> Tensor:
        with torch.enable_grad():
            y = y + 1
        with torch.autocast("cpu", enabled=False):
            return y * 2

    module = Calls(function)
    holds(module, captured(module, {"x": x()}, ROWS), {"x": x(3, 7)}, ROWS)


def test_padded_encoder_is_captured_by_its_formulas_not_its_fast_path(tmp_path: Path) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    module = nn.TransformerEncoder(layer, 2, enable_nested_tensor=True).eval()
    source = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(2, 5, dtype=torch.bool)
    padding[1, 3:] = True
    axes: dict[int, Any] = {0: ("batch", 1, 3), 1: ("seq", 2, 7)}
    model = Model(
        module,
        {"src": source, "src_key_padding_mask": padding},
        dynamic={"src": axes, "src_key_padding_mask": axes},
    )
    manifest = build(model, out=tmp_path / "o").manifest
    assert max(c["max_error"] for c in manifest["checks"]) <= 1e-4


def test_a_size_that_only_looks_special_is_no_error() -> None:
    def shifted(y: Tensor) -> Tensor:
        result = torch.zeros_like(y)
        result[:, 1:] = y[:, :-1]
        return result

    module = Calls(shifted)
    program = captured(module, {"x": x()}, ROWS)  # at seq = 2 the slice has one element
    for seq in (2, 3, 9):
        holds(module, program, {"x": x(1, seq)}, ROWS)


def _root(y: Tensor) -> Tensor:
    return y / math.sqrt(y.shape[1])


def _halved(y: Tensor) -> Tensor:
    return y[:, : int(y.shape[1] / 2) + 1]


@pytest.mark.parametrize("function", [_root, _halved])
def test_a_dim_that_would_become_a_constant_is_named(function: Any) -> None:
    with pytest.raises(UnsupportedError) as caught:
        captured(Calls(function), {"x": x()}, {"x": {0: "batch", 1: ("token count", 2, 9)}})
    text = str(caught.value)
    assert text.startswith("dim 'token count' is declared dynamic, but the model works with one")
    assert "(5)" in text and caught.value.exit_code == 4


def test_a_dim_of_two_inputs_that_would_become_a_constant_is_named() -> None:
    class Steps(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            both, state = a * b, torch.zeros_like(a[:, 0])
            for step in range(both.shape[1]):
                state = state.cos() + both[:, step]
            return state

    axes = {"a": {1: ("time", 2, 9)}, "b": {1: ("time", 2, 9)}}
    with pytest.raises(UnsupportedError, match="'time' is declared dynamic, .* one size only"):
        captured(Steps(), {"a": x(), "b": x()}, axes)


@pytest.mark.parametrize(
    ("function", "sizes"),
    [
        (lambda y: y + 1 if y.shape[1] > 3 else y - 1, "seq = 2"),
        (lambda y: y + 1 if y.shape[1] % 2 else y - 1, "seq = 2"),
        (lambda y: y + 1 if y.shape[0] == y.shape[1] else y - 1, "batch = 2, seq = 2"),
    ],
)
def test_a_branch_on_sizes_is_found(function: Any, sizes: str) -> None:
    with pytest.raises(UnsupportedError, match="behaves differently") as caught:
        captured(Calls(function), {"x": x()}, ROWS)
    assert sizes in str(caught.value)


def test_dims_that_must_be_equal_are_told() -> None:
    class Add(nn.Module):
        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return a + b

    with pytest.raises(UnsupportedError, match="Dims that are equal take one name"):
        captured(Add(), {"a": x(), "b": x()}, {"a": {1: "p"}, "b": {1: "q"}})


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda y: y + 1 if y.sum() > 0 else y, "decides on a tensor's value at .*test_capture.py"),
        (lambda y: torch.cond(y.sum() > 0, torch.sin, torch.cos, (y,)), "control flow on tensors"),
    ],
)
def test_decisions_on_values_are_refused_with_their_place(function: Any, words: str) -> None:
    with pytest.raises(UnsupportedError, match=words):
        captured(Calls(function), {"x": x()}, ROWS)


class Counts(nn.Module):
    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count.add_(1)
        return x + self.count


def test_state_is_refused_by_name() -> None:
    module = Counts()
    with pytest.raises(UnsupportedError, match="writes to 'count' while it runs"):
        captured(module, {"x": x()}, ROWS)


class Translator(nn.Module):
    """An encoder and a decoder with a mask each, of which nothing is said."""

    def __init__(self, mask: Callable[[int], Tensor]) -> None:
        super().__init__()
        self.mask = mask
        self.layers = nn.Transformer(16, 2, 1, 1, 32, batch_first=True)

    def forward(self, x: Tensor, y: Tensor) -> Any:
        masks = self.mask(x.shape[1]), self.mask(y.shape[1])
        return self.layers(x, y, src_mask=masks[0], tgt_mask=masks[1])


def near(size: int) -> Tensor:
    """Each place looks at its neighbours only."""
    places = torch.arange(size)
    return (places - places[:, None]).abs() > 1


@pytest.mark.parametrize("mask", [nn.Transformer.generate_square_subsequent_mask, near])
def test_masks_of_a_transformer_are_used_without_a_look_at_their_values(
    mask: Callable[[int], Tensor],
) -> None:
    torch.manual_seed(0)
    module = Translator(mask).eval()
    axes = {"x": {1: ("source", 2, 8)}, "y": {1: ("target", 2, 8)}}
    program = captured(module, {"x": torch.randn(2, 5, 16), "y": torch.randn(2, 6, 16)}, axes)
    for source, target in ((2, 8), (8, 2), (5, 5)):
        inputs = {"x": torch.randn(2, source, 16), "y": torch.randn(2, target, 16)}
        torch.testing.assert_close(program.run(**inputs)[0], module(**inputs))
