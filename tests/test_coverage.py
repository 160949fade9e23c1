"""At which sizes a build is checked, where all corners cost too much."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Strop, Write
from torch import Tensor, nn

from strop.compiler import Model, Op, Rule, Var, build
from strop.compiler.check import comparison
from strop.compiler.frontend import allowance, coverage
from strop.compiler.frontend.allowance import Allowance
from strop.compiler.frontend.cases import first_cases, make_cases
from strop.compiler.frontend.coverage import (
    Coverage,
    Sizes,
    choose_sizes,
    complete,
    largest_fitting,
)
from strop.compiler.frontend.export.capture import capture, trace
from strop.compiler.frontend.export.corners import try_corners
from strop.compiler.frontend.inputs import Signature, read_inputs
from strop.compiler.ir.cost import Cost
from strop.compiler.recipes.loading import asked_recipe
from strop.compiler.rewriting.passes import RulePass
from strop.compiler.util.errors import BudgetError

aten = torch.ops.aten
MILLION = 10**6


class Product:
    """Costs that are a product of all sizes, in million multiply-adds and bytes of output."""

    def at(self, sizes: Mapping[str, int]) -> Cost:
        product = int(np.prod(list(sizes.values()), dtype=object))
        return Cost(MILLION * product, 0, 2 * product, product)


def signature_of(dims: Mapping[str, Any], example: tuple[int, ...]) -> tuple[Signature, Any]:
    axes = {axis: (name, *ends) for axis, (name, ends) in enumerate(dims.items())}
    model = Model(nn.Identity(), {"input": torch.ones(example)}, {"input": axes})
    signature, inputs, _ = read_inputs(model)
    return signature, inputs


def chosen(dims: Mapping[str, Any], example: tuple[int, ...], check: Any = "bounded") -> Any:
    signature, inputs = signature_of(dims, example)
    record = Coverage(check)
    sizes = choose_sizes(signature, inputs, Product(), record)  # type: ignore[arg-type]
    return sizes, [one.sizes for one in record.left_out]


def test_sizes_that_cost_little_are_all_run() -> None:
    sizes, left = chosen({"a": (1, 8), "b": (2, 9)}, (2, 3))
    assert sizes == {
        "smallest": {"a": 1, "b": 2},
        "between": {"a": 5, "b": 5},
        "largest": {"a": 8, "b": 9},
    }
    assert left == []


DIMS = {"a": (1, 64), "b": (2, 2048)}


def test_every_end_of_every_dim_is_run_where_the_largest_corner_costs_too_much() -> None:
    sizes, left = chosen(DIMS, (2, 24))
    assert left == [{"a": 64, "b": 2048}]
    assert sizes["smallest"] == {"a": 1, "b": 2}
    assert sizes["largest a"] == {"a": 64, "b": 2}
    assert sizes["largest b"] == {"a": 1, "b": 2048}
    assert {n: {s[n] for s in sizes.values()} >= set(DIMS[n]) for n in DIMS} == dict.fromkeys(
        DIMS, True
    )


def test_all_dims_are_large_together_as_far_as_that_fits() -> None:
    sizes, _ = chosen(DIMS, (2, 24))
    most = allowance.TOGETHER.seconds * allowance.MULTIPLY_ADDS_PER_SECOND / MILLION
    product = sizes["large"]["a"] * sizes["large"]["b"]
    assert most / 2 < product <= most
    assert all(1 < size < high for size, (_, high) in zip(sizes["large"].values(), DIMS.values()))
    assert all(size % 2 == 1 for size in sizes["between"].values())


def test_all_corners_are_run_on_request() -> None:
    sizes, left = chosen(DIMS, (2, 24), "full")
    assert sizes["largest"] == {"a": 64, "b": 2048}
    assert list(sizes) == ["smallest", "between", "largest"]
    assert left == []


def test_one_dim_may_cost_more_than_several_together() -> None:
    assert chosen({"a": (1, 100_000)}, (2,))[0]["largest"] == {"a": 100_000}
    most = int(allowance.ONE_DIM.seconds * allowance.MULTIPLY_ADDS_PER_SECOND / MILLION)
    sizes, left = chosen({"a": (1, 10 * MILLION)}, (2,))
    assert left == [{"a": 10 * MILLION}]
    assert most / 2 < sizes["largest a"]["a"] <= most


def test_an_end_that_does_not_fit_by_itself_is_told() -> None:
    sizes, left = chosen({"a": (1, 64), "b": (1, 10 * MILLION)}, (2, 24))
    assert left == [{"a": 64, "b": 10 * MILLION}, {"a": 1, "b": 10 * MILLION}]
    assert sizes["largest a"] == {"a": 64, "b": 1}
    assert sizes["largest b"]["b"] > MILLION / 10


def test_a_dim_that_may_be_empty_is_not_so_where_another_is_largest() -> None:
    sizes, _ = chosen({"a": (0, 64), "b": (0, 2048)}, (2, 24))
    assert sizes["smallest"] == {"a": 0, "b": 0}
    assert sizes["largest b"] == {"a": 1, "b": 2048}
    assert min(sizes["large"].values()) > 1


def test_a_dim_that_is_always_empty_stays_so() -> None:
    sizes, _ = chosen({"a": (0, 0), "b": (1, 9)}, (0, 3))
    assert sizes["largest"] == {"a": 0, "b": 9}


@pytest.mark.parametrize(
    "limit",
    [
        Allowance(seconds=10 * MILLION / 5e10, bytes=10**9, kept=10**9),
        Allowance(seconds=1, bytes=30, kept=10**9),
        Allowance(seconds=1, bytes=10**9, kept=10),
    ],
)
def test_time_memory_and_outputs_are_limits_each_by_itself(limit: Allowance) -> None:
    def fits(sizes: Sizes) -> bool:
        return limit.admits(Product().at(sizes))

    assert largest_fitting({"a": 1}, {"a": 10}, fits) == {"a": 10}
    assert largest_fitting({"a": 10}, {"a": 11}, fits) == {"a": 10}
    assert largest_fitting({"a": 12}, {"a": 13}, fits) == {"a": 12}
    assert 8 <= largest_fitting({"a": 1}, {"a": 99}, fits)["a"] <= 10


def corners(wanted: list[Sizes], check: Any = "bounded") -> Any:
    signature, _ = signature_of({"a": (1, 10 * MILLION), "b": (1, 100)}, (3, 50))
    record = Coverage(check)
    found = complete(wanted, {"a": 3, "b": 50}, signature, Product().at, record)
    return found, [one.sizes for one in record.left_out]


def test_a_corner_is_tried_with_the_other_dims_as_traced_or_small_or_not_at_all() -> None:
    assert corners([{"a": 4}]) == ([{"a": 4, "b": 50}], [])
    assert corners([{"a": 200_000}]) == ([{"a": 200_000, "b": 1}], [])
    assert corners([{"a": MILLION}, {"b": 1}]) == ([None, {"a": 3, "b": 1}], [{"a": MILLION}])
    assert corners([{"a": MILLION}], "full") == ([{"a": MILLION, "b": 50}], [])


def test_all_corners_together_cost_no_more_than_one_dim_may() -> None:
    found, left = corners([{"a": 200_000}, {"a": 150_000}, {"a": 10}])
    assert found == [{"a": 200_000, "b": 1}, None, {"a": 10, "b": 50}]
    assert left == [{"a": 150_000}]


class Cut(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x[:100_000_000] * 2


def test_a_corner_that_capture_cannot_afford_is_left_out_and_told() -> None:
    model = Model(Cut().eval(), {"x": torch.ones(6)}, {"x": {0: ("n", 1, 1_000_000_000)}})
    signature, example, _ = read_inputs(model)
    record = Coverage()
    traced = trace(model.module, signature, example)
    given = (traced.program, traced.corners, traced.example)
    try_corners(model.module, signature, *given, record)
    left = [one.sizes["n"] for one in record.left_out]
    assert left and min(left) >= 100_000_000
    assert all(one.bytes > allowance.ONE_DIM.bytes for one in record.left_out)


class Scale(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2


def calibrated(batches: int, monkeypatch: pytest.MonkeyPatch, **limits: float) -> Any:
    """Names of cases and the record, for batches of 1,000 numbers: 4,000 bytes of output each."""
    limit = Allowance(**({"seconds": 1.0, "bytes": 1 << 30, "kept": 1 << 30} | limits))  # type: ignore[arg-type]
    monkeypatch.setattr("strop.compiler.frontend.cases.TOGETHER", limit)
    x = torch.ones(10, 100)
    model = Model(Scale().eval(), {"x": x}, calibration=[{"x": x}] * batches)
    signature, example, calibration = read_inputs(model)
    record = Coverage()
    program = capture(model.module, signature, example)
    first = first_cases(model.module, signature, calibration)
    cases = make_cases(model.module, signature, calibration, record, program, first)
    assert cases[0] is first[0]
    return [case.name for case in cases], record.calibration


@pytest.mark.parametrize("limits", [{"kept": 12_000}, {"seconds": 3.5 * 8000 / 5e9}])
def test_calibration_inputs_are_cases_as_far_as_they_fit(
    limits: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    names, record = calibrated(9, monkeypatch, **limits)
    assert names == [f"calibration[{i}]" for i in range(4)]
    assert record == {"given": 9, "run": 4}


def test_the_first_calibration_input_is_a_case_whatever_it_costs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert calibrated(3, monkeypatch, bytes=1)[1] == {"given": 3, "run": 1}
    assert calibrated(3, monkeypatch)[1] == {"given": 3, "run": 3}


class Positions(nn.Module):
    """A table of positions, as in BERT; its rows are looked up by number."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(64, 8)
        self.register_buffer("numbers", torch.arange(64))

    def forward(self, x: Tensor) -> Tensor:
        places: Tensor = self.table(self.numbers[: x.shape[1]])
        return x + places


