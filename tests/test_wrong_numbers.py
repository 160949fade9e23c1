"""Models of which a wrong file could pass for a right one: held to torch where it showed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from strop.compiler import Artifact, Model, build, load
from strop.compiler.check.comparison import Comparison
from strop.compiler.check.limits import hold_to_budget
from strop.compiler.recipes.budget import Budget
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.util.errors import BudgetError, UnsupportedError

GENERATOR = torch.Generator().manual_seed(0)


def x(*shape: int) -> Tensor:
    return torch.randn(shape, generator=GENERATOR)


def holds(artifact: Artifact, module: nn.Module, *inputs: Tensor, tolerance: float = 1e-5) -> None:
    """Whether the file gives what the module does, at inputs of which its check knew nothing."""
    names = [spec["name"] for spec in artifact.manifest["contract"]["inputs"]]
    got = load(artifact.path)(**{n: t.numpy() for n, t in zip(names, inputs)})
    want = module(*inputs)
    for a, b in zip(got, want if isinstance(want, tuple) else (want,), strict=True):
        assert a.shape == tuple(b.shape)
        np.testing.assert_allclose(a, b.detach().numpy(), atol=tolerance, rtol=tolerance)


class NamedAlike(nn.Module):
    """A buffer with the name of an input."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mask", torch.ones(4, 4).tril().bool())
        self.register_buffer("masked_fill", torch.ones(4, 4))

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x.masked_fill(~(self.mask & mask), 0.0) + self.masked_fill  # type: ignore[operator]


def test_a_weight_named_like_an_input_does_not_replace_it(tmp_path: Path) -> None:
    module = NamedAlike().eval()
    given = {"x": x(4, 4), "mask": torch.ones(4, 4, dtype=torch.bool)}
    artifact = build(Model(module, given), tmp_path / "out")
    holds(artifact, module, x(4, 4), x(4, 4) > 0)


