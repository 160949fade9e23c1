"""Weights of which some have 8 bits: which ones, by how far rounding moves the scores."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import decoders
import numpy as np
import pytest
import torch
from program_tools import program_of, session
from test_pass_weights import DATA, WIDTH, WORDS, quantized, tied, words
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.constants import weight_names
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.context import Context
from strop.compiler.targets.target import get_target
from strop.compiler.util.cache import Cache
from strop.compiler.util.errors import UsageError
from strop.passes.quantize import wide
from strop.passes.quantize.methods import METHODS, MethodName
from strop.passes.quantize.weights import QuantizeWeights

ALL = WORDS * WIDTH + 2 * 96 * WIDTH


def widths(program: Program) -> dict[str, int]:
    """The bits of each weight that layers and tables read, by name."""
    found = {}
    for node in program.calls():
        if "nbits" in str(node.target):
            given = arguments(node)
            found |= dict.fromkeys(weight_names(given["weight"]), given["bits"])
    return {name.removeprefix("inner.").removesuffix(".rounded"): b for name, b in found.items()}


def in_8_bits(program: Program) -> set[str]:
    return {name for name, bits in widths(program).items() if bits == 8}


# Estimates ----------------------------------------------------------------------------------------


class Scores(nn.Module):
    """Scores of 5 labels by two layers."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(torch.tanh(self.first(x)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["first", "second"])
def test_the_estimate_is_the_divergence_of_small_changes(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wide, "DRAWS", 400)
    module, x = Scores(), torch.randn(12, 16, generator=torch.Generator().manual_seed(1))
    program = program_of(module, x)
    (node,) = (
        n for n in program.graph.find_nodes(op="get_attr") if f"{name}.weight" in str(n.target)
    )
    change = 0.02 * torch.randn(getattr(module, name).weight.shape)
    found = wide.divergences(program, {node.name: change}, Context(calibration=[{"input_0": x}]), 4)
    with torch.no_grad():
        before = module(x).log_softmax(-1)
        getattr(module, name).weight += change
        after = module(x).log_softmax(-1)
    exact = float((before.exp() * (before - after)).sum(-1).mean())
    assert found[node.name] == pytest.approx(exact, rel=0.25)


def test_a_decoder_is_judged_by_its_scores_of_every_token(monkeypatch: pytest.MonkeyPatch) -> None:
    model = decoders.make()
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = load_recipe("cpu-fp32").pipeline().run(capture(model.module, signature, example))
    nodes = program.graph.find_nodes(op="get_attr")
    shapes = {n.name: program.weights[str(n.target)].shape for n in nodes}
    moved = {name: torch.full(shape, 1e-3) for name, shape in shapes.items() if len(shape) == 2}
    seen: list[torch.Size] = []

    def likelihood(scores: Tensor) -> Tensor:
        seen.append(scores.shape)
        return drawn(scores)

    drawn = wide._likelihood
    monkeypatch.setattr(wide, "_likelihood", likelihood)
    batch = model.calibration[0]  # type: ignore[index]
    found = wide.divergences(program, moved, Context(calibration=[batch]), 1)
    assert seen == [(batch["input_ids"].numel(), 61)] * wide.DRAWS
    assert all(cost > 0 for cost in found.values())


