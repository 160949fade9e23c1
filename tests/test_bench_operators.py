"""The benchmark of operators: what counts as right, wrong, refused, or not comparable."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strop.bench.processes.spawned import EngineError
from strop.bench.sweeps.operators import runs as operator_runs
from strop.bench.sweeps.operators.differences import as_near, difference
from strop.bench.sweeps.operators.outcomes import SampleOutcome, outcome
from strop.bench.sweeps.operators.record import figures, put_on_record
from strop.bench.sweeps.operators.runs import measure
from strop.bench.sweeps.operators.samples import CallModule, Sample
from strop.bench.sweeps.operators.tables import by_reason, outcomes, reasons

X = torch.linspace(-2, 2, 6)


def sample(function: Any, *arguments: Any, **named: Any) -> Sample:
    call = CallModule(function, (arguments[0], arguments[1:], named)).eval()
    return Sample("operator", 0, torch.float32, call, call.tensors(), ())


def test_a_call_binds_all_but_its_tensors() -> None:
    call = CallModule(torch.cat, ([X, X + 1], (), {"dim": 0}))
    assert len(call.tensors()) == 2
    assert torch.equal(call(X, X), torch.cat([X, X]))


def test_a_right_sample_is_ok() -> None:
    assert outcome(sample(torch.add, X, 2 * X, alpha=3)) == SampleOutcome("ok")


def test_an_operator_without_a_lowering_is_refused_with_its_exit_code() -> None:
    found = outcome(sample(torch.linalg.eigh, torch.eye(3)))
    assert (found.kind, found.reason) == ("refused", "exit 4: no lowering")
    assert "eigh" in found.detail


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (torch.rand_like, "draws random numbers"),
        (lambda x: x.tolist(), "gives no tensor"),
        (lambda x: x.view(7), "torch itself does not run it here"),
        (lambda x: x.to_sparse(), "gives a tensor that is not dense"),
        (lambda x: torch.empty(()), "gives uninitialised memory"),
        (lambda x: torch.empty_permuted((2, 3), (1, 0)), "gives uninitialised memory"),
        (lambda x: x.new_empty(3, dtype=torch.bool), "gives uninitialised memory"),
        (lambda x: torch.empty_strided((2,), (1,)) + x[:2], "gives uninitialised memory"),
    ],
)
def test_what_cannot_be_compared_is_told_by_a_rule(function: Any, reason: str) -> None:
    assert outcome(sample(function, X)) == SampleOutcome("not comparable", reason)


@pytest.mark.parametrize(
    ("got", "want", "what"),
    [
        (np.float32([1, 2]), torch.tensor([1.0, 2.0]), None),
        (np.float32([1, np.nan]), torch.tensor([1.0, np.nan]), None),
        (np.float32([np.nan, 1]), torch.tensor([1.0, np.nan]), "NaN or infinity elsewhere"),
        (np.float32([1, np.inf]), torch.tensor([1.0, 2.0]), "NaN or infinity elsewhere"),
        (np.float32([1, 2.01]), torch.tensor([1.0, 2.0]), "other values"),
        (np.int64([2**53]), torch.tensor([2**53 + 1]), "other values"),
        (np.int32([1]), torch.tensor([1]), "another dtype"),
        (np.float32([1.01]), torch.tensor([1.0]).bfloat16(), None),
        (np.float32([1.1]), torch.tensor([1.0]).bfloat16(), "other values"),
        (np.float32([[1]]), torch.tensor([1.0]), "another shape"),
    ],
)
def test_differences_are_named(got: Any, want: Tensor, what: str | None) -> None:
    found = difference(got, want)
    assert (found and found[0]) == what


@pytest.mark.parametrize(
    ("got", "want", "exact", "near"),
    [
        # Torch's own distance from the exact values, 3e-5, is allowed on top of the tolerance.
        ([1, 2.00004], [1, 2.00003], [1, 2], True),
        ([1, 2.00004], [1, 2], [1, 2.001], False),
        ([1.00006, 2], [1, 2.00003], [1, 2], True),
        ([1.0002, 2], [1, 2.00003], [1, 2], False),
        # However far off torch is, four tolerances are allowed at most.
        ([1.0003, 2], [1, 3], [1, 2], False),
        # Torch ends in infinity on the way, and the file does not.
        ([1, 2], [1, np.inf], [1, 2], True),
        ([1, 3], [1, np.inf], [1, 2], False),
        ([np.inf, np.nan], [1, 2], [1e300, np.nan], True),
        ([np.inf, 2], [np.inf, 2], [1, 2], False),
    ],
)
def test_a_file_may_be_as_far_from_exact_values_as_torch(
    got: Any, want: Any, exact: Any, near: bool
) -> None:
    wide = torch.tensor(exact, dtype=torch.float64)
    assert as_near(np.float32(got), torch.tensor(want, dtype=torch.float32), wide) is near


def test_results_that_are_no_floats_have_no_nearness() -> None:
    assert not as_near(np.int64([1]), torch.tensor([2]), torch.tensor([1]))
    assert not as_near(np.float32([1]), torch.tensor([2.0]), torch.tensor([1.0]))


@pytest.mark.parametrize("got", [np.float64([1.0]), np.int64([1]), np.float32([[1.0]])])
def test_another_dtype_or_shape_is_near_to_nothing(got: Any) -> None:
    exact = torch.tensor([1.0], dtype=torch.float64)
    assert as_near(np.float32([1.0]), exact.float(), exact)
    assert not as_near(got, exact.float(), exact)


def test_where_torch_overflows_on_the_way_the_exact_value_counts() -> None:
    mild, wild = torch.tensor([[1.0, 2.0, 3.0, 4.0], [300.0, 300.0, 0.001, 0.001]]).half()
    drawn = replace(sample(torch.prod, mild), others=((wild,),))
    found = outcome(replace(drawn, dtype=torch.float16))
    assert (found.kind, found.reason.split(",")[0]) == ("ok", "as near to float64 as torch")


def test_memory_that_is_written_before_it_is_read_can_be_compared() -> None:
    assert outcome(sample(lambda x: torch.empty_like(x).copy_(x), X)) == SampleOutcome("ok")


def test_every_sample_is_in_the_denominator() -> None:
    found = {
        "a[0]": SampleOutcome("ok"), "a[1]": SampleOutcome("refused", "exit 4: no lowering"),
        "b[0]": SampleOutcome("not comparable", "takes no tensor"),
        "b[1]": SampleOutcome("wrong", "other"),
    }  # fmt: skip
    share, wrong, tracebacks = figures("float32", Counter(o.kind for o in found.values()))
    assert (share.value, share.hit) == (0.25, False)
    assert (wrong.value, wrong.hit, tracebacks.hit) == (1, False, True)
    assert ("refused", "exit 4: no lowering", ["a[1]"]) in by_reason(found)


def test_tables_count_outcomes_and_name_operators_by_reason() -> None:
    group = {"kind": "refused", "reason": "why", "samples": ["a[0]", "a[1]", "b[0]", "c[1]"]}
    measured = {"int64": {"samples": 9, "outcomes": {"ok": 5, "refused": 4}, "reasons": [group]}}
    assert outcomes(measured).rows[0].cells == ["int64", "9", "5", "4", "0", "0", "0"]
    assert reasons(measured).rows[0].cells == ["int64", "refused", "why", "4", "a, b, c"]
    assert reasons(measured, 1).rows[0].cells[-1] == "a and 2 more"


def part(ok: int, refused: int) -> dict[str, Any]:
    outcomes = {"ok": ok, "refused": refused}
    return {"environment": {"cpu": "one"}, "samples": ok + refused, "outcomes": outcomes}


def test_a_run_of_one_dtype_leaves_the_others_on_record(tmp_path: Path) -> None:
    put_on_record({"float32": part(3, 1)}, tmp_path)
    put_on_record({"int64": part(1, 1)}, tmp_path)
    claimed = put_on_record({"float32": part(4, 0)}, tmp_path)
    saved = json.loads((tmp_path / "operators.json").read_text())
    assert {d: p["outcomes"]["ok"] for d, p in saved["measured"].items()} == {
        "float32": 4, "int64": 1,
    }  # fmt: skip
    assert [f.value for f in claimed if "share" in f.what] == [1.0, 0.5]
    assert len(saved["figures"]) == 6


def test_an_operator_whose_process_ends_is_told_and_the_others_are_measured(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def in_a_process(_: Any, dtype: str, numbers: list[int], *, timeout: float) -> Any:
        if 1 in numbers:
            raise EngineError("its process was ended by SIGSEGV")
        return {f"{dtype} {n}": SampleOutcome("ok") for n in numbers}

    entry = type("Entry", (), {"name": "crashes"})
    monkeypatch.setattr(operator_runs, "operators", lambda dtype: [entry] * 5)
    monkeypatch.setattr(operator_runs, "isolated", in_a_process)
    monkeypatch.setattr(operator_runs, "TOGETHER", 3)
    found = measure("int64", [], jobs=2)
    assert list(found) == ["int64 0", "crashes", "int64 2", "int64 3", "int64 4"]
    assert found["crashes"].kind == "traceback" and "SIGSEGV" in found["crashes"].detail


@pytest.mark.slow
def test_samples_are_measured_in_another_process() -> None:
    assert measure("float32", ["addr"], jobs=2)["addr[0]"] == SampleOutcome("ok")
