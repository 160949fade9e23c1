"""Connectionist temporal classification: the loss of all alignments of labels with time steps.

A. Graves et al., "Connectionist temporal classification", ICML 2006, section 4.1, in logarithms.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

Lengths = Tensor | Sequence[int]


def ctc_loss(
    log_probs: Tensor,
    targets: Tensor,
    input_lengths: Any,
    target_lengths: Any,
    blank: int = 0,
    reduction: str = "mean",
    zero_infinity: bool = False,
) -> Tensor:
    """[time, batch, classes], labels [batch, labels] or behind each other, and how many count.

    One step after another is traced, so time has a fixed size. Labels behind each other need
    lengths that are known.
    """
    single, joined = log_probs.dim() == 2, targets.dim() == 1 and log_probs.dim() == 3
    if not isinstance(log_probs.shape[0], int) or (joined and isinstance(target_lengths, Tensor)):
        return F.ctc_loss(
            log_probs, targets, input_lengths, target_lengths, blank, reduction, zero_infinity
        )
    scores = log_probs.unsqueeze(1) if single else log_probs
    labels = targets.unsqueeze(0) if single else targets
    if joined:
        labels = _beside(targets, target_lengths)
    steps, counts = (_as_tensor(n, scores) for n in (input_lengths, target_lengths))
    loss = _losses(scores, labels.to(torch.int64), steps, counts, blank)
    if zero_infinity:
        loss = torch.where(loss == math.inf, torch.zeros_like(loss), loss)
    if reduction == "mean":
        return (loss / counts.clamp(min=1).to(loss.dtype)).mean()
    if reduction == "sum":
        return loss.sum()
    return loss.squeeze(0) if single else loss


def _as_tensor(lengths: Lengths, like: Tensor) -> Tensor:
    return torch.as_tensor(lengths, dtype=torch.int64, device=like.device).reshape(-1)


def _beside(labels: Tensor, counts: Sequence[int]) -> Tensor:
    """Labels behind each other as rows of one length."""
    longest = max(counts, default=0)
    parts = labels.split(list(counts))
    return torch.stack([F.pad(p, (0, longest - n)) for p, n in zip(parts, counts)])


def _losses(scores: Tensor, labels: Tensor, steps: Tensor, counts: Tensor, blank: int) -> Tensor:
    """[batch]: over the states blank, label, blank, label, ..., blank."""
    inside = torch.arange(labels.shape[1], device=labels.device) < counts.unsqueeze(1)
    labels = torch.where(inside, labels, blank)
    blanks = torch.full_like(labels, blank)
    between = torch.stack([blanks, labels], -1).flatten(1)
    states = torch.cat([between, torch.full_like(counts.unsqueeze(1), blank)], 1)
    chosen = scores.gather(2, states.unsqueeze(0).expand(scores.shape[0], -1, -1))
    # From a label to the next one without a blank, where they differ.
    jumps = (states[:, 2:] != blank) & (states[:, 2:] != states[:, :-2])
    never = torch.full_like(chosen[0], -math.inf)
    reached = torch.cat([chosen[0, :, :2], never[:, 2:]], 1)
    for time in range(1, scores.shape[0]):
        moves = [reached, _later(reached, 1), _later(reached, 2, jumps)]
        moved = _log_sum(moves) + chosen[time]
        reached = torch.where((steps > time).unsqueeze(1), moved, reached)
    last = 2 * counts.unsqueeze(1)
    ends = [reached.gather(1, last), reached.gather(1, (last - 1).clamp(min=0))]
    ends[1] = torch.where(last > 0, ends[1], -math.inf)
    loss = -_log_sum(ends).squeeze(1)
    without_time = torch.where(counts == 0, 0.0, math.inf).to(loss.dtype)
    return torch.where(steps == 0, without_time, loss)


def _later(reached: Tensor, states: int, allowed: Tensor | None = None) -> Tensor:
    """The scores that many states further on."""
    count = reached.shape[1]
    states = min(states, count)
    kept = reached[:, : count - states]
    if allowed is not None:
        kept = torch.where(allowed, kept, -math.inf)
    return F.pad(kept, (states, 0), value=-math.inf)


def _log_sum(parts: Sequence[Tensor]) -> Tensor:
    """Logarithm of the sum of exponentials; of nothing but -inf it is -inf."""
    together = torch.stack(list(parts))
    largest = together.amax(0)
    base = torch.where(largest == -math.inf, torch.zeros_like(largest), largest)
    return (together - base).exp().sum(0).log() + base
