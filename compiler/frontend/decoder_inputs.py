"""Inputs of a decoder with caches, at any sizes: its caches hold what it computed of a text."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from strop.compiler.frontend.generation import Generation

# Scores of attention over more places at once would need more memory than the model.
_AT_ONCE = 128
# So many places are computed; a longer cache repeats them.
_COMPUTED = 512


@dataclass(frozen=True)
class DecoderInputs:
    """Makes inputs of a decoder whose dims are called batch, seq and past.

    Rows are padded on the left by different lengths, the first by none.

    Attributes:
        module: the decoder.
        generation: the names of its inputs and outputs.
        text: ids, [rows, length] int64; longer and more rows repeat it.
        caches: by input, an empty cache of one row, [1, heads, 0, size].
        others: gives other inputs at sizes of the dims, by name; they do not grow.
    """

    module: nn.Module
    generation: Generation
    text: Tensor
    caches: Mapping[str, Tensor]
    others: Callable[[Mapping[str, int]], Mapping[str, Tensor]] = lambda sizes: {}

    def __call__(self, sizes: Mapping[str, int]) -> dict[str, Tensor]:
        """Inputs at sizes of batch, seq and past, and what others need: for ``Model.inputs_at``."""
        batch, seq, past = sizes["batch"], sizes["seq"], sizes["past"]
        computed = min(past, _COMPUTED)
        mask = _left_padded(batch, computed + seq, computed)
        ids = self._ids(mask)
        given = dict(self.others(sizes))
        caches = self._filled(ids[:, :computed], mask[:, :computed], given)
        places = _repeated(computed, past)
        return {
            self.generation.ids: ids[:, computed:],
            self.generation.mask: torch.cat([mask[:, places], mask[:, computed:]], 1),
            **{name: cache[:, :, places] for name, cache in caches.items()},
            **given,
        }

    def _ids(self, mask: Tensor) -> Tensor:
        rows = torch.arange(len(mask))[:, None] % len(self.text)
        ids = self.text[rows, torch.arange(mask.shape[1]) % self.text.shape[1]]
        return ids.where(mask.ne(0), self.generation.pad)

    def _filled(self, ids: Tensor, mask: Tensor, given: dict[str, Tensor]) -> dict[str, Tensor]:
        """The caches after these places, computed some places at a time."""
        caches = {
            name: cache.expand(len(ids), -1, -1, -1).clone() for name, cache in self.caches.items()
        }
        for start in range(0, ids.shape[1], _AT_ONCE):
            end = min(start + _AT_ONCE, ids.shape[1])
            inputs = {
                self.generation.ids: ids[:, start:end],
                self.generation.mask: mask[:, :end],
            }
            with torch.no_grad():
                outputs = self.module(**inputs, **caches, **given)
            caches = {name: outputs[self.generation.caches[name]] for name in caches}
        return caches


def _left_padded(batch: int, total: int, past: int) -> Tensor:
    """A mask, [batch, total] int64: rows with more and more padding, half of the places at most.

    Where there is a past, half of it at most is padding, so that its second half can be repeated.
    """
    most = past // 2 if past else total // 2
    padding = torch.arange(batch) * most // max(batch - 1, 1)
    return torch.arange(total)[None].ge(padding[:, None]).to(torch.int64)


def _repeated(computed: int, past: int) -> Tensor:
    """Places of a cache of ``past`` places: those computed, then their second half repeated."""
    places = torch.arange(past)
    half = computed // 2
    beyond = half + (places - computed) % max(computed - half, 1)
    return places.where(places < computed, beyond)
