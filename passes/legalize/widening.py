"""The dtypes that a target does not compute in, and the wider ones that take their place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from strop.compiler.targets.target import Target

# Narrow dtypes, and the wider ones that may replace them: these hold all values of the narrow ones.
_FLOATS = ((torch.float16, torch.bfloat16), (torch.float32, torch.float64))
_INTEGERS = ((torch.int8, torch.int16, torch.uint8), (torch.int32, torch.int64))


@dataclass(frozen=True)
class Widening:
    """For each dtype that the target does not compute in, the one to compute in instead."""

    floats: Mapping[torch.dtype, torch.dtype]
    integers: Mapping[torch.dtype, torch.dtype]

    @staticmethod
    def of(target: Target, all_floats: bool = False) -> Widening:
        """What a target's own dtypes make of the narrow ones.

        Args:
            target: where the program will run.
            all_floats: floats of 16 bits are widened also where the target computes in them.
        """
        floats = _wider(target, *_FLOATS, all_floats)
        return Widening(floats, _wider(target, *_INTEGERS))

    @property
    def all(self) -> Mapping[torch.dtype, torch.dtype]:
        """Floats and integers."""
        return {**self.floats, **self.integers}

    def note(self, found: set[torch.dtype]) -> list[str]:
        """Which floats of a program are computed in which others, in a sentence for each."""
        sentences = []
        for wide in dict.fromkeys(self.floats.values()):
            names = sorted(_name(d) for d in found if self.floats.get(d) == wide)
            if names:
                sentences.append(f"{' and '.join(names)} is computed in {_name(wide)}")
        return sentences


def _wider(
    target: Target,
    narrow: Sequence[torch.dtype],
    wide: Sequence[torch.dtype],
    all_of_them: bool = False,
) -> dict[torch.dtype, torch.dtype]:
    first = next((dtype for dtype in wide if target.computes(dtype)), None)
    if first is None:
        return {}
    return {d: first for d in narrow if all_of_them or not target.computes(d)}


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