class EchoesItsInput(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> dict[str, Tensor]:
        return {"y": x * mask, "mask": mask & (x > 0)}


def test_an_output_named_like_an_input_is_refused(tmp_path: Path) -> None:
    given = {"x": x(4), "mask": torch.ones(4, dtype=torch.bool)}
    with pytest.raises(UnsupportedError, match="'mask' is the name of an input and of an output"):
        build(Model(EchoesItsInput().eval(), given), tmp_path / "out")


class OneSize(nn.Module):
    def __init__(self, period: int = 0) -> None:
        super().__init__()
        self.period = period

    def forward(self, x: Tensor) -> Tensor:
        if self.period:
            return x * 2 if x.shape[1] % self.period == 0 else x
        return x * 2 if x.shape[1] == 100 else x


@pytest.mark.parametrize("period", [0, 50])
def test_a_branch_on_one_size_is_found(period: int, tmp_path: Path) -> None:
    model = Model(OneSize(period).eval(), {"x": x(2, 16)}, {"x": {1: ("seq", 2, 512)}})
    with pytest.raises(UnsupportedError, match="behaves differently at"):
        build(model, tmp_path / "out")


class RepeatedKeys(nn.Module):
    """The row of the mask is 0 for every batch: ``arange(1)`` is no index along the batch."""

    def forward(self, q: Tensor, keep: Tensor) -> Tensor:
        batch, length = keep.shape
        rows = torch.arange(1)[:, None, None, None]
        keys = torch.arange(length)[None, None, None, :].expand(batch, 1, 1, length)
        return F.scaled_dot_product_attention(q, q, q, keep[rows, keys])


def test_an_index_that_is_repeated_is_no_padding_mask(tmp_path: Path) -> None:
    module, shape = RepeatedKeys().eval(), (2, 2, 5, 4)
    given = {"q": x(*shape), "keep": torch.ones(2, 5, dtype=torch.bool)}
    artifact = build(Model(module, given), tmp_path / "out")
    keep = torch.tensor([[1, 1, 0, 1, 0], [0, 1, 1, 1, 1]]).bool()
    holds(artifact, module, x(*shape), keep)


class TwoSoftmaxes(nn.Module):
    def forward(self, q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        weights = (q @ k.transpose(-1, -2)).softmax(-2)
        return (weights * 10).softmax(-1) @ v


class Windows(nn.Module):
    """Windows of several images, with a mask for each window of an image."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.register_buffer("mask", x(4, 9, 9))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).view(8, 9, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (q @ k.transpose(-2, -1)).view(2, 4, 2, 9, 9) + self.mask[None, :, None]  # type: ignore[index]
        out: Tensor = scores.view(8, 2, 9, 9).softmax(-1) @ v
        return out


class DoubleValues(nn.Module):
    def forward(self, q: Tensor) -> Tensor:
        weights = F.softmax(q @ q.mT, -1, dtype=torch.float64)
        return (weights @ q.double()).float()


class SmallerValues(nn.Module):
    """Causal and padded, with heads of values half as wide as those of queries."""

    def forward(self, q: Tensor, keep: Tensor) -> Tensor:
        batch, length = keep.shape
        rows = torch.arange(batch)[:, None, None, None]
        keys = torch.arange(length)[None, None, None, :]
        queries = torch.arange(length)[None, None, :, None]
        mask = (keys <= queries) & keep[rows, keys]
        return F.scaled_dot_product_attention(q, q, q[..., :2], mask)


class FixedEps(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1)


class OnAnExpression(nn.Module):
    """A linear layer on a part of a parameter, and one on a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(x(24, 8)), nn.Parameter(x(8))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return F.linear(x, self.w[:8]), F.linear(x, self.v)


class CausalBuffer(nn.Module):
    """A mask of -inf in a buffer, cut to length."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(8, 24)
        self.register_buffer("mask", nn.Transformer.generate_square_subsequent_mask(16))

    def forward(self, x: Tensor) -> Tensor:
        batch, length, _ = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, 2, 4).permute(2, 0, 3, 1, 4).unbind(0)
        return F.scaled_dot_product_attention(q, k, v, self.mask[:length, :length])  # type: ignore[index]


KEEP = torch.tensor([[1, 1, 1, 1, 0], [1, 1, 1, 0, 0]]).bool()
MODELS: dict[str, tuple[nn.Module, tuple[Tensor, ...]]] = {
    "two softmaxes": (TwoSoftmaxes(), (x(2, 2, 3, 4), x(2, 2, 5, 4), x(2, 2, 5, 4))),
    "windows": (Windows(), (x(8, 9, 8),)),
    "double values": (DoubleValues(), (x(2, 2, 3, 4),)),
    "smaller values": (SmallerValues(), (x(2, 2, 5, 4), KEEP)),
    "an integer eps": (FixedEps(), (x(3, 8),)),
    "on an expression": (OnAnExpression(), (x(3, 8),)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_built_as_it_is(name: str, tmp_path: Path) -> None:
    module, inputs = MODELS[name]
    module.eval()
    artifact = build(Model(module, inputs), tmp_path / "out")
    holds(artifact, module, *inputs)


@pytest.mark.parametrize(
    "module", [OnAnExpression(), CausalBuffer()], ids=lambda m: type(m).__name__
)
def test_what_int8_cannot_hold_stays_in_float(module: nn.Module, tmp_path: Path) -> None:
    inputs = x(3, 5, 8) if isinstance(module, CausalBuffer) else x(3, 8)
    axes: dict[int, Any] = {1: ("seq", 2, 16)} if inputs.dim() == 3 else {0: "rows"}
    model = Model(module.eval(), {"x": inputs}, {"x": axes})
    artifact = build(model, tmp_path / "out", "cpu-int8")
    holds(artifact, module, inputs, tolerance=0.3)


@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.complex64], ids=str)
def test_a_dtype_that_is_not_written_is_exit_4(dtype: torch.dtype, tmp_path: Path) -> None:
    class Cast(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.to(dtype).to(torch.float32) if not x.is_complex() else x.real

    given = torch.ones(4, dtype=dtype) if dtype == torch.complex64 else torch.ones(4)
    with pytest.raises(UnsupportedError):
        build(Model(Cast().eval(), (given,)), tmp_path / "out")


class Spectrum(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.rfft(x).tanh().abs()


def test_complex_numbers_without_a_formula_are_exit_4(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="complex numbers"):
        build(Model(Spectrum().eval(), (x(2, 8),)), tmp_path / "out")


class Conjugate(nn.Module):
    """torch notes a conjugate, and computes it later: NumPy takes no such tensor."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.fft.ihfft(x)


def test_a_conjugate_that_is_not_computed_yet_is_exit_4(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="complex"):
        build(Model(Conjugate().eval(), (x(2, 8),)), tmp_path / "out")


class Labels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(16, 8)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear(x).argmax(-1)
        return out


def test_labels_are_held_to_their_own_budget(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Model(Labels().eval(), {"x": x(256, 16)})
    artifact = build(model, tmp_path / "out", "cpu-int8")
    assert artifact.manifest["checks"][0]["max_error"] < 0.1
    strict = load_recipe("cpu-int8").override("budget.min_agreement=1.0")
    wrong = Comparison("x", "labels", 0.05, None, True, 100)
    with pytest.raises(BudgetError, match=r"95.00% equal elements .* \(budget 100.00%\)"):
        hold_to_budget([wrong], strict.budget, "nobody")


def test_labels_of_all_cases_count_together() -> None:
    one_of_one = Comparison("batch of one", "labels", 1.0, None, True, 1)
    rest = Comparison("the rest", "labels", 0.0, None, True, 99)
    budget = Budget(min_agreement=0.9)
    hold_to_budget([one_of_one, rest], budget, "nobody")
    with pytest.raises(BudgetError):
        hold_to_budget([one_of_one], budget, "nobody")
    with pytest.raises(BudgetError):  # without a bound of their own they are held to max_error
        hold_to_budget([one_of_one, rest], Budget(max_error=1e-4), "nobody")
    hold_to_budget([one_of_one, rest], Budget(min_cosine=0.9), "nobody")
