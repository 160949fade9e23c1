"""Singular values by Jacobi's one-sided rotations, in float64, and what is computed from them.

Pairs of columns are rotated until all are orthogonal; their lengths are the singular values. Half
of the columns meet the other half in each round of a tournament, as in R. P. Brent and F. T. Luk,
The solution of singular-value and symmetric eigenvalue problems on multiprocessor arrays (1985).
Before that, two orthogonal factorizations make it converge faster, as in Z. Drmač and
K. Veselić, New fast and accurate Jacobi SVD algorithm I (2008).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from strop.compiler.lower.onnx.formulas.matrices import require_fixed
from strop.compiler.lower.onnx.formulas.reflections import orthogonal_factors, triangular_factor
from strop.compiler.lower.onnx.formulas.registry import formula
from strop.compiler.lower.onnx.formulas.repeat import repeat

aten = torch.ops.aten
# Every pair of columns meets once in a sweep. Eight were enough in all trials up to 64 columns.
_SWEEPS = 12

SIGNS = (
    "the signs of its vectors are free, and a file cannot choose them as torch does; the values "
    "alone can be had from torch.linalg.{0}"
)


def _angle(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Cosine and sine of the smaller turn that makes pairs of columns orthogonal; [..., 1, pairs].

    Matrix Computations, 4th edition, 8.5.2.
    """
    product = 2 * (x * y).sum(-2, keepdim=True)
    difference = (y * y).sum(-2, keepdim=True) - (x * x).sum(-2, keepdim=True)
    size = difference.abs() + (difference * difference + product * product).sqrt()
    sign = torch.where(difference < 0, -product, product)
    tangent = torch.where(size > 0, sign / torch.where(size > 0, size, 1.0), 0.0)
    cosine = (1 + tangent * tangent).rsqrt()
    return cosine, cosine * tangent


def _turned(columns: Tensor, angle: tuple[Tensor, Tensor], order: Tensor) -> Tensor:
    """Rotate each column of the left half with its partner on the right; then permute them."""
    half = columns.shape[-1] // 2
    x, y, (cosine, sine) = columns[..., :half], columns[..., half:], angle
    both = torch.cat([cosine * x - sine * y, sine * x + cosine * y], -1)
    return both.index_select(-1, order)


def _round(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """A round on the first tensor of the state; the others get the same rotations."""
    half = state[0].shape[-1] // 2
    angle = _angle(state[0][..., :half], state[0][..., half:])
    return [_turned(columns, angle, fixed[0]) for columns in state]


def _tournament(columns: int, like: Tensor) -> Tensor:
    """The permutation after a round: the first column stays, the others move by one place."""
    half = columns // 2
    ends = [(0, 1), (half, half + 1), (1, half - 1), (half + 1, columns), (half - 1, half)]
    parts = [torch.arange(a, b, device=like.device) for a, b in (ends if half > 1 else [(0, 2)])]
    return torch.cat(parts)


def _orthogonal(columns: Tensor, *others: Tensor) -> list[Tensor]:
    """Rotate columns until they are orthogonal, and other tensors by the same rotations."""
    state = [columns, *others]
    count = columns.shape[-1]
    if count % 2:
        state = [torch.nn.functional.pad(s, (0, 1)) for s in state]
    even = count + count % 2
    order = _tournament(even, columns)
    return [s[..., :count] for s in repeat(_round, _SWEEPS * (even - 1), state, [order])]


def _by_length(x: Tensor) -> tuple[Tensor, Tensor]:
    """The columns, the longest first, and where each came from; int64 [..., columns]."""
    _, order = torch.sort((x * x).sum(-2), dim=-1, descending=True)
    return x.gather(-1, order.unsqueeze(-2).expand(x.shape)), order


def singular_values(x: Tensor) -> Tensor:
    """The largest first; float64 [..., the smaller of rows and columns]."""
    require_fixed(x)
    tall = x.to(torch.float64) if x.shape[-2] >= x.shape[-1] else x.to(torch.float64).mT
    if 0 in tall.shape[-2:]:
        return tall.new_zeros((*tall.shape[:-2], tall.shape[-1]))
    first = triangular_factor(_by_length(tall)[0])
    second = triangular_factor(_by_length(first.mT)[0])
    (columns,) = _orthogonal(second.mT)
    lengths = (columns * columns).sum(-2).sqrt()
    return torch.sort(lengths, dim=-1, descending=True)[0]


def right_vectors(x: Tensor) -> tuple[Tensor, Tensor]:
    """An orthogonal V such that ``x V`` has orthogonal columns, and their lengths, in any order.

    Args:
        x: float64, of fixed sizes that are not 0, with no fewer rows than columns.
    """
    ordered, order = _by_length(x)
    again, places = _by_length(triangular_factor(ordered).mT)
    q, r = orthogonal_factors(again)
    q = q.gather(-2, order.argsort(-1).unsqueeze(-1).expand(q.shape))
    columns, vectors = _orthogonal(r.mT, q)
    return vectors, (columns * columns).sum(-2).sqrt()


def _empty_vectors(x: Tensor, full: bool) -> tuple[Tensor, Tensor]:
    """U and V of matrices without elements: unit matrices, or nothing.

    Raises:
        NotImplementedError: there are elements.
    """
    if 0 not in x.shape[-2:]:
        raise NotImplementedError(SIGNS.format("svdvals"))
    u, v = (torch.eye(n, n if full else 0, dtype=x.dtype, device=x.device) for n in x.shape[-2:])
    return u.expand(*x.shape[:-2], *u.shape), v.expand(*x.shape[:-2], *v.shape)


@formula(aten._linalg_svd.default)
def svd_values(
    x: Tensor, full_matrices: bool = False, compute_uv: bool = True, *, driver: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """The singular values; torch's own operators read no vectors of them, which are NaN."""
    rows, columns = x.shape[-2:]
    count = min(rows, columns)
    left, right = (rows, columns) if full_matrices else (count, count)
    u = x.new_full((*x.shape[:-1], left), torch.nan)
    v = x.new_full((*x.shape[:-2], right, columns), torch.nan)
    return u, singular_values(x).to(x.dtype), v


@formula(aten.linalg_svd.default)
def svd(
    x: Tensor, full_matrices: bool = True, *, driver: str | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """U, values and Vᵀ, of matrices without elements only."""
    u, v = _empty_vectors(x, full_matrices)
    return u, singular_values(x).to(x.dtype), v.mT


@formula(aten.svd.default)
def old_svd(x: Tensor, some: bool = True, compute_uv: bool = True) -> tuple[Tensor, Tensor, Tensor]:
    """U, values and V, of matrices without elements only; vectors that are not asked for are 0."""
    if compute_uv:
        u, v = _empty_vectors(x, full=not some)
    else:
        u, v = (x.new_zeros((*x.shape[:-2], n, n)) for n in x.shape[-2:])
    return u, singular_values(x).to(x.dtype), v
