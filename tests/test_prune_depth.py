"""The passes ``drop-layers`` and ``sparsify``."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from strop.compiler.ir.program import Program
from strop.compiler.ir.verifier import verify
from strop.compiler.rewriting.context import Context
from strop.compiler.util.errors import UsageError
from strop.passes.prune.depth import DropLayers, blocks
from strop.passes.prune.sparsify import Sparsify

from program_tools import program_of  # isort: skip


class Layer(nn.Module):
    def __init__(self, scale: float) -> None:
        super().__init__()
        self.up, self.down, self.scale = nn.Linear(8, 16), nn.Linear(16, 8), scale

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        made: torch.Tensor = x + self.scale * self.down(torch.relu(self.up(x)))
        return made


class Stack(nn.Module):
    """Four layers, of which the third changes its input least."""

    def __init__(self, wide: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Layer(s) for s in (1.0, 0.5, 1e-3, 2.0)])
        self.head = nn.Linear(8, 3)
        self.wide = wide

    def forward(self, x: torch.Tensor) -> Any:
        seen = []
        for layer in self.layers:
            x = layer(x)
            seen.append(x)
        return (self.head(x), seen[1]) if self.wide else self.head(x)


def stack(**options: Any) -> Program:
    torch.manual_seed(0)
    return program_of(Stack(**options), torch.randn(5, 8))


def data() -> Context:
    generator = torch.Generator().manual_seed(1)
    return Context(calibration=[{"input_0": torch.randn(5, 8, generator=generator)}] * 3)


def left(program: Program) -> list[int]:
    return sorted({int(n.split("layers.")[1][0]) for n in program.weights if "layers" in n})


@pytest.mark.parametrize(
    ("count", "importance", "kept"),
    [
        (1, "influence", [0, 1, 3]),
        (1, "first", [0, 1, 2]),
        (3, "first", [0]),
        (2, "alternate", [0, 2]),
        (4, "first", []),
    ],
)
def test_layers_go_and_what_flows_in_flows_on(count: int, importance: Any, kept: list[int]) -> None:
    program = stack()
    new = DropLayers(count=count, importance=importance).run(program, context=data()).program
    verify(new)
    assert left(new) == kept
    x = torch.randn(5, 8)
    module = Stack()
    module.load_state_dict({n.removeprefix("inner."): w for n, w in program.weights.items()})
    module.layers = nn.ModuleList([module.layers[i] for i in kept])
    torch.testing.assert_close(new.run(input_0=x)[0], module(x))
    assert left(program) == [0, 1, 2, 3]


def test_layers_are_read_off_the_graph_and_those_used_elsewhere_stay() -> None:
    found = {b.path.rpartition(".")[2]: b.reason for b in blocks(stack(wide=True))}
    assert list(found) == ["0", "1", "2", "3"] and not any(found.values())
    program = stack(wide=True)
    new = DropLayers(count=1, importance="first").run(program, context=data()).program
    assert left(new) == [0, 1, 2]


@pytest.mark.parametrize("count", [0, 5])
def test_a_count_that_is_none_is_refused(count: int) -> None:
    with pytest.raises(UsageError, match=f"count is {count}, and 4 layers can go"):
        DropLayers(count=count, importance="first").run(stack())


def test_two_of_four_stay() -> None:
    program = stack()
    new = Sparsify().run(program).program
    for name in ("inner.layers.0.up.weight", "inner.layers.3.down.weight"):
        rows = new.weights[name].reshape(-1, 4)
        assert ((rows != 0).sum(1) == 2).all()
        wanted = program.weights[name].detach().abs().reshape(-1, 4).topk(2, dim=1).values.sum(1)
        torch.testing.assert_close(rows.detach().abs().sum(1), wanted)
    assert new.origins["inner.layers.0.up.weight"].made_by == "sparsify"


def test_a_share_goes_as_with_torchs_own_pruning() -> None:
    from torch.nn.utils import prune

    program = stack()
    new = Sparsify(pattern="", share=0.3, keep=("*head*",)).run(program).program
    name = "inner.layers.1.up.weight"
    layer = nn.Linear(8, 16)
    layer.weight = nn.Parameter(program.weights[name].detach().clone())
    prune.l1_unstructured(layer, "weight", 0.3)
    assert torch.equal(new.weights[name], layer.weight)
    assert new.weights["inner.head.weight"] is program.weights["inner.head.weight"]


def test_with_activations_a_small_weight_on_a_large_input_stays() -> None:
    program = program_of(nn.Linear(4, 1, bias=False), torch.randn(2, 4))
    with torch.no_grad():
        program.weights["inner.weight"].copy_(torch.tensor([[1.0, 2.0, 3.0, 0.1]]))
    batch = {"input_0": torch.tensor([[1.0, 1.0, 1.0, 100.0]])}
    run = Sparsify(importance="activation")
    new = run.run(program, context=Context(calibration=[batch])).program
    assert new.weights["inner.weight"].tolist() == [[0.0, 0.0, 3.0, pytest.approx(0.1)]]


@pytest.mark.parametrize("pattern", ["4:2", "2:2", "a:b", "2", "0:4"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(UsageError, match="N:M"):
        Sparsify(pattern=pattern)


def test_a_weight_that_is_not_there_is_refused_by_name() -> None:
    with pytest.raises(UsageError, match=r"no weight is 'inner.hed.weight'.*inner.head.weight"):
        Sparsify(keep=("inner.hed.weight",)).run(stack())