class ShortTable(Rule):
    """A wrong rule: the last row of the table is never reached."""

    name = "short-table"
    pattern = Op(aten.embedding.default, Var("weight"), Var("numbers"))

    def check(self, match: Any, program: Any) -> str | None:
        return None if match["numbers"].target is not aten.clamp.default else "done"

    def rewrite(self, match: Any, build: Any) -> Any:
        short = build.call(aten.clamp.default, match["numbers"], None, 62)
        return build.call(aten.embedding.default, match["weight"], short)


class Shorten(RulePass):
    name = "shorten"

    def rules(self) -> list[Rule]:
        return [ShortTable()]


def positions() -> Model:
    torch.manual_seed(0)
    axes = {0: ("batch", 1, 40), 1: ("seq", 1, 64)}
    return Model(Positions().eval(), {"x": torch.randn(2, 5, 8)}, {"x": axes})


@pytest.fixture
def little(monkeypatch: pytest.MonkeyPatch) -> None:
    """An allowance for several dims that the model above exceeds at its largest sizes."""
    monkeypatch.setattr(coverage, "TOGETHER", Allowance(1, 1 << 30, 4 * 8 * 500))


def test_what_is_wrong_at_the_largest_size_of_one_dim_only_is_found(
    little: None, write: Write, tmp_path: Path
) -> None:
    plain = build(positions(), tmp_path / "plain")
    assert plain.manifest["sizes"]["left_out"][0]["sizes"] == {"batch": 40, "seq": 64}
    source = write(Path(__file__).read_text(), "Shorten")
    wrong = asked_recipe("cpu-fp32", passes=[source], before="noops")
    with pytest.raises(BudgetError, match=r"in case 'largest seq: batch=1, seq=64'"):
        build(positions(), tmp_path / "wrong", wrong)


