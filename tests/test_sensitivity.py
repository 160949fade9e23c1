"""What it costs and saves to quantize a layer: measured, estimated, and timed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from program_tools import program_of
from torch import Tensor, nn

from strop.compiler.ir.builder import Builder
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.passes.quantize.control import savings as saving
from strop.passes.quantize.control.distance import cosine, kl
from strop.passes.quantize.control.layers import Layer, quantized_layers
from strop.passes.quantize.control.patch import Patch
from strop.passes.quantize.control.savings import savings
from strop.passes.quantize.control.scheme import Scheme
from strop.passes.quantize.control.sensitivity import Method, Sweep, _estimated
from strop.passes.quantize.dynamic import QuantizeDynamic


class Residual(nn.Module):
    """Linear layers beside a shortcut; the last one gives an output by itself."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(width, 32), nn.Linear(32, width)
        self.again, self.head = nn.Linear(width, width), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = x + self.second(torch.relu(self.first(x)))
        x = torch.tanh(self.again(x)) + self.again(x)
        return self.head(x), x


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    return program_of(Residual(), torch.randn(6, 16))


@pytest.fixture
def context() -> Context:
    torch.manual_seed(1)
    return Context(calibration=[{"input_0": torch.randn(6, 16)} for _ in range(4)])


def all_values(program: Program, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    from strop.compiler.rewriting.batches import on_batch

    values: dict[str, Tensor] = {}
    on_batch(program, batch, watch=lambda node, value: values.update({node.name: value}))
    return values


def test_layers_are_what_a_pass_rewrote_and_those_that_share_a_weight_are_one(
    program: Program,
) -> None:
    layers = Scheme.of(QuantizeDynamic(), program, Context()).layers(program)
    assert [layer.name for layer in layers] == [
        "inner.first.weight", "inner.second.weight", "inner.again.weight", "inner.head.weight"
    ]  # fmt: skip
    assert [len(layer.nodes) for layer in layers] == [1, 1, 2, 1]


def test_a_layer_of_several_weights_joins_those_of_each() -> None:
    def model(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        one = nn.functional.linear(x, torch.cat([a, b]))
        return one + nn.functional.linear(x, torch.cat([b, b]))

    shape = (4, 4)
    program = program_of(model, torch.randn(2, 4), a=torch.randn(shape), b=torch.randn(shape))
    (layer,) = Scheme.of(QuantizeDynamic(), program, Context()).layers(program)
    assert layer.weights == ("inner.a", "inner.b")


def test_what_reads_no_new_weight_is_no_layer(program: Program) -> None:
    assert quantized_layers(program, program) == []
    new = program.clone()
    new.set_weight("inner.head.weight", torch.zeros(5, 16), "test")
    new.set_weight("inner.first.bias", torch.zeros(32), "test")
    assert [layer.name for layer in quantized_layers(program, new)] == ["inner.head.weight"]


def test_a_patched_run_gives_what_the_quantized_program_gives(
    program: Program, context: Context
) -> None:
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    batch = {"input_0": torch.randn(6, 16)}
    values = all_values(program, batch)
    for layer in scheme.layers(program):
        quantized = scheme.alone(program, [layer])
        patch = Patch.between(program, quantized)
        assert patch.changed.keys().isdisjoint(layer.nodes)
        for got, want in zip(patch.run(program, values), quantized.run(**batch)):
            assert torch.equal(got, want)


def test_new_values_of_weights_are_patched_too(program: Program) -> None:
    new = program.clone()
    new.set_weight("inner.second.weight", torch.zeros(16, 32), "test")
    batch = {"input_0": torch.randn(6, 16)}
    patch = Patch.between(program, new)
    got = patch.run(program, all_values(program, batch))
    assert all(torch.equal(a, b) for a, b in zip(got, new.run(**batch)))
    ((_, weight),) = patch.changes(all_values(program, batch))[0].items()
    assert not weight.any()


def test_the_measured_cost_is_the_distance_of_the_outputs(
    program: Program, context: Context
) -> None:
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    layers = scheme.layers(program)
    found = Sweep(batches=3).costs(program, scheme, layers, context)
    assert context.calibration is not None
    batches = list(context.calibration)[:3]
    for layer, cost in zip(layers, found):
        one = scheme.alone(program, [layer])
        wanted = [cosine(one.run(**b), program.run(**b)) for b in batches]
        assert cost == pytest.approx(sum(wanted) / 3, rel=1e-6)
        assert cost > 0


def test_the_estimate_by_gradients_is_near_what_was_measured() -> None:
    """The layers do not share a weight here: a shared one errs twice in one direction."""
    torch.manual_seed(0)
    layers = [nn.Linear(32, 32) for _ in range(4)]
    with torch.no_grad():
        layers[1].weight[:, 0] *= 20
    program = program_of(nn.Sequential(*layers), torch.randn(64, 32))
    context = Context(calibration=[{"input_0": torch.randn(64, 32)} for _ in range(8)])
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    found = scheme.layers(program)
    output, gradient = (
        Sweep(method, batches=8).costs(program, scheme, found, context)
        for method in ("output", "gradient")
    )
    assert output.index(max(output)) == gradient.index(max(gradient))
    for measured, estimated in zip(output, gradient):
        assert estimated == pytest.approx(measured, rel=0.6)


def test_a_call_with_several_results_is_estimated_by_all_of_them() -> None:
    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.packed, self.head = nn.Linear(16, 48), nn.Linear(16, 4)

        def forward(self, x: Tensor) -> Tensor:
            a, b, c = self.packed(x).split(16, -1)
            return self.head(a * b + c)  # type: ignore[no-any-return]

    torch.manual_seed(0)
    program = program_of(Packed(), torch.randn(32, 16))
    context = Context(calibration=[{"input_0": torch.randn(32, 16)} for _ in range(8)])
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    layers = scheme.layers(program)
    output, gradient = (
        Sweep(method).costs(program, scheme, layers, context) for method in ("output", "gradient")
    )
    assert output[0] > 0
    assert gradient[0] == pytest.approx(output[0], rel=0.6)


def test_the_estimate_runs_the_program_once_for_each_batch(
    program: Program, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strop.passes.quantize.control import sensitivity

    ran: list[object] = []

    def run(*arguments: object) -> object:
        ran.append(arguments)
        return original(*arguments)

    original = sensitivity._run  # type: ignore[attr-defined]
    monkeypatch.setattr(sensitivity, "_run", run)
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    Sweep("gradient", batches=2).costs(program, scheme, scheme.layers(program), context)
    assert len(ran) == 2


def test_costs_are_the_same_each_time(program: Program, context: Context) -> None:
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    layers = scheme.layers(program)
    for method in ("output", "gradient"):
        first = Sweep(method).costs(program, scheme, layers, context)
        torch.rand(1)
        assert Sweep(method).costs(program, scheme, layers, context) == first


def test_distances_by_hand() -> None:
    want = (torch.tensor([[3.0, 4.0], [0.0, 0.0]]), torch.tensor([1, 2]))
    got = (torch.tensor([[4.0, 3.0], [0.0, 0.0]]), torch.tensor([7, 2]))
    assert cosine(got, want) == pytest.approx((1 - 24 / 25) / 2)
    assert kl(got, got) == 0
    p, q = 1 / (1 + torch.e), 1 / (1 + 1 / torch.e)
    assert kl(got[:1], want[:1]) == pytest.approx((p - q) * (0 - 1) / 2, rel=1e-5)


def test_what_is_infinite_in_float_too_does_not_count_and_new_nan_counts_most() -> None:
    want = torch.tensor([[1.0, -torch.inf, 2.0]])
    assert cosine((want,), (want,)) == pytest.approx(0) == kl((want,), (want,))
    broken = torch.tensor([[torch.nan, -torch.inf, 2.0]])
    assert cosine((broken,), (want,)) == kl((broken,), (want,)) == torch.inf


def test_of_several_processes_the_first_one_measures(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Second:
        rank = 1

        def __init__(self, count: int) -> None:
            assert count == 2

        def from_first(self, value: float) -> float:
            assert value == 0.0
            return 1.25

    @contextmanager
    def clock(program: Program) -> Iterator[Callable[[Program], float]]:
        yield lambda other: pytest.fail("the second process measures nothing")

    monkeypatch.setattr(saving, "Team", Second)
    monkeypatch.setenv("WORLD_SIZE", "2")
    context = Context(clock=clock)
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    shares, _ = savings(program, scheme, scheme.layers(program), context, "latency")
    assert shares == [0.25] * 4


def rounded_in_place(program: Program, value: str, readers: list[str]) -> Program:
    """Another value is read in the place of one by some of its readers; the others read it."""
    new = program.clone()
    nodes = {node.name: node for node in new.graph.nodes}
    build = Builder(new, nodes[readers[0]], "test")
    rounded = build.call(torch.ops.aten.mul.Tensor, nodes[value], 0.5)
    for reader in readers:
        nodes[reader].replace_input_with(nodes[value], rounded)
    return new


@pytest.mark.parametrize("readers", [["linear"], ["linear", "add"], ["add"]])
def test_readers_may_read_something_new_in_place(program: Program, readers: list[str]) -> None:
    new = rounded_in_place(program, "input_0", readers)
    patch = Patch.between(program, new)
    assert list(patch.changed) == readers
    batch = {"input_0": torch.randn(6, 16)}
    got = patch.run(program, all_values(program, batch))
    assert all(torch.equal(a, b) for a, b in zip(got, new.run(**batch)))


def test_the_estimate_counts_each_way_to_the_outputs_once() -> None:
    """Of x + x, with the first x halved, the error is a quarter of the size of the sum."""
    program = program_of(lambda x, w: (x * w) + (x * w).relu(),
                         torch.rand(8, 64), w=torch.ones(64))  # fmt: skip
    value = next(n.name for n in program.calls() if "mul" in n.name)
    reader = next(n.name for n in program.calls() if n.name.startswith("add"))
    patch = Patch.between(program, rounded_in_place(program, value, [reader]))
    batch = {"input_0": torch.rand(8, 64)}
    found = [next(_estimated(program, [patch], batch, n)) for n in range(64)]
    assert sum(found) / 64 == pytest.approx(0.25**2 / 2, rel=0.2)


@pytest.mark.parametrize("method", ["output", "gradient"])
def test_without_float_outputs_nothing_can_be_compared(method: Method) -> None:
    program = program_of(lambda x, w: nn.functional.linear(x, w).argmax(-1),
                         torch.randn(2, 4), w=torch.randn(3, 4))  # fmt: skip
    context = Context(calibration=[{"input_0": torch.randn(2, 4)}])
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    with pytest.raises(UsageError, match="no output is a float tensor.*evaluate"):
        Sweep(method).costs(program, scheme, scheme.layers(program), context)


def test_multiply_adds_weigh_layers_where_nothing_measures(program: Program) -> None:
    scheme = Scheme.of(QuantizeDynamic(), program, Context())
    layers = scheme.layers(program)
    shares, weighed = savings(program, scheme, layers, Context(), "latency")
    counts = [16 * 32, 32 * 16, 2 * 16 * 16, 16 * 5]
    assert shares == pytest.approx([n / sum(counts) for n in counts])
    assert weighed == "multiply-adds"


def test_layers_of_one_form_are_timed_together(program: Program) -> None:
    timed: list[int] = []

    @contextmanager
    def clock(program: Program) -> Iterator[Callable[[Program], float]]:
        def relative(other: Program) -> float:
            timed.append(3 - str(other).count("linear_w8a8("))
            return 1 + 0.1 * timed[-1]

        yield relative

    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.c(self.b(self.a(x)))  # type: ignore[no-any-return]

    program = program_of(Twice(), torch.randn(3, 8))
    context = Context(clock=clock)
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    layers = scheme.layers(program)
    shares, weighed = savings(program, scheme, layers, context, "latency")
    assert (timed, weighed) == ([2, 1], "latency")
    assert shares == pytest.approx([0.1, 0.1, 0.1])
    assert savings(program, scheme, layers, context, "multiply-adds")[1] == "multiply-adds"
    assert isinstance(layers[0], Layer)