@pytest.mark.parametrize(("by_place", "rows"), [(True, 6), (False, 2)])
def test_only_what_computes_each_place_by_itself_scores_all_of_them(
    by_place: bool, rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def function(x: Tensor, mask: Tensor, w: Tensor) -> Tensor:
        last = F.linear(torch.ops.strop.last_token(x, mask), w)
        return last if by_place else last.softmax(1)

    x, mask = torch.randn(2, 3, 4), torch.ones(2, 3, dtype=torch.int64)
    program = program_of(function, x, mask, w=torch.randn(5, 4))
    (node,) = program.graph.find_nodes(op="get_attr")
    seen: list[int] = []
    drawn = wide._likelihood
    monkeypatch.setattr(wide, "_likelihood", lambda y: (seen.append(len(y)), drawn(y))[1])
    context = Context(calibration=[{"input_0": x, "input_1": mask}])
    wide.divergences(program, {node.name: torch.ones(5, 4)}, context, 1)
    assert set(seen) == {rows}


def test_padding_says_nothing() -> None:
    x, mask = torch.randn(2, 3, 4), torch.tensor([[1, 0, 1, 1], [1, 0, 0, 1]])
    real = wide._real(x, mask)
    assert torch.equal(real[0, 1:], x[0, 1:]) and torch.equal(real[1, 2], x[1, 2])
    assert not real[0, 0].any() and not real[1, :2].any()


# The pass -----------------------------------------------------------------------------------------


def test_the_weights_that_move_the_scores_most_have_8_bits() -> None:
    program = tied()
    quiet = program.clone()
    # What the second layer gives is hardly read.
    quiet.set_weight("inner.down.weight", program.weights["inner.down.weight"] * 1e-3, "test")
    chosen = {}
    for label, one in (("plain", program), ("quiet", quiet)):
        made = quantized(one, method="nearest", embeddings=4, wide=0.4)
        taken = in_8_bits(made.program)
        assert 0 < sum(one.weights[f"inner.{name}"].numel() for name in taken) <= 0.4 * ALL
        (note,) = made.log.notes
        assert f"{len(taken)} of 3 weights have 8 bits: " in note
        chosen[label] = taken
    assert "down.weight" not in chosen["quiet"]


def test_a_share_for_all_gives_all_and_one_that_is_too_small_none() -> None:
    every = quantized(tied(), method="nearest", embeddings=4, wide=1.0).program
    assert set(widths(every).values()) == {8}
    none = quantized(tied(), method="nearest", embeddings=4, wide=0.01).program
    assert set(widths(none).values()) == {4}


@pytest.mark.parametrize("method", [*METHODS, "auto"])
def test_every_method_takes_both_widths_and_the_file_gives_what_the_program_gives(
    method: MethodName,
) -> None:
    made = quantized(tied(), method=method, embeddings=4, wide=0.7, steps=20)
    assert set(widths(made.program).values()) == {4, 8}
    ids = words(5, 9)
    want = made.program.run(input_0=ids)[0].detach().numpy()
    got = session(made.program).run(None, {"input_0": ids.numpy()})[0]
    # The product rounds activations to 8 bits.
    assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


def test_scores_are_nearer_with_some_weights_in_8_bits() -> None:
    program, ids = tied(), words(64, 9)
    want = program.run(input_0=ids)[0].detach()

    def error(share: float) -> float:
        made = quantized(program, method="nearest", embeddings=4, wide=share).program
        return float((made.run(input_0=ids)[0].detach() - want).square().mean())

    assert error(1.0) < 0.01 * error(0.0)
    assert error(0.7) < 0.8 * error(0.0)


def test_without_data_all_have_the_same_bits_and_a_note_says_why() -> None:
    made = QuantizeWeights(method="nearest", embeddings=4, wide=0.5).run(tied())
    assert set(widths(made.program).values()) == {4}
    (note,) = made.log.notes
    assert note.startswith("no weight has 8 bits (wide): the model gives no calibration data")


def test_what_was_chosen_is_kept_and_taken_again(tmp_path: Path) -> None:
    run = QuantizeWeights(method="nearest", embeddings=4, wide=0.5)
    context = Context(calibration=DATA, cache=Cache(tmp_path))
    said: list[str] = []
    first, again = (
        run.run(tied(), context=Context(**vars(context) | {"progress": said.append}))
        for _ in range(2)
    )
    assert widths(first.program) == widths(again.program)
    assert any("taken from the cache" in one for one in said)
    assert first.log.learned is not None
    assert first.log.learned["facts"]["wide"]


def test_a_layer_of_joined_weights_is_one(tmp_path: Path) -> None:
    a, b = (torch.randn(32, 64, generator=torch.Generator().manual_seed(i)) for i in (1, 2))
    x = torch.randn(4, 64)

    def function(x: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return F.linear(x, torch.cat([a, b]))

    program = program_of(function, x, a=a, b=b)
    context = Context(calibration=[{"input_0": x}])
    made = QuantizeWeights(method="nearest", wide=1.0).run(program, context=context)
    assert widths(made.program) == {"a": 8, "b": 8}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"wide": -0.1}, "wide is -0.1; it is a share, from 0 to 1"),
        ({"wide": 1.5}, "wide is 1.5; it is a share, from 0 to 1"),
    ],
)
def test_other_shares_are_refused(options: dict[str, Any], reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        QuantizeWeights(**options)


def test_a_target_without_products_of_8_bits_refuses_them() -> None:
    run = QuantizeWeights(bits=4, symmetric=True, wide=0.1)
    reason = run.refused_by(get_target("cuda"))
    taken = QuantizeWeights(bits=8, symmetric=True).refused_by(get_target("cuda"))
    assert reason == taken