def test_the_manifest_and_the_summary_say_what_was_run(
    little: None, strop: Strop, write: Write, tmp_path: Path
) -> None:
    source = write(Path(__file__).read_text(), "positions")
    said = strop("build", source, "-o", tmp_path / "o")
    assert said.code == 0, said.err
    line = next(line for line in said.out.splitlines() if line.startswith("compared on"))
    assert line.startswith("compared on 1 of 1 calibration inputs; batch=1 seq=1; batch=40 seq=1;")
    assert line.endswith("Not run, for their cost: batch=40 seq=64 (--check full runs all)")
    full = strop("build", source, "-o", tmp_path / "o", "--check", "full")
    assert "batch=40 seq=64" in full.out and "Not run" not in full.out


def test_equal_builds_check_equal_sizes(little: None, tmp_path: Path) -> None:
    one, two = (build(positions(), tmp_path / name).manifest for name in "ab")
    assert one == two
    assert set(one["sizes"]) == {"check", "run", "left_out", "calibration"}


def test_rows_are_compared_in_parts_with_the_same_result(monkeypatch: pytest.MonkeyPatch) -> None:
    generator = np.random.default_rng(0)
    want = 9 * generator.standard_normal((5, 7, 3)).astype(np.float32)
    got = want + generator.standard_normal((5, 7, 3)).astype(np.float32)
    want[4, 0, 0] = got[4, 0, 0] = np.nan
    whole = comparison._compare("a case", "y", got, want)
    monkeypatch.setattr(comparison, "_TOGETHER", 6)
    assert comparison._compare("a case", "y", got, want) == whole
    got[4, 6, 2] = np.inf
    assert not comparison._compare("a case", "y", got, want).finite
