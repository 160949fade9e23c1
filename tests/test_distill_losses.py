"""Losses of distillation against their formulas, written out; and that padding does not count."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from strop.passes.distill import losses
from strop.passes.distill.losses import IGNORED


def drawn(*shape: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def test_soft_targets_are_a_divergence_times_the_temperature_squared() -> None:
    student, teacher, t = drawn(4, 5), drawn(4, 5, seed=1), 2.5
    wanted = 0.0
    for s, z in zip(student, teacher):
        p, q = torch.softmax(z / t, 0), torch.softmax(s / t, 0)
        wanted += sum(float(a * math.log(a / b)) for a, b in zip(p, q)) * t**2 / 4
    assert float(losses.soft_targets(student, teacher, t)) == pytest.approx(wanted)
    assert float(losses.soft_targets(teacher + 7, teacher)) == pytest.approx(0, abs=1e-12)


def test_at_a_high_temperature_soft_targets_are_half_the_squared_difference_of_logits() -> None:
    """Hinton et al., equation 4, for logits of mean 0."""
    student, teacher = (x - x.mean(-1, keepdim=True) for x in (drawn(3, 6), drawn(3, 6, seed=1)))
    got = losses.soft_targets(student, teacher, 1e4)
    assert float(got) == pytest.approx(float((student - teacher).square().mean() / 2), rel=1e-3)


def test_hard_labels_are_the_log_probability_where_there_is_a_label() -> None:
    logits = drawn(2, 3, 4)
    assert IGNORED == -100  # that of torch's own loss
    labels = torch.tensor([[1, IGNORED, 3], [IGNORED, 0, IGNORED]])
    log = torch.log_softmax(logits, -1)
    wanted = -(log[0, 0, 1] + log[0, 2, 3] + log[1, 1, 0]) / 3
    assert float(losses.hard_labels(logits, labels)) == pytest.approx(float(wanted))
    assert float(losses.hard_labels(logits, torch.full((2, 3), IGNORED))) == 0
    two = drawn(3, 2)  # next sentence: one label a row
    wanted = -torch.log_softmax(two, -1)[torch.arange(3), torch.tensor([0, 1, 1])].mean()
    got = losses.hard_labels(two, torch.tensor([0, 1, 1]))
    assert float(got) == pytest.approx(float(wanted))


def test_the_next_token_is_predicted_from_those_before_it() -> None:
    logits, tokens = drawn(2, 3, 5), torch.tensor([[0, 1, 2], [3, 4, 0]])
    log = torch.log_softmax(logits, -1)
    wanted = [-log[0, 0, 1], -log[0, 1, 2], -log[1, 0, 4], -log[1, 1, 0]]
    assert float(losses.next_token(logits, tokens)) == pytest.approx(float(sum(wanted)) / 4)
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    got = losses.next_token(logits, tokens, mask)
    assert float(got) == pytest.approx(float(sum(wanted[:3])) / 3)


def test_hidden_states_are_compared_relative_to_the_teachers() -> None:
    student, teacher = drawn(2, 3, 4), drawn(2, 3, 4, seed=1)
    wanted = (student - teacher).square().sum() / teacher.square().sum()
    assert float(losses.hidden_mse(student, teacher)) == pytest.approx(float(wanted))
    assert float(losses.hidden_mse(9 * student, 9 * teacher)) == pytest.approx(float(wanted))
    assert float(losses.hidden_mse(student * 0, teacher * 0)) == 0
    dots = (student * teacher).sum(-1) / student.norm(dim=-1) / teacher.norm(dim=-1)
    assert float(losses.hidden_cosine(student, teacher)) == pytest.approx(float(1 - dots.mean()))
    moved = losses.hidden_cosine(student.movedim(-1, 1), teacher.movedim(-1, 1), axis=1)
    assert float(moved) == pytest.approx(float(1 - dots.mean()))


def test_relations_are_softmaxes_of_scaled_products() -> None:
    student, teacher = drawn(2, 3, 4, 2), drawn(2, 3, 4, 5, seed=1)
    wanted = 0.0
    for batch in range(2):
        for head in range(3):
            s, t = student[batch, head], teacher[batch, head]
            p, q = torch.softmax(t @ t.T / 5**0.5, -1), torch.softmax(s @ s.T / 2**0.5, -1)
            wanted += float((p * (p / q).log()).sum()) / (2 * 3 * 4)
    assert float(losses.relations(student, teacher)) == pytest.approx(wanted)


def test_heads_are_split_anew_where_their_numbers_differ() -> None:
    student, teacher = drawn(2, 4, 3, 5), drawn(2, 6, 3, 7, seed=1)
    ours, theirs = losses.same_heads(student, teacher)
    assert (ours.shape, theirs.shape) == ((2, 2, 3, 10), (2, 2, 3, 21))
    assert torch.equal(ours[0, 1, 2], torch.cat([student[0, 2, 2], student[0, 3, 2]]))
    assert all(map(torch.equal, losses.same_heads(student, student), (student, student)))


def test_attention_is_a_divergence_of_its_distributions() -> None:
    student, teacher = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    p, q = torch.softmax(teacher, -1), torch.softmax(student, -1)
    wanted = (p * (p / q).log()).sum(-1).mean()
    assert float(losses.attention(student, teacher)) == pytest.approx(float(wanted))


def test_contrastive_tells_each_row_from_the_others() -> None:
    student, teacher = drawn(3, 4), drawn(3, 4, seed=1)
    wanted = 0.0
    for i in range(3):
        cosines = [float(torch.cosine_similarity(student[i], t, 0)) / 0.1 for t in teacher]
        wanted -= math.log(math.exp(cosines[i]) / sum(map(math.exp, cosines))) / 3
    assert float(losses.contrastive(student, teacher, 0.1)) == pytest.approx(wanted)


def test_a_mixture_is_a_weighted_sum() -> None:
    parts = {"a": torch.tensor(2.0), "b": torch.tensor(3.0)}
    assert float(losses.mixture(parts, {"a": 0.5, "b": 2.0, "c": 9.0})) == 7


MASKED: dict[str, tuple[Callable[..., Tensor], tuple[int, ...], Callable[[Tensor], Tensor]]] = {
    "soft_targets": (losses.soft_targets, (2, 4, 5), lambda x: x[:, :3]),
    "hidden_mse": (losses.hidden_mse, (2, 4, 5), lambda x: x[:, :3]),
    "hidden_cosine": (losses.hidden_cosine, (2, 4, 5), lambda x: x[:, :3]),
    "relations": (losses.relations, (2, 3, 4, 5), lambda x: x[:, :, :3]),
    "attention": (losses.attention, (2, 3, 4, 4), lambda x: x[:, :, :3, :3]),
}


@pytest.mark.parametrize("name", MASKED)
@pytest.mark.parametrize("dtype", [torch.int64, torch.bool, torch.float32])
def test_padding_does_not_count(name: str, dtype: torch.dtype) -> None:
    loss, shape, cut = MASKED[name]
    student, teacher = drawn(*shape).requires_grad_(), drawn(*shape, seed=1)
    mask = torch.tensor([[1, 1, 1, 0]] * 2, dtype=dtype)
    got = loss(student, teacher, mask=mask)
    assert float(got) == pytest.approx(float(loss(cut(student), cut(teacher))))
    assert float(got) > 1e-3
    empty = loss(student, teacher, mask=torch.zeros_like(mask))
    assert float(empty) == 0
    (got + empty).backward()  # type: ignore[no-untyped-call]
    assert student.grad is not None and student.grad.isfinite().all()


@pytest.mark.parametrize("name", [*MASKED, "contrastive"])
def test_gradients_reach_the_student_only(name: str) -> None:
    loss = getattr(losses, name)
    shape = MASKED[name][1] if name in MASKED else (3, 4)
    student, teacher = drawn(*shape).requires_grad_(), drawn(*shape, seed=1).requires_grad_()
    loss(student, teacher).backward()
    assert student.grad is not None and student.grad.abs().max() > 0
    assert teacher.grad is None
