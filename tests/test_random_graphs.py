"""The command that builds random graphs: seeds, the module that it runs, and what it says."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import typer
from conftest import run_python
from torch import nn
from typer.testing import CliRunner

from strop.bench.sweeps.operators.differences import difference
from strop.bench.sweeps.operators.outcomes import SampleOutcome
from strop.bench.sweeps.operators.samples import Sample
from strop.bench.sweeps.random_graphs import __main__ as command_line
from strop.bench.sweeps.random_graphs import drawing, runs
from strop.bench.sweeps.random_graphs.__main__ import main, seeds_of
from strop.bench.sweeps.random_graphs.drawing import Graph

INSTALLED = importlib.util.find_spec("nnsmith") is not None


def test_seeds_are_numbers_and_ranges() -> None:
    assert list(seeds_of("0-3, 9,12-12")) == [0, 1, 2, 3, 9, 12]


@pytest.mark.parametrize("text", ["", "a", "3-", "-1", "1..4"])
def test_other_seeds_are_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        list(seeds_of(text))


def drawn() -> Any:
    """A graph as NNSmith gives one: two inputs, an operator of two results, a layer."""
    layer = nn.Linear(4, 4)
    return SimpleNamespace(
        mlist=nn.ModuleList([layer]),
        instructions=[
            (lambda a, b: list((a + b).split(2, 0)), ["x", "y"], ["s", "t"], None),
            (layer, ["s"], ["u"], None),
        ],
        input_map={"x": None, "y": None},
        output_map={"t": None, "u": None},
    )


def test_a_graph_calls_its_operators_in_order_and_gives_its_leaves() -> None:
    made = drawn()
    x, y = torch.randn(4, 4), torch.randn(4, 4)
    t, u = Graph(made)(x, y)
    torch.testing.assert_close(t, (x + y)[2:])
    torch.testing.assert_close(u, made.mlist[0]((x + y)[:2]))


def one_graph(kinds: list[Any], seed: int) -> Sample:
    inputs = torch.randn(4, 4), torch.randn(4, 4)
    return Sample("graph", seed, torch.float32, Graph(drawn()).eval(), inputs, ())


@pytest.fixture
def graphs(monkeypatch: pytest.MonkeyPatch) -> CliRunner:
    monkeypatch.setattr(command_line, "operators", list)
    monkeypatch.setattr(runs, "draw", one_graph)
    return CliRunner()


def command() -> typer.Typer:
    app = typer.Typer()
    app.command()(main)
    return app


ALONE = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import typer
import test_random_graphs
from strop.bench.sweeps.random_graphs import __main__, runs
__main__.operators, runs.draw = list, test_random_graphs.one_graph
typer.run(__main__.main)
"""


@pytest.mark.slow
def test_the_command_counts_what_became_of_each_graph(tmp_path: Path) -> None:
    """Alone: it forks, and a copy of a process whose other threads hold locks may wait forever."""
    record = tmp_path / "rows.json"
    here = str(Path(__file__).parent)
    result = run_python("-c", ALONE, here, "--seeds", "3", "--json", str(record))
    assert result.code == 0, result.out + result.err
    assert "1 graphs: 1 ok" in result.out
    assert '"seed": 3' in record.read_text()


@pytest.mark.parametrize(
    ("kind", "reason", "counted"),
    [("wrong", "other values", "wrong"), ("wrong", "the file does not run", "run")],
)
def test_a_wrong_graph_fails_the_command(
    graphs: CliRunner, monkeypatch: pytest.MonkeyPatch, kind: Any, reason: str, counted: str
) -> None:
    found = SampleOutcome(kind, reason, "why")
    monkeypatch.setattr(runs, "outcome", lambda sample: found)
    result = graphs.invoke(command(), ["--seeds", "3"])
    assert result.exit_code == 1
    assert f"3 {counted} {reason}: why" in result.output


def test_a_graph_that_cannot_be_drawn_is_not_held_against_strop(
    graphs: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(kinds: list[Any], number: int) -> Sample:
        raise RuntimeError("20 GB for a convolution")

    monkeypatch.setattr(runs, "draw", no_memory)
    result = graphs.invoke(command(), ["--seeds", "3"])
    assert result.exit_code == 0
    assert "3 not drawn RuntimeError: 20 GB for a convolution" in result.output


def test_a_graph_that_ends_its_process_is_counted_as_a_traceback(
    graphs: CliRunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "outcome", lambda sample: os._exit(1))
    result = graphs.invoke(command(), ["--seeds", "3,4"])
    assert result.exit_code == 1
    assert "2 graphs: 2 traceback" in result.output


@pytest.mark.skipif(INSTALLED, reason="nnsmith is installed here")
def test_without_the_extra_the_command_says_what_to_install() -> None:
    result = CliRunner().invoke(command(), ["--seeds", "0"])
    assert result.exit_code == 2
    assert "[fuzz]" in result.output


@pytest.mark.parametrize(
    ("through", "same"), [(torch.float32, False), (torch.float16, True), (torch.int64, False)]
)
def test_a_float_that_comes_from_a_half_is_no_more_exact_than_that(
    through: torch.dtype, same: bool
) -> None:
    wanted = torch.tensor([0.75, -0.5])
    found = difference((wanted * 1.001).numpy(), wanted, through)
    assert (found is None) == same


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="nnsmith is not installed: pip install -e '.[fuzz]'")
def test_random_graphs_are_right_or_refused() -> None:
    kinds = drawing.operators()
    rows = list(runs.rows(kinds, range(40), 2))
    assert not [r for r in rows if r.kind not in ("ok", "refused", "not comparable", "not drawn")]
