"""Whether a row of a batch changes with its neighbours, and what the manifest says of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from program_tools import program_of, session
from torch import Tensor, nn

from strop.compiler import Model, build, load
from strop.compiler.ir.batch_invariance import spanning_operators
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.recipes.recipe import Recipe
from strop.passes.quantize.dynamic import QuantizeDynamic

WIDTH = 24
RANDOM = torch.Generator().manual_seed(0)
X = torch.randn(5, 7, WIDTH, generator=RANDOM)


def layers() -> nn.Module:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(WIDTH, 32), nn.GELU(), nn.Linear(32, 16, bias=False)).eval()


def loud_neighbours() -> Tensor:
    """The same first row, beside others with values twenty times as large."""
    batch = X * 20
    batch[0] = X[0]
    return batch


RECIPES = {"cpu-int8": False, "cpu-int8-static": True, "cpu-fp32": True, "rows": True}


def recipe(name: str) -> Recipe:
    made = load_recipe("cpu-int8" if name == "rows" else name)
    if name != "rows":
        return made
    entries = [
        e.with_options({"scales": "row"}) if e.name == "quantize" else e for e in made.passes
    ]
    return made.model_copy(update={"passes": entries})


@pytest.mark.parametrize(("name", "holds"), RECIPES.items())
def test_the_manifest_says_what_the_artifact_does(name: str, holds: bool, tmp_path: Path) -> None:
    model = Model(
        layers(), (X,), dynamic={"input": {0: "batch"}}, calibration=[(loud_neighbours(),)]
    )
    artifact = build(model, tmp_path / "out", recipe=recipe(name))
    run = load(tmp_path / "out")
    alone = run(input=X[:1].numpy())[0]
    among = run(input=loud_neighbours().numpy())[0][:1]
    assert artifact.manifest["batch_invariant"] is holds
    assert np.allclose(alone, among, atol=1e-5) is holds
    spanning = artifact.manifest["spanning_operators"]
    assert spanning == ({} if holds else {"strop.linear_w8a8": 2})


def test_a_loud_padding_token_takes_digits_from_a_tensor_not_from_rows() -> None:
    program = program_of(layers(), X, dims={0: {0: "batch"}})
    padded = X.clone()
    padded[:, -1] *= 200
    with torch.no_grad():
        want = program.run(input_0=padded)[0][:, :-1].numpy()
    errors = {}
    for scales in ("tensor", "row"):
        new = QuantizeDynamic(scales=scales).run(program).program  # type: ignore[arg-type]
        [got] = session(new).run(None, {"input_0": padded.numpy()})
        errors[scales] = np.linalg.norm(got[:, :-1] - want) / np.linalg.norm(want)
    assert errors["row"] < 0.02 < 0.2 < errors["tensor"]


def test_rows_in_the_runtime_are_those_of_the_reference() -> None:
    program = program_of(layers(), X, dims={0: {0: "batch"}})
    new = QuantizeDynamic(scales="row").run(program).program
    assert not spanning_operators(new)
    given = X.clone()
    given[1, 2] = 0
    with torch.no_grad():
        want = new.run(input_0=given)[0].numpy()
    [got] = session(new).run(None, {"input_0": given.numpy()})
    # A value halfway between two steps may be rounded to either.
    assert np.linalg.norm(got - want) / np.linalg.norm(want) < 2e-3
    assert np.isfinite(got).all()


def test_gradients_pass_straight_through_rows() -> None:
    program = QuantizeDynamic(scales="row").run(program_of(layers(), X)).program
    program.run(input_0=X)[0].sum().backward()  # type: ignore[no-untyped-call]
    assert all(
        p.grad is not None and bool(p.grad.abs().sum() > 0) for p in program.parameters.values()
    )
