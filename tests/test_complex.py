"""Complex numbers as pairs of reals: in the IR, and in the file at every size of a small range."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from file_tools import File
from program_tools import body, program_of
from torch import Tensor

from strop.compiler.util.errors import UnsupportedError
from strop.passes.legalize.complex import SplitComplex

fft = torch.fft
Function = Callable[..., Any]
ROWS = {"x": {0: "rows"}}
ROOTS = torch.polar(torch.ones(4), torch.arange(4.0))


def z(x: Tensor) -> Tensor:
    """[rows, 8] -> complex [rows, 4]."""
    return torch.view_as_complex(x.reshape(-1, 4, 2))


def r(x: Tensor) -> Tensor:
    return torch.view_as_real(x)


NUMBERS: dict[str, Function] = {
    "product": lambda x: r(z(x) * z(x + 1)),
    "product with a real": lambda x: r(z(x) * x[:, :4]),
    "real with a product": lambda x: r(x[:, :1] * z(x)),
    "constants": lambda x: r((2j * z(x) + 1 - 3j) * 2 - 1),
    "a weight": lambda x: r(z(x) * ROOTS),
    "sums": lambda x: r(z(x) + z(x[:, :2].repeat(1, 4))[:, :1] - x[:, :4]),
    "scaled sum": lambda x: r(torch.add(z(x), z(x), alpha=3)),
    "quotient": lambda x: r(z(x) / (z(x.flip(1)) + 3)),
    "quotient by a real": lambda x: r(z(x) / (x[:, :4].abs() + 1)),
    "reciprocal": lambda x: r((z(x) + 2).reciprocal()),
    "by a constant": lambda x: r(z(x) / (1 + 2j)),
    "abs": lambda x: z(x).abs(),
    "angle": lambda x: z(x).angle(),
    "conj": lambda x: r(z(x).conj() * z(x)),
    "real and imaginary": lambda x: (z(x).real, z(x).imag),
    "exp": lambda x: r(torch.exp(z(x))),
    "log": lambda x: r(torch.log(z(x) + 3)),
    "sqrt": lambda x: r(torch.sqrt(z(x) + 3)),
    "square": lambda x: r(z(x) ** 2),
    "sgn": lambda x: r(torch.sgn(z(x))),
    "polar": lambda x: r(torch.polar(x.abs(), x * 2)),
    "complex": lambda x: r(torch.complex(x, x * 2)),
    "from a real": lambda x: r(x.to(torch.complex64) * 1j),
    "negated": lambda x: r(-z(x)),
    "matmul": lambda x: r(z(x) @ z(x).mT),
    "einsum": lambda x: r(torch.einsum("bi,bj->bij", z(x), z(x + 1))),
}
SHAPES: dict[str, Function] = {
    "reshape": lambda x: r(z(x).reshape(-1, 2, 2).flatten(1)),
    "transpose": lambda x: r(z(x).T.unsqueeze(-1).transpose(-1, 0)),
    "permute": lambda x: r(z(x).reshape(-1, 2, 2).permute(2, 0, -2)),
    "expand": lambda x: r(z(x)[:, None].expand(-1, 3, -1)),
    "repeat": lambda x: r(z(x).repeat(2, 2)),
    "slices": lambda x: r(z(x)[:, 1:3] + z(x)[:, -2:]),
    "one row": lambda x: r(z(x)[:, -1]),
    "index": lambda x: r(z(x)[:, torch.tensor([2, 0])]),
    "cat": lambda x: r(torch.cat([z(x), z(x) * 2], dim=-1)),
    "stack": lambda x: r(torch.stack([z(x), z(x) * 2], dim=-1)),
    "parts": lambda x: r(z(x).chunk(2, -1)[1] * z(x).unbind(-1)[0][:, None]),
    "sum": lambda x: r(z(x).sum(-1)),
    "sum of all": lambda x: r(z(x).sum()),
    "mean": lambda x: r(z(x).mean(-1, keepdim=True)),
    "cumsum": lambda x: r(z(x).cumsum(-1)),
    "flip and roll": lambda x: r(z(x).flip(-1).roll(1, -1)),
    "where": lambda x: r(torch.where(x[:, :4] > 0, z(x), z(x) * 2)),
    "masked": lambda x: r(z(x).masked_fill(x[:, :4] > 0, 0)),
    "padded": lambda x: r(torch.nn.functional.pad(z(x), (1, 2))),
    "squeeze": lambda x: r(z(x)[:, None].squeeze(1)),
    "shifted": lambda x: r(fft.fftshift(z(x), dim=-1)),
}


@pytest.mark.parametrize("name", NUMBERS | SHAPES)
def test_at_every_number_of_rows(name: str) -> None:
    generator = torch.Generator().manual_seed(0)
    function = (NUMBERS | SHAPES)[name]
    file = File(function, (torch.randn(3, 8, generator=generator),), ROWS)
    for rows in (1, 2, 5):
        file.agrees(torch.randn(rows, 8, generator=generator))


def check_transform(function: Function, shape: tuple[int, ...], axis: int) -> None:
    """At fixed sizes, and with one axis dynamic at every size of a small range."""
    torch.manual_seed(0)
    File(function, (torch.randn(shape),)).agrees(torch.randn(shape))
    file = File(function, (torch.randn(shape),), {"x": {axis: ("n", 2, 16)}})
    for size in (*range(2, 10), 16):
        file.agrees(torch.randn([size if i == axis else s for i, s in enumerate(shape)]))


def parts(value: Tensor) -> Tensor:
    return torch.view_as_real(value.resolve_conj()) if value.is_complex() else value


ONE = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
SEVERAL = (
    "fft2", "ifft2", "rfft2", "irfft2", "hfft2", "ihfft2",
    "fftn", "ifftn", "rfftn", "irfftn", "hfftn", "ihfftn",
)  # fmt: skip
TAKES_COMPLEX = ("irfft", "hfft", "irfft2", "irfftn", "hfft2", "hfftn", "ifft", "ifft2")


def transform(name: str, **options: Any) -> Function:
    def function(x: Tensor) -> Tensor:
        given = torch.complex(x, x.flip(0) * 2) if name in TAKES_COMPLEX else x
        return parts(getattr(fft, name)(given, **options))

    return function


NORMS = ("backward", "ortho", "forward")
EVERY_ONE = list(itertools.product(ONE, (None, 5, 8, 12), (-1, 0), NORMS))
EVERY_OTHER = [
    (name, {"dim": dim, "norm": norm} | ({} if s is None else {"s": s}))
    for name, dim, norm, s in itertools.product(SEVERAL, ((0, 1), (-1, 0)), NORMS, (None, (4, 6)))
]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fft", {"dim": 0}), ("ifft", {"norm": "ortho"}), ("rfft", {"n": 5}), ("irfft", {}),
        ("irfft", {"n": 7, "norm": "forward"}), ("hfft", {}), ("ihfft", {}), ("rfft2", {}),
        ("irfft2", {}), ("fftn", {"norm": "ortho"}), ("hfft2", {"norm": "ortho"}), ("ihfftn", {}),
    ],
)  # fmt: skip
def test_a_sample_of_transforms(name: str, options: dict[str, Any]) -> None:
    check_transform(transform(name, **options), (6, 7), options.get("dim", 1))


HALF_SPECTRA = ("irfft", "hfft", "irfft2", "hfft2", "irfftn", "hfftn")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.int64, torch.bool])
@pytest.mark.parametrize("name", HALF_SPECTRA)
def test_half_a_spectrum_may_be_given_as_reals(name: str, dtype: torch.dtype) -> None:
    function = getattr(fft, name)
    torch.manual_seed(0)
    file = File(function, ((3 * torch.randn(4, 5)).to(dtype),), {"x": {1: ("n", 2, 16)}})
    for size in (2, 3, 6, 7, 16):
        file.agrees((3 * torch.randn(4, size)).to(dtype))


@pytest.mark.slow
@pytest.mark.parametrize(("name", "n", "dim", "norm"), EVERY_ONE)
def test_every_transform_along_an_axis(name: str, n: int | None, dim: int, norm: str) -> None:
    check_transform(transform(name, n=n, dim=dim, norm=norm), (6, 7), dim % 2)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options"), EVERY_OTHER)
def test_every_transform_along_two_axes(name: str, options: dict[str, Any]) -> None:
    check_transform(transform(name, **options), (6, 7), 1)


def spectrogram(**options: Any) -> Function:
    width = options.pop("width", 8)
    window = torch.hann_window(width) if width else None
    return lambda x: torch.stft(x, 8, window=window, win_length=width or None,
                                return_complex=True, **options)  # fmt: skip


SPECTROGRAMS: dict[str, dict[str, Any]] = {
    "centred": {},
    "as it is": {"center": False, "hop_length": 3},
    "narrow window": {"width": 6, "hop_length": 4},
    "odd window": {"width": 5},
    "no window": {"width": 0, "normalized": True},
    "zeros around": {"pad_mode": "constant"},
}


@pytest.mark.parametrize("name", SPECTROGRAMS)
def test_spectrograms(name: str) -> None:
    made = spectrogram(**SPECTROGRAMS[name])
    axes = {"x": {0: "batch", 1: ("samples", 9, 100)}}
    file = File(lambda x: made(x).abs(), (torch.randn(2, 24),), axes)
    for samples in (9, 10, 16, 31, 100):
        file.agrees(torch.randn(3, samples))
    File(lambda x: parts(made(x)), (torch.randn(24),)).agrees(torch.randn(24))


@pytest.mark.parametrize("length", [None, 20])
@pytest.mark.parametrize("center", [True, False])
def test_signals_from_spectrograms(length: int | None, center: bool) -> None:
    window = torch.hamming_window(8)

    def there_and_back(x: Tensor) -> Tensor:
        there = torch.stft(x, 8, 4, window=window, return_complex=True, center=center)
        return torch.istft(there * 2, 8, 4, window=window, length=length, center=center)

    axes = {"x": {0: "batch", 1: ("samples", 24, 96)}}
    file = File(there_and_back, (torch.randn(2, 32),), axes)
    for samples in (24, 27, 96):
        file.agrees(torch.randn(1, samples), tolerance=1e-4)


def test_a_rotation_as_text() -> None:
    def rotated(x: Tensor) -> Tensor:
        return r(z(x) * z(x))

    before = program_of(rotated, torch.randn(3, 8), dims={0: {0: "rows"}})
    after = SplitComplex().run(before).program
    assert "c64[rows, 4] = aten.mul.Tensor" in body(before)
    assert body(after).splitlines()[-8:] == [
        "  %mul_tensor : f32[rows, 4] = aten.mul.Tensor(%select_int, %select_int_2)",
        "  %mul_tensor_1 : f32[rows, 4] = aten.mul.Tensor(%select_int_1, %select_int_3)",
        "  %sub_tensor : f32[rows, 4] = aten.sub.Tensor(%mul_tensor, %mul_tensor_1)",
        "  %mul_tensor_2 : f32[rows, 4] = aten.mul.Tensor(%select_int, %select_int_3)",
        "  %mul_tensor_3 : f32[rows, 4] = aten.mul.Tensor(%select_int_1, %select_int_2)",
        "  %add_tensor : f32[rows, 4] = aten.add.Tensor(%mul_tensor_2, %mul_tensor_3)",
        "  %stack_default : f32[rows, 4, 2] = aten.stack([%sub_tensor, %add_tensor], -1)",
        '  return "output": %stack_default',
    ]


def test_what_has_no_form_on_pairs_is_left_and_named() -> None:
    def unusual(x: Tensor) -> Tensor:
        return r(torch.tanh(z(x)) * 2)

    before = program_of(unusual, torch.randn(3, 8))
    result = SplitComplex().run(before)
    assert str(result.program) == str(before)
    assert "%tanh" in result.log.misses[0].root
    assert "no form on pairs" in result.log.misses[0].reason


@pytest.mark.parametrize(
    ("function", "inputs"),
    [(lambda x: x.abs(), torch.ones(2, dtype=torch.complex64)), (z, torch.randn(3, 8))],
    ids=["input", "output"],
)
def test_complex_inputs_and_outputs_are_refused(function: Function, inputs: Tensor) -> None:
    with pytest.raises(UnsupportedError, match="view_as_real"):
        File(function, (inputs,))
