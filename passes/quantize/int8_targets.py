"""Which targets multiply activations in int8."""

from __future__ import annotations

from strop.compiler.targets.target import Target


def why_no_int8(target: Target) -> str | None:
    """Why a target runs no program whose activations are int8; None if it does."""
    if target.computes_int8:
        return None
    return (
        f"{target.name} has no kernels for activations in int8: quantize weights alone, by pass "
        "'quantize-weights', or build for a target that has such kernels"
    )
