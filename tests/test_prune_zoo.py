"""Every model of the zoo: slicing groups gives what zeros, or masked statistics, give; and the file
gives what the pruned program gives."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from strop.bench.models.zoo import ZOO
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.passes import Pipeline
from strop.passes.prune.dependency import dependencies
from strop.passes.prune.groups import groups

from program_tools import session  # isort: skip
from prune_tools import assert_pruned_as_masked, pruned  # isort: skip
from zoo_families import one_of_each_family  # isort: skip

# The structures of the two are those of T5, in more nodes.
NAMES = one_of_each_family("whisper", "textbook")


@cache
def captured(name: str) -> tuple[Program, Inputs]:
    """A model of the zoo where recipes have the slot for compression, and its example."""
    model = ZOO[name].make()
    signature, example, _ = read_inputs(model)
    program = capture(model.module, signature, example)
    return load_recipe("cpu-fp32").pipeline().run(program, stop_after="linears"), example


@pytest.mark.parametrize("ratio", [pytest.param(0.25, marks=pytest.mark.slow), 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_slicing_equals_zeroing(name: str, ratio: float) -> None:
    program, example = captured(name)
    kinds = {g.kind for g in groups(dependencies(program)) if not g.frozen}
    assert kinds
    for kind in sorted(kinds):
        assert_pruned_as_masked(program, example, lambda g, k=kind: g.kind == k, ratio)


@pytest.mark.parametrize("ratio", [pytest.param(0.25, marks=pytest.mark.slow), 0.5])
@pytest.mark.parametrize("name", NAMES)
def test_what_is_left_is_lowered_and_gives_the_same(name: str, ratio: float) -> None:
    program, example = captured(name)
    new, _, kept = pruned(program, lambda g: True, ratio)
    assert kept
    steps = load_recipe("cpu-fp32").pipeline().steps
    place = [step.name for step in steps].index("linears")
    final = Pipeline(steps[place + 1 :]).run(new)
    feeds = {name: tensor.numpy() for name, tensor in example.items()}
    with torch.no_grad():
        wanted = new.run(**example)
    for want, got in zip(wanted, session(final).run(None, feeds)):
        torch.testing.assert_close(torch.from_numpy(got), want, rtol=1e-3, atol=1e-4)
