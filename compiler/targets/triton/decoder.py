"""A decoder on a launch plan whose caches stay on the plan's device from call to call."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from strop.compiler.targets.decoding import Names, Start
from strop.compiler.targets.triton.session import PlanSession, refusing
from strop.compiler.util.numerics import Array


class PlanDecoder:
    """Gives a plan ids and a mask; the caches that a call makes are what the next one reads.

    The sizes change with every token, so calls are walked step by step, and never captured as CUDA
    graphs: each graph would serve one token.
    """

    def __init__(self, session: PlanSession, names: Names, start: Start) -> None:
        """Start with empty caches.

        Args:
            session: of the decoder's plan.
            names: of its inputs and outputs.
            start: its inputs before the first call.

        Raises:
            RuntimeRefusedError: these do not fit the plan.
        """
        self._session, self._names = session, names
        with refusing("start of a decoder"):
            self._caches = {name: session.given(name, start.empty) for name in names.caches}
            fixed = [name for name in start.fixed if name in session.inputs]
            self._fixed = {name: session.given(name, start.fixed) for name in fixed}

    def step(self, ids: Array, mask: Array) -> Array:
        """One call; see ``Decoder.step``."""
        names, session = self._names, self._session
        rows, total = mask.shape
        with refusing(f"a decoder with {rows} texts of {total} tokens"):
            if not all(len(cache) == rows for cache in self._caches.values()):
                self._repeat_caches(rows)
            feeds = {names.ids: ids, names.mask: mask}
            known = self._caches | self._fixed
            inputs = [
                known[name] if name in known else session.given(name, feeds)
                for name in session.inputs
            ]
            found = dict(zip(session.outputs, session.walk_tensors(inputs)))
            self._caches = {n: found[made].contiguous() for n, made in names.caches.items()}
            scores: Array = found[names.logits][:, -1].cpu().numpy()
        return scores.astype(np.float32, copy=False)

    def _repeat_caches(self, times: int) -> None:
        """Each row of the caches so many times, the copies beside each other."""
        self._caches = {n: t.repeat_interleave(times, 0) for n, t in self._caches.items()}

    def repeat(self, times: int) -> None:
        """Repeat caches and fixed inputs."""
        self._repeat_caches(times)
        self._fixed = {n: t.repeat_interleave(times, 0) for n, t in self._fixed.items()}

    def reorder(self, rows: Sequence[int]) -> None:
        """Choose rows of the caches."""
        if list(rows) != list(range(len(rows))):
            self._caches = {n: _chosen(cache, rows) for n, cache in self._caches.items()}


def _chosen(cache: Tensor, rows: Sequence[int]) -> Tensor:
    return cache.index_select(0, torch.tensor(rows, device=cache.device))
