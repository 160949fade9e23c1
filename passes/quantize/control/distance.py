"""How far the outputs of a quantized program are from those of the float program."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Literal

import torch
from torch import Tensor

from strop.compiler.util.errors import UsageError

# A logit of which softmax is 0.
_IMPOSSIBLE = -1e30
Kind = Literal["cosine", "kl"]
Outputs = Sequence[Tensor]
Distance = Callable[[Outputs, Outputs], float]
"""``distance(got, want)``: 0 where both are equal, larger where they are further apart."""


def cosine(got: Outputs, want: Outputs) -> float:
    """1 - the mean cosine of rows (last axis), of the worst float output."""
    return _worst(1 - float(_cosines(a, b).mean()) for a, b in _floats(got, want, 0.0))


def kl(got: Outputs, want: Outputs) -> float:
    """KL(want || got) in nats, of softmax over the last axis, mean of rows; of the worst output.

    Kullback and Leibler, On Information and Sufficiency (1951): sum of p (log p - log q).
    """
    return _worst(_divergence(a, b) for a, b in _floats(got, want, _IMPOSSIBLE))


DISTANCES: dict[Kind, Distance] = {"cosine": cosine, "kl": kl}


def require_floats(outputs: Outputs) -> None:
    """Check that a distance can be measured on outputs.

    Raises:
        UsageError: none of them is a float tensor with elements.
    """
    if not any(map(_is_float, outputs)):
        raise UsageError(
            "no output is a float tensor, so that no distance from the original can be measured: "
            "give a metric of the model's evaluate"
        )


def _is_float(output: Tensor) -> bool:
    return output.is_floating_point() and output.ndim > 0 and output.numel() > 0


def _worst(distances: Iterable[float]) -> float:
    """The largest; infinite where one is no number: an output holds NaN that had none."""
    return max(math.inf if math.isnan(one) else one for one in distances)


def _floats(got: Outputs, want: Outputs, instead: float) -> Iterator[tuple[Tensor, Tensor]]:
    """The float outputs that have elements, in float64.

    Where the output in float is NaN or infinite, as masked logits are, both are ``instead``.
    """
    require_floats(want)
    for a, b in zip(got, want):
        if _is_float(b):
            finite = b.isfinite()
            a, b = (t.detach().double().where(finite, instead) for t in (a, b))
            yield a, b


def _cosines(a: Tensor, b: Tensor) -> Tensor:
    """Of each row; two rows of zeros agree, and one of them with no other row."""
    norms = a.norm(dim=-1) * b.norm(dim=-1)
    both_zero = (a.abs().amax(-1) == 0) & (b.abs().amax(-1) == 0)
    return torch.where(both_zero, 1.0, (a * b).sum(-1) / norms.where(norms > 0, 1.0))


def _divergence(got: Tensor, want: Tensor) -> float:
    p, q = want.log_softmax(-1), got.log_softmax(-1)
    return float((p.exp() * (p - q)).sum(-1).mean())
