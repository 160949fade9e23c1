"""A decoder on a launch plan whose caches stay on the plan's device from call to call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from strop.compiler.targets.decoding import Names, Start
from strop.compiler.targets.triton.session import PlanSession, Prepared, refusing
from strop.compiler.util.numerics import Array
from strop.kernels.expression import cdiv, next_power_of_2

# Places of a cache; lengths of caches are multiples of at least so many.
_LEAST = 64


def room_for(tokens: int) -> int:
    """The places of caches that serve texts of so many tokens: up to an eighth of 2**n more.

    Few lengths, since each is prepared anew; close ones, since hidden places are read too.
    """
    step = max(_LEAST, next_power_of_2(tokens) // 8)
    return cdiv(tokens, step) * step


class PlanDecoder:
    """Gives a plan ids and a mask; the caches that a call makes are what the next one reads.

    A call with one new token for each text reads caches that are padded on the left, as texts of a
    batch are; the mask hides the padding. So many tokens share the sizes of a call, which are
    prepared once: on a GPU as one CUDA graph. Calls with more tokens are walked as they are.
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
        self._most = min((session.most(n, 2) or names.context for n in names.caches), default=0)
        self._tokens = 0  # the last places of the caches, which are those of the texts
        self._prepared: Prepared | None = None

    def step(self, ids: Array, mask: Array) -> Array:
        """One call; see ``Decoder.step``."""
        rows, total = mask.shape
        with refusing(f"a decoder with {rows} texts of {total} tokens"):
            if not all(len(cache) == rows for cache in self._caches.values()):
                self._repeat_caches(rows)
            is_shared = ids.shape[1] == 1 and total <= self._most
            found = self._step_shared(ids, mask) if is_shared else self._step_once(ids, mask)
            self._tokens = total
            scores: Array = found[self._names.logits][:, -1].cpu().numpy()
        return scores.astype(np.float32, copy=False)

    def _step_once(self, ids: Array, mask: Array) -> Mapping[str, Tensor]:
        """A call at sizes of its own."""
        self._resize(self._tokens)
        found = self._named(self._session.walk_tensors(self._inputs(ids, mask)))
        self._caches = {n: found[made].contiguous() for n, made in self._names.caches.items()}
        return found

    def _step_shared(self, ids: Array, mask: Array) -> Mapping[str, Tensor]:
        """A call for one token, at sizes that the next tokens share."""
        total = mask.shape[1]
        if self._prepared is None or total > self._places:
            self._resize(min(room_for(total), self._most))
            self._prepared = self._session.prepared(self._inputs(ids, self._padded(mask)))
        kept = dict(zip(self._session.inputs, self._prepared.inputs))
        self._caches = {name: kept[name] for name in self._names.caches}
        kept[self._names.ids].copy_(torch.from_numpy(ids))
        kept[self._names.mask].copy_(torch.from_numpy(self._padded(mask)))
        found = self._named(self._prepared.run())
        for name, made in self._names.caches.items():
            kept[name].copy_(found[made][:, :, 1:])
        return found

    @property
    def _places(self) -> int:
        return next(iter(self._caches.values())).shape[2]

    def _padded(self, mask: Array) -> Array:
        """The mask for one more token, 0 at the places that no text has yet."""
        return np.pad(mask, ((0, 0), (self._places + 1 - mask.shape[1], 0)))

    def _resize(self, places: int) -> None:
        """Drop places on the left, or add hidden ones there."""
        self._prepared = None
        self._caches = {
            name: F.pad(cache, (0, 0, places - cache.shape[2], 0)).contiguous()
            for name, cache in self._caches.items()
        }

    def _inputs(self, ids: Array, mask: Array) -> list[Tensor]:
        feeds = {self._names.ids: ids, self._names.mask: mask}
        known = self._caches | self._fixed
        return [
            known[name] if name in known else self._session.given(name, feeds)
            for name in self._session.inputs
        ]

    def _named(self, outputs: Sequence[Tensor]) -> dict[str, Tensor]:
        return dict(zip(self._session.outputs, outputs))

    def _repeat_caches(self, times: int) -> None:
        """Each row of the caches so many times, the copies beside each other."""
        self._prepared = None
        self._caches = {n: t.repeat_interleave(times, 0) for n, t in self._caches.items()}

    def repeat(self, times: int) -> None:
        """Repeat caches and fixed inputs."""
        self._repeat_caches(times)
        self._fixed = {n: t.repeat_interleave(times, 0) for n, t in self._fixed.items()}

    def reorder(self, rows: Sequence[int]) -> None:
        """Choose rows of the caches, in their memory: a prepared call reads it."""
        if list(rows) != list(range(len(rows))):
            for cache in self._caches.values():
                cache.copy_(cache.index_select(0, torch.tensor(rows, device=cache.device)))
