"""The benchmark of operators: what counts as right, wrong, refused, or not comparable."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from strop.bench.operator_outcomes import Outcome, difference, outcome
from strop.bench.operator_samples import Call, Sample
from strop.bench.operators import by_reason, figures

X = torch.linspace(-2, 2, 6)


def sample(function: Any, *arguments: Any, **named: Any) -> Sample:
    call = Call(function, (arguments[0], arguments[1:], named)).eval()
    return Sample("operator", 0, torch.float32, call, call.tensors(), ())


def test_a_call_binds_all_but_its_tensors() -> None:
    call = Call(torch.cat, ([X, X + 1], (), {"dim": 0}))
    assert len(call.tensors()) == 2
    assert torch.equal(call(X, X), torch.cat([X, X]))


def test_a_right_sample_is_ok() -> None:
    assert outcome(sample(torch.add, X, 2 * X, alpha=3)) == Outcome("ok")


def test_an_operator_without_a_lowering_is_refused_with_its_exit_code() -> None:
    found = outcome(sample(torch.matrix_exp, torch.eye(3)))
    assert (found.kind, found.reason) == ("refused", "exit 4: no lowering")
    assert "matrix_exp" in found.detail


@pytest.mark.parametrize(
    ("function", "reason"),
    [
        (torch.rand_like, "draws random numbers"),
        (lambda x: x.tolist(), "gives no tensor"),
        (lambda x: x.view(7), "torch itself does not run it here"),
        (lambda x: x.to_sparse(), "gives a tensor that is not dense"),
    ],
)
def test_what_cannot_be_compared_is_told_by_a_rule(function: Any, reason: str) -> None:
    assert outcome(sample(function, X)) == Outcome("not comparable", reason)


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


def test_every_sample_is_in_the_denominator() -> None:
    found = {
        "a[0]": Outcome("ok"), "a[1]": Outcome("refused", "exit 4: no lowering"),
        "b[0]": Outcome("not comparable", "takes no tensor"), "b[1]": Outcome("wrong", "other"),
    }  # fmt: skip
    share, wrong, tracebacks = figures("float32", found.values())
    assert (share.value, share.hit) == (0.25, False)
    assert (wrong.value, wrong.hit, tracebacks.hit) == (1, False, True)
    assert ("refused", "exit 4: no lowering", ["a[1]"]) in by_reason(found)
