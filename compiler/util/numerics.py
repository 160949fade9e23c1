"""How far one set of outputs is from another, in the measures people quote."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pydantic

from strop.compiler.util.files.parsing import Strict

Array = np.ndarray[Any, Any]
# What stands for a ratio of -inf where JSON keeps it: noise, and no signal.
FLOOR_DB = -300.0


class DriftValues(Strict):
    """The distance of outputs from what they should be, as a record on disk holds it.

    Each measure is the worst output's.
    """

    model_config = pydantic.ConfigDict(use_attribute_docstrings=True)

    output: str
    """The output with the largest error relative to its magnitude."""
    max_abs: float | None
    """Largest |got - want|; null where it is not finite."""
    sqnr_db: float | None
    """Signal-to-quantization-noise ratio, 10 log10(sum want^2 / sum (want - got)^2), in dB; null
    where nothing differs."""
    cosine: float | None
    """Mean cosine of the rows (last axis); null without float outputs."""
    agreement: float
    """Share of rows with the same argmax; of equal elements where not float."""
    finite: bool
    """False if NaN or an infinity appears where the other has none, or a different one."""


class Drift(DriftValues):
    """The same as it was measured.

    Attributes:
        max_abs: may be infinite or NaN.
        sqnr_db: -inf where outputs differ and all that they should be is zero.
    """

    model_config = pydantic.ConfigDict(frozen=True, allow_inf_nan=True)

    max_abs: float

    def above(self, noise_db: float) -> bool:
        """Whether this is more than noise; of values that are not float, any difference is."""
        if self.cosine is None:
            return self.agreement < 1
        return not self.finite or (self.sqnr_db is not None and self.sqnr_db < noise_db)

    def rounded(self) -> dict[str, Any]:
        """For a manifest: a few significant digits; JSON has neither NaN nor infinity."""
        return self.model_dump() | {
            "max_abs": float(f"{self.max_abs:.2e}") if math.isfinite(self.max_abs) else None,
            "sqnr_db": None if self.sqnr_db is None else round(max(self.sqnr_db, FLOOR_DB), 1),
            "cosine": None if self.cosine is None else round(self.cosine, 5),
            "agreement": round(self.agreement, 4),
        }


def drift(got: Mapping[str, Array], want: Mapping[str, Array]) -> Drift:
    """Compare outputs by name.

    Raises:
        ValueError: names or shapes differ.
    """
    if set(got) != set(want):
        raise ValueError(f"outputs are {sorted(got)}, expected {sorted(want)}")
    found = {name: _drift(name, got[name], want[name]) for name in want}
    worst = max(found, key=lambda n: _severity(found[n], want[n]))
    ratios = [d.sqnr_db for d in found.values() if d.sqnr_db is not None]
    cosines = [d.cosine for d in found.values() if d.cosine is not None]
    return Drift(
        output=worst,
        max_abs=max((d.max_abs for d in found.values()), key=_nan_last),
        sqnr_db=min(ratios, default=None),
        cosine=min(cosines, default=None),
        agreement=min(d.agreement for d in found.values()),
        finite=all(d.finite for d in found.values()),
    )


def _severity(found: Drift, want: Array) -> float:
    scale = float(np.abs(want.astype(np.float64)).max(initial=1e-30))
    return _nan_last(found.max_abs / scale)


def _nan_last(value: float) -> float:
    return math.inf if math.isnan(value) else value


def _drift(name: str, got: Array, want: Array) -> Drift:
    if got.shape != want.shape:
        raise ValueError(f"'{name}' has shape {got.shape}, expected {want.shape}")
    a, b = without_shared_infinities(got.astype(np.float64), want.astype(np.float64))
    with np.errstate(invalid="ignore", over="ignore"):
        max_abs = float(np.abs(a - b).max(initial=0.0))
    finite, ratio, cosine = True, None, None
    if want.dtype.kind != "f":
        agreement = float((got == want).mean()) if want.size else 1.0
    else:
        agreement = _same_argmax(a, b)
        finite = bool(np.isfinite(a).all() and np.isfinite(b).all())
        ratio, cosine = (sqnr(a, b), row_cosine(a, b)) if finite else (-math.inf, -1.0)
    return Drift(
        output=name,
        max_abs=max_abs,
        sqnr_db=ratio,
        cosine=cosine,
        agreement=agreement,
        finite=finite,
    )


def without_shared_infinities(got: Array, want: Array) -> tuple[Array, Array]:
    """Two arrays with zeros where both hold the same infinity, or NaN: no difference there."""
    shared = ~np.isfinite(want) & ((got == want) | (np.isnan(got) & np.isnan(want)))
    return np.where(shared, 0.0, got), np.where(shared, 0.0, want)


def sqnr(got: Array, want: Array) -> float | None:
    """Signal-to-quantization-noise ratio in dB; None where nothing differs."""
    noise = float(((want - got) ** 2).sum())
    signal = float((want**2).sum())
    if noise == 0:
        return None
    return 10 * math.log10(signal / noise) if signal else -math.inf


def row_cosine(a: Array, b: Array) -> float:
    """Mean cosine of the rows (last axis) of two float64 arrays of one shape."""
    cosines = row_cosines(np.atleast_1d(a), np.atleast_1d(b))
    return float(cosines.mean()) if cosines.size else 1.0


def row_cosines(a: Array, b: Array) -> Array:
    """The cosine of each row (last axis) of two float64 arrays of one shape."""
    norms = np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1)
    dots = (a * b).sum(-1)
    # Two rows of zeros agree; a row of zeros against anything else does not.
    both_zero = (np.abs(a).max(-1, initial=0) == 0) & (np.abs(b).max(-1, initial=0) == 0)
    cosines: Array = np.where(both_zero, 1.0, dots / np.where(norms == 0, 1.0, norms))
    return cosines


def _same_argmax(a: Array, b: Array) -> float:
    a, b = np.atleast_1d(a), np.atleast_1d(b)
    if a.size == 0:
        return 1.0
    return float((a.argmax(-1) == b.argmax(-1)).mean())
