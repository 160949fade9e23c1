"""Pass ``complex`` on Fourier transforms: along any axes, of any size, and under windows."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from complex_tools import Function, check, split
from program_tools import same_numbers
from torch import Tensor

SEED = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 8, generator=SEED)

ONE = ("fft", "ifft", "rfft", "irfft", "hfft", "ihfft")
SEVERAL = (
    *("fft2", "ifft2", "rfft2", "irfft2", "hfft2", "ihfft2"),
    *("fftn", "ifftn", "rfftn", "irfftn", "hfftn", "ihfftn"),
)
# Which axis, how many points of it (fewer, more, all), and how the result is scaled.
ALONG_ONE: list[dict[str, Any]] = [
    {},
    {"dim": 1, "norm": "ortho"},
    {"dim": 0, "norm": "forward"},
    {"n": 3, "norm": "ortho"},
    {"n": 9, "dim": -2, "norm": "forward"},
    {"n": 4, "dim": 1, "norm": "backward"},
]
ALONG_SEVERAL: list[dict[str, Any]] = [
    {},
    {"dim": (0, 1), "norm": "ortho"},
    {"dim": (-1, 0), "norm": "forward"},
    {"s": (4, 6)},
    {"s": (3, -1), "dim": (0, -1), "norm": "ortho"},
    {"s": (2, 7), "dim": (2, 1), "norm": "forward"},
]
OF_REALS = ("rfft", "ihfft", "rfft2", "rfftn", "ihfft2", "ihfftn")


def transforms(name: str, count: int = 6) -> Function:
    """One transform of reals, or of complex numbers, or of both, in the first of those ways."""
    every = (ALONG_ONE if name in ONE else ALONG_SEVERAL)[:count]
    function = getattr(torch.fft, name)

    def model(x: Tensor) -> list[Tensor]:
        given = [x] if name in OF_REALS else [torch.complex(x, x.flip(0) * 2)]
        if name in ("fft", "ifft2", "fftn", "irfft", "hfft", "irfftn"):
            given.append(x)
        return [function(g, **options) for g in given for options in every]

    return model


@pytest.mark.parametrize("name", (*ONE, *SEVERAL))
def test_transforms_along_any_axes(name: str) -> None:
    x = torch.randn(3, 5, 6, generator=SEED)
    check(transforms(name), x, tolerance=1e-4)


@pytest.mark.parametrize("name", ["ifft", "irfft", "hfft", "ihfft", "irfft2", "rfftn"])
def test_transforms_along_a_dynamic_axis(name: str) -> None:
    before, after = split(transforms(name, 2), torch.randn(3, 5, 6), dims={0: {1: ("n", 4, 12)}})
    for size in (4, 9):
        same_numbers(before, after, torch.randn(3, size, 6), tolerance=1e-4)


@pytest.mark.parametrize("name", ["fft", "rfft", "ihfft"])
def test_integers_are_transformed_as_floats(name: str) -> None:
    check(lambda x: getattr(torch.fft, name)(x, dim=0), torch.arange(12).view(3, 4))


WINDOW = torch.rand(8, generator=SEED) + 0.5
SIGNAL = torch.randn(2, 40, generator=SEED)
SPECTRA: dict[str, dict[str, Any]] = {
    "by default": {"n_fft": 8},
    "window": {"n_fft": 8, "window": WINDOW},
    "hop": {"n_fft": 8, "hop_length": 3, "window": WINDOW},
    "a size of many parts": {"n_fft": 12},
    "narrow window": {"n_fft": 8, "win_length": 4, "window": WINDOW[:4]},
    "odd window": {"n_fft": 8, "win_length": 5, "window": WINDOW[:5]},
    "narrow, without a window": {"n_fft": 8, "win_length": 5},
    "normalized": {"n_fft": 8, "normalized": True, "window": WINDOW},
    "odd size": {"n_fft": 7, "window": WINDOW[:7]},
    "as it is": {"n_fft": 8, "window": WINDOW, "center": False},
    "zeros around": {"n_fft": 8, "window": WINDOW, "pad_mode": "constant"},
}


@pytest.mark.parametrize("case", SPECTRA)
def test_spectrograms_with_and_without_a_batch(case: str) -> None:
    options = SPECTRA[case]

    def model(x: Tensor) -> list[Tensor]:
        return [torch.stft(signal, return_complex=True, **options) for signal in (x, x[1])]

    check(model, SIGNAL, tolerance=1e-4)


def test_a_spectrogram_that_pads_by_itself() -> None:
    def model(x: Tensor) -> list[Tensor]:
        made = torch.ops.aten.stft.center
        options = {"onesided": True, "return_complex": True, "window": WINDOW[:7]}
        return [
            made(x, 7, 2, center=True, pad_mode=mode, **options) for mode in ("reflect", "constant")
        ] + [made(x, 7, 2, center=False, **options)]

    check(model, SIGNAL, tolerance=1e-4)


SIGNALS: dict[str, dict[str, Any]] = {
    "window": {"n_fft": 8, "window": WINDOW},
    "hop": {"n_fft": 8, "hop_length": 3, "window": WINDOW},
    "no window": {"n_fft": 12},
    "narrow window": {"n_fft": 8, "hop_length": 2, "win_length": 5, "window": WINDOW[:5]},
    "narrow, without a window": {"n_fft": 8, "hop_length": 2, "win_length": 5},
    "normalized": {"n_fft": 8, "normalized": True, "window": WINDOW},
    "other size": {"n_fft": 6, "hop_length": 2},
    "as it is": {"n_fft": 8, "window": WINDOW, "center": False},
    "of a length": {"n_fft": 8, "window": WINDOW, "length": 9},
    "of a length, as it is": {"n_fft": 8, "window": WINDOW, "length": 9, "center": False},
}


@pytest.mark.parametrize("case", SIGNALS)
def test_signals_of_spectrograms_with_and_without_a_batch(case: str) -> None:
    options = SIGNALS[case]

    def model(x: Tensor) -> list[Tensor]:
        spectrum = torch.complex(x, x.flip(-1))
        return [torch.istft(one, **options) for one in (spectrum, spectrum[1])]

    check(model, torch.randn(2, options["n_fft"] // 2 + 1, 6, generator=SEED), tolerance=1e-4)


def test_signals_of_as_many_frames_as_there_are() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.istft(torch.complex(x, x.flip(-1)), 8, window=WINDOW)

    before, after = split(model, torch.randn(2, 5, 6), dims={0: {2: ("frames", 4, 20)}})
    same_numbers(before, after, torch.randn(2, 5, 11), tolerance=1e-4)


def test_a_transform_of_as_many_points_as_there_are_needs_no_others() -> None:
    whole = str(split(lambda x: torch.fft.fft(x, n=8), X)[1])
    assert "pad" not in whole and "slice" not in whole
    shorter = str(split(lambda x: torch.fft.fft(x, n=5), X)[1])
    assert "pad" not in shorter and "slice" in shorter
