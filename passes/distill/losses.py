"""Losses of distillation, in the notation of the papers that introduced them.

Student values come first, teacher values second; both have the batch on axis 0, and gradients reach
the student only. ``mask`` marks what counts with ones or True and has the leading axes of the
values, such as [batch, seq]; a mean is taken over what counts. Where nothing counts a loss is 0.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

IGNORED = -100
"""The label of positions that do not count, as in ``torch.nn.functional.cross_entropy``."""
_TINY = 1e-12


def masked_mean(values: Tensor, mask: Tensor | None) -> Tensor:
    """The mean of ``values`` where ``mask`` is not 0.

    Args:
        values: [*leading, *rest].
        mask: [*leading]; None counts everything.
    """
    if mask is None:
        return values.mean()
    weights = (mask != 0).to(values.dtype)
    per_place = values.flatten(mask.ndim).mean(-1) if values.ndim > mask.ndim else values
    return (per_place * weights).sum() / weights.sum().clamp(min=1)


def soft_targets(
    student: Tensor, teacher: Tensor, temperature: float = 1.0, mask: Tensor | None = None
) -> Tensor:
    """T² · KL(softmax(z_t / T) ‖ softmax(z_s / T)), the mean over places.

    Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015), section 2: T²
    keeps gradients of one size as T changes.

    Args:
        student: logits z_s, [*places, classes].
        teacher: logits z_t, of the same shape.
        temperature: T.
        mask: [*places].
    """
    log_p = F.log_softmax(teacher.detach() / temperature, -1)
    log_q = F.log_softmax(student / temperature, -1)
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return temperature**2 * masked_mean(divergence, mask)


def hard_labels(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy with the labels: of a class, a masked word (MLM), or next-sentence (NSP).

    Devlin et al., BERT (2019), section 3.1. Places labelled ``IGNORED`` do not count.

    Args:
        logits: [*places, classes].
        labels: integers, [*places].
    """
    per_place = F.cross_entropy(
        logits.flatten(0, -2), labels.flatten(), ignore_index=IGNORED, reduction="none"
    )
    return masked_mean(per_place, labels.flatten() != IGNORED)


def next_token(logits: Tensor, tokens: Tensor, mask: Tensor | None = None) -> Tensor:
    """Causal language modelling: −log p(x_{i+1} | x_1 … x_i), the mean over places.

    Radford et al., Improving Language Understanding by Generative Pre-Training (2018), equation 1.

    Args:
        logits: [batch, seq, vocabulary].
        tokens: integers, [batch, seq]; ``IGNORED`` ones are not predicted.
        mask: [batch, seq], of tokens that count.
    """
    targets = tokens[:, 1:]
    if mask is not None:
        targets = targets.masked_fill(mask[:, 1:] == 0, IGNORED)
    return hard_labels(logits[:, :-1], targets)


def hidden_mse(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """‖h_s − h_t‖² / ‖h_t‖², both summed over what counts.

    Jiao et al., TinyBERT (2020), section 3.1, divided by the teacher's own size, so that values of
    all layers and models weigh the same.

    Args:
        student: h_s, [*places, *features].
        teacher: h_t, of the same shape.
        mask: [*places].
    """
    target = teacher.detach()
    error = masked_mean((student - target).square(), mask)
    return error / masked_mean(target.square(), mask).clamp(min=_TINY)


def hidden_cosine(
    student: Tensor, teacher: Tensor, mask: Tensor | None = None, axis: int = -1
) -> Tensor:
    """1 − cos(h_s, h_t), the mean over places; Sanh et al., DistilBERT (2019), section 2.

    Args:
        student: h_s, with features on ``axis``.
        teacher: h_t, of the same shape.
        mask: [*places].
        axis: of the features.
    """
    return masked_mean(1 - F.cosine_similarity(student, teacher.detach(), axis, 1e-8), mask)


def relations(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(R_t ‖ R_s) with R = softmax(A Aᵀ / √d), the mean over heads and queries.

    Wang et al., MiniLM (2020), section 3.2, where A are the values; MiniLMv2 (2021), section 3.1,
    where A are queries, keys or values. d is each side's own, and so may differ.

    Args:
        student: A_s, [batch, heads, seq, d_s].
        teacher: A_t, [batch, heads, seq, d_t].
        mask: [batch, seq], of positions that count as query and as key.
    """
    log_p, log_q = _relation(teacher.detach(), mask), _relation(student, mask)
    return _divergence_of_rows(log_p, log_q, mask)


def attention(student: Tensor, teacher: Tensor, mask: Tensor | None = None) -> Tensor:
    """KL(A_t ‖ A_s) of attention distributions, the mean over heads and queries.

    Wang et al., MiniLM (2020), section 3.1.

    Args:
        student: scores before the softmax, [batch, heads, seq, seq].
        teacher: of the same shape.
        mask: [batch, seq], of positions that count as query and as key.
    """
    log_p = F.log_softmax(_without_padding(teacher.detach(), mask), -1)
    log_q = F.log_softmax(_without_padding(student, mask), -1)
    return _divergence_of_rows(log_p, log_q, mask)


def contrastive(student: Tensor, teacher: Tensor, temperature: float = 0.05) -> Tensor:
    """InfoNCE: −log( exp(cos(s_i, t_i) / τ) / Σ_j exp(cos(s_i, t_j) / τ) ), the mean over i.

    The student's and the teacher's embedding of one row are a pair, and those of different rows are
    not. Van den Oord, Li and Vinyals, Representation Learning with Contrastive Predictive Coding
    (2018), equation 4; with τ as in Gao, Yao and Chen, SimCSE (2021), equation 1.

    Args:
        student: s, [batch, d].
        teacher: t, [batch, d].
        temperature: τ.
    """
    cosines = F.normalize(student, dim=-1) @ F.normalize(teacher.detach(), dim=-1).T
    return F.cross_entropy(cosines / temperature, torch.arange(len(student)))


def mixture(parts: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Σ λ_k L_k.

    Args:
        parts: L_k by name, scalars; at least one.
        weights: λ_k by name.
    """
    return torch.stack([weights[name] * part for name, part in parts.items()]).sum()


def same_heads(student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
    """Both split into the same number of heads, the largest that divides both of theirs.

    Wang et al., MiniLMv2 (2021), section 3.1: heads are concatenated and split anew.

    Args:
        student: [batch, heads_s, seq, d_s].
        teacher: [batch, heads_t, seq, d_t].
    """
    heads = math.gcd(student.shape[1], teacher.shape[1])
    made = [x.transpose(1, 2).flatten(2).unflatten(2, (heads, -1)) for x in (student, teacher)]
    return made[0].transpose(1, 2), made[1].transpose(1, 2)


def _relation(vectors: Tensor, mask: Tensor | None) -> Tensor:
    scores = vectors @ vectors.transpose(-1, -2) / vectors.shape[-1] ** 0.5
    return F.log_softmax(_without_padding(scores, mask), -1)


def _without_padding(scores: Tensor, mask: Tensor | None) -> Tensor:
    """Scores whose keys of padding get no probability; finite, also where there is only padding."""
    if mask is None:
        return scores
    return scores.masked_fill(mask[:, None, None, :] == 0, torch.finfo(scores.dtype).min)


def _divergence_of_rows(log_p: Tensor, log_q: Tensor, mask: Tensor | None) -> Tensor:
    """KL of each query's distribution, the mean over heads and the queries that count."""
    divergence = F.kl_div(log_q, log_p, reduction="none", log_target=True).sum(-1)
    return masked_mean(divergence.transpose(1, 2), mask)
