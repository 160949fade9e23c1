"""Tokens that share the sizes of their calls: caches padded on the left, prepared calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import decoders
import numpy as np
import pytest
import torch
from torch import Tensor
from triton_tools import session_of

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.targets.decoding import FedDecoder, Names, Start, names_of
from strop.compiler.targets.triton.decoder import PlanDecoder, room_for
from strop.compiler.targets.triton.session import PlanSession, Prepared
from strop.compiler.util.numerics import Array

PLACES = 200
FEW = 6


def test_room_is_enough_grows_seldom_and_wastes_little() -> None:
    rooms = [room_for(tokens) for tokens in range(1, 20_000)]
    for tokens, room in enumerate(rooms, 1):
        assert tokens <= room < tokens + max(64, 0.25 * tokens)
    assert rooms == sorted(rooms)
    assert len(set(rooms)) <= 64


class Watched(PlanSession):
    """Notes the places of the caches of each prepared call."""

    places: list[int]

    def prepared(self, inputs: Sequence[Tensor]) -> Prepared:
        self.places.append(inputs[-1].shape[2])
        return super().prepared(inputs)


@pytest.fixture(scope="module")
def in_double() -> tuple[Model, Watched]:
    """A decoder in float64, whose plan is all torch: it needs no interpreter."""
    model = decoders.make(context=2 * PLACES, layers=1)
    assert isinstance(model.example_inputs, dict)
    example = {
        n: t.double() if t.is_floating_point() else t for n, t in model.example_inputs.items()
    }
    model = replace(
        model,
        module=model.module.double(),
        example_inputs=example,
        calibration=None,
        inputs_at=None,
    )
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        plan = session_of(capture(model.module, signature, example))
    assert all(step.kind == "extern" for step in plan.plan.steps)
    weights = {known.name: t for known, t in zip(plan.plan.weights, plan.weights)}
    watched = Watched(plan.plan, weights, plan.device)
    watched.places = []
    return model, watched


def by_module(model: Model, names: Names, start: Start) -> FedDecoder:
    """The module itself as a decoder."""

    def run(feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        with torch.no_grad():
            found = model.module(**{n: torch.from_numpy(x.copy()) for n, x in feeds.items()})
        return {name: tensor.numpy() for name, tensor in found.items()}

    return FedDecoder(run, names, start)


class Both:
    """The plan's decoder and the module's, told the same."""

    def __init__(self, model: Model, session: PlanSession) -> None:
        assert model.generation is not None
        self.names = names_of(model.generation)
        sizes = decoders.Sizes()
        empty = np.zeros((1, sizes.kv_heads, 0, sizes.head_size))
        start = Start(dict.fromkeys(self.names.caches, empty))
        self.ours = PlanDecoder(session, self.names, start)
        self.theirs = by_module(model, self.names, start)
        self.random = np.random.default_rng(0)
        self.mask = np.zeros((0, 0), np.int64)

    def step(self, new: int, rows: int = 0, padding: Sequence[int] = ()) -> None:
        """Give both so many tokens; the first call says how many rows and how they are padded."""
        if rows:
            self.mask = np.zeros((rows, 0), np.int64)
        added = np.ones((len(self.mask), new), np.int64)
        for row, hidden in enumerate(padding):
            added[row, :hidden] = 0
        self.mask = np.concatenate([self.mask, added], 1)
        ids = self.random.integers(3, decoders.Sizes().vocabulary, added.shape)
        found, wanted = (one.step(ids, self.mask).copy() for one in (self.ours, self.theirs))
        np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)

    def choose(self, rows: Sequence[int]) -> None:
        for one in (self.ours, self.theirs):
            one.reorder(rows)
        self.mask = self.mask[list(rows)]

    def repeat(self, times: int) -> None:
        for one in (self.ours, self.theirs):
            one.repeat(times)
        self.mask = self.mask.repeat(times, 0)


def test_texts_up_to_the_last_place_are_those_of_the_module(
    in_double: tuple[Model, Watched],
) -> None:
    model, session = in_double
    session.places.clear()
    both = Both(model, session)
    both.step(5, rows=3, padding=(0, 2, 4))
    for _ in range(PLACES - 5):
        both.step(1)
    assert session.places == [64, 128, 192, PLACES]
    both.step(1)  # the last one of all: no room is left for its key
    assert session.places == [64, 128, 192, PLACES]


def test_several_tokens_and_other_rows_may_come_between(in_double: tuple[Model, Watched]) -> None:
    model, session = in_double
    both = Both(model, session)
    both.step(4, rows=1)
    both.repeat(2)
    for i in range(FEW):
        both.step(1)
        both.choose([0, 0] if i % 2 else [1, 0])
    both.step(3)
    both.repeat(2)
    both.step(1)
    both.choose([1, 0, 3, 2])
    both.step(2)
    for _ in range(FEW):
        both.step(1)
        both.choose([1, 1, 2, 3])
