"""Names that users give, whatever they hold, are data: in capture, program, text and file."""

from __future__ import annotations

import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, fx, nn

from strop.compiler import Model, build, load
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.export.naming import by_position
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.frontend.original import output_leaves
from strop.compiler.ir.interpreter import interpret
from strop.compiler.ir.program import Program
from strop.compiler.util.visible import visible

CODE = "x=__import__('pathlib').Path('canary').touch()"
NAMES = (
    "global", "in", "class", "from", "lambda", "None", "a b", "a_b", "a-b", "a\nb", "a'b", 'a"b',
    "a\x1b]52;c;eA==\x07b", "\u202eab", "1", "0_5", "é", "", "[/red]", "{x}", "training", "weight",
    "forward", "print", CODE,
)  # fmt: skip


class Named(nn.Module):
    """One linear layer, one input and one output of each name."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.layers = nn.ModuleDict({layer(name): nn.Linear(4, 4) for name in names})

    def forward(self, **inputs: Tensor) -> dict[str, Tensor]:
        return {f"out {name}": self.layers[layer(name)](x) for name, x in inputs.items()}


def layer(name: str) -> str:
    """A key that torch takes: not empty, without dots."""
    return f"{name}!".replace(".", ",")


def named(names: tuple[str, ...]) -> Model:
    inputs = {name: torch.randn(5 + i, 4) for i, name in enumerate(names)}
    return Model(Named(names).eval(), inputs, {name: {0: f"dim {name}"} for name in names})


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Program:
    monkeypatch.chdir(tmp_path)
    model = named(NAMES)
    signature, example, _ = read_inputs(model)
    return capture(model.module, signature, example)


def test_names_stay_what_they_are_and_never_run(program: Program, tmp_path: Path) -> None:
    contract = program.contract
    assert tuple(spec.name for spec in contract.inputs) == NAMES
    assert [spec.name for spec in contract.outputs] == [f"out {name}" for name in NAMES]
    assert [dim.name for dim in contract.dims] == [f"dim {name}" for name in NAMES]
    assert f"layers.{layer(CODE)}.weight" in program.weights
    assert not list(tmp_path.iterdir())


def test_each_line_of_the_text_is_one_value_and_prints(program: Program) -> None:
    text = str(program)
    assert len(text.splitlines()) == len(NAMES) + 2
    assert all(line.isprintable() for line in text.splitlines())
    assert r"@layers.a\nb!.weight" in text


def test_a_model_with_such_names_is_built_and_called_by_them(tmp_path: Path) -> None:
    names = ("class", "a b", "a_b", "a\nb", "[/red]", "lambda")
    model = named(names)
    built = build(model, tmp_path / "out", instruments="off")
    assert [i["name"] for i in built.manifest["contract"]["inputs"]] == list(names)
    arrays = {name: np.ones((3 + i, 4), np.float32) for i, name in enumerate(names)}
    results = load(tmp_path / "out")(**arrays)
    wanted = model.module(**{n: torch.from_numpy(a) for n, a in arrays.items()})
    for got, want in zip(results, wanted.values()):
        np.testing.assert_allclose(got, want.detach().numpy(), atol=1e-5)


def test_a_module_keeps_its_own_forward() -> None:
    model = named(("class",))
    signature, example, _ = read_inputs(model)
    own = model.module.forward
    with by_position(model.module, signature) as called:
        assert called.positional
        assert model.module(example["class"]).keys() == {"out class"}
    assert model.module.forward == own
    assert "forward" not in vars(model.module)


def test_inputs_that_are_parameters_are_called_as_they_were() -> None:
    module = nn.Linear(4, 4)
    model = Model(module.eval(), {"input": torch.ones(2, 4)})
    signature, _, _ = read_inputs(model)
    with by_position(module, signature) as called:
        assert called is signature


def test_values_are_let_go_of_after_their_last_use() -> None:
    graph = fx.Graph()
    first = graph.placeholder("x")
    value = first
    for _ in range(5):
        value = graph.call_function(torch.ops.aten.neg.default, (value,))
    graph.output((value, value, first))
    made: list[weakref.ref[Tensor]] = []
    alive: list[int] = []

    def watch(node: fx.Node, tensor: Tensor) -> None:
        made.append(weakref.ref(tensor))
        alive.append(sum(one() is not None for one in made))

    result = interpret(graph, {}, (torch.ones(2) for _ in range(1)), watch)
    assert [t.tolist() for t in result] == [[-1.0, -1.0], [-1.0, -1.0], [1.0, 1.0]]
    assert alive == [1, 2, 3, 3, 3, 3]


def test_a_graph_without_a_result_is_an_error() -> None:
    with pytest.raises(ValueError, match="returns nothing"):
        interpret(fx.Graph(), {}, ())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("batch é 😀", "batch é 😀"),
        ("\x1b]52;c;eA==\x07", r"\x1b]52;c;eA==\x07"),
        ("a\nb\tc\r", r"a\nb\tc\r"),
        ("\x9b2J\x7f", r"\x9b2J\x7f"),
        ("\u202eab\u2066\u200b\u2028", r"\u202eab\u2066\u200b\u2028"),
        ("\ud800", r"\ud800"),
    ],
)
def test_what_does_not_print_is_spelled_out(text: str, shown: str) -> None:
    assert visible(text) == shown
    assert visible(f"x\n{text}", lines=True).startswith("x\n")


def test_an_output_of_no_name_gets_one() -> None:
    assert output_leaves({"": torch.ones(1), "0": torch.ones(1)}).keys() == {"output_", "output_0"}
