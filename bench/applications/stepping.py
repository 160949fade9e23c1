"""A decoder called by hand, one token after the other, in torch or by an artifact."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice

import torch
from torch import Tensor

from strop.bench.applications.transformer import END, START
from strop.compiler.frontend.generation import Generation
from strop.compiler.rewriting.context import Batch
from strop.compiler.util.numerics import Array
from strop.passes.distill.losses import hard_labels

Run = Callable[..., Mapping[str, Tensor]]
"""A program: tensors by name in, tensors by name out."""


def on_arrays(run: Callable[[Mapping[str, Array]], Mapping[str, Array]]) -> Run:
    """A program that takes arrays, called with tensors."""

    def called(**tensors: Tensor) -> dict[str, Tensor]:
        found = run({name: tensor.numpy() for name, tensor in tensors.items()})
        return {name: torch.from_numpy(array) for name, array in found.items()}

    return called


class Steps:
    """Runs the encoder, then the decoder step by step; what it computed goes from call to call."""

    @torch.inference_mode()
    def __init__(self, encoder: Run, decoder: Run, called: Generation, source: Batch) -> None:
        """Run the encoder.

        Args:
            encoder: takes the source.
            decoder: takes one token of each row, and what was computed before.
            called: the names of its caches.
            source: ``input_ids`` and ``attention_mask``, int64 [batch, source].
        """
        mask = source["attention_mask"]
        cross = encoder(input_ids=source["input_ids"], attention_mask=mask)
        self._fixed = {name: cross[given] for name, given in called.cross.items()}
        self._caches = {
            past: self._fixed[name][:, :, :0] for past, name in zip(called.caches, called.cross)
        }
        self._fixed["encoder_attention_mask"] = mask
        self._decoder, self._called, self._seen = decoder, called, torch.ones_like(mask[:, :0])

    @torch.inference_mode()
    def step(self, ids: Tensor) -> Tensor:
        """Scores of what follows the new tokens, int64 [batch, 1]: [batch, vocabulary]."""
        self._seen = torch.cat([self._seen, torch.ones_like(ids)], 1)
        outputs = self._decoder(
            input_ids=ids, attention_mask=self._seen, **self._caches, **self._fixed
        )
        self._caches = {past: outputs[present] for past, present in self._called.caches.items()}
        return outputs["logits"][:, -1]


def most_likely(steps: Steps, rows: int) -> Iterator[Tensor]:
    """The most likely next tokens of each row, int64 [rows, 1], without an end."""
    ids = torch.full((rows, 1), START)
    while True:
        ids = steps.step(ids).argmax(-1, keepdim=True)
        yield ids


def greedy(steps: Steps, rows: int, most: int) -> list[list[int]]:
    """The most likely tokens of each row, until its end or for so many steps."""
    found: list[Tensor] = []
    ended = torch.zeros(rows, 1, dtype=torch.bool)
    for ids in islice(most_likely(steps, rows), most):
        found.append(ids)
        ended |= ids == END
        if ended.all():
            break
    return [_before_end(row) for row in torch.cat(found, 1).tolist()]


def _before_end(ids: Sequence[int]) -> list[int]:
    return list(ids[: ids.index(END)] if END in ids else ids)


def forced_loss(steps: Steps, batch: Batch) -> Tensor:
    """The mean of -log p of each real token of the targets, those before it given; a scalar."""
    given = batch["decoder_input_ids"].split(1, dim=1)
    logits = torch.stack([steps.step(ids) for ids in given], 1)
    return hard_labels(logits, batch["labels"])
