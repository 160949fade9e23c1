"""Every model of the zoo: slicing groups gives what zeros, or masked statistics, give."""

from __future__ import annotations

from functools import cache

import pytest

from strop.bench.zoo import ZOO
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.loading import load_recipe
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.groups import groups

from prune_tools import assert_pruned_as_masked  # isort: skip


@cache
def captured(name: str) -> tuple[Program, Inputs]:
    """A model of the zoo where recipes have the slot for compression, and its example."""
    model = ZOO[name].make()
    signature, example, _ = read_inputs(model)
    program = capture(model.module, signature, example)
    return load_recipe("cpu-fp32").pipeline().run(program, stop_after="linears"), example


@pytest.mark.parametrize("ratio", [pytest.param(0.25, marks=pytest.mark.slow), 0.5])
@pytest.mark.parametrize("name", ZOO)
def test_slicing_equals_zeroing(name: str, ratio: float) -> None:
    program, example = captured(name)
    kinds = {g.kind for g in groups(dependencies(program)) if not g.frozen}
    assert kinds
    for kind in sorted(kinds):
        assert_pruned_as_masked(program, example, lambda g, k=kind: g.kind == k, ratio)
