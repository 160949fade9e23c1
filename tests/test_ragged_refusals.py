"""Ragged batches: where padded positions may be read, the program stays, with node and reason."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, program_of
from ragged_tools import LOWEST, MASKS, PATTERNS, POOLED, Encoder, captured, inputs
from torch import Tensor, nn

from strop.passes.ragged.ragged import Ragged

BOOL = MASKS["bool"]

BAD_MASKS: dict[str, tuple[Callable[[Tensor], Tensor | None], str]] = {
    "none": (lambda m: None, "no input [batch, seq] marks padding"),
    "weak": (lambda m: (1.0 - m.float())[:, None, None, :] * -1e4, "adds -10000 to the scores"),
    "the wrong way": (lambda m: m[:, None, None, :] == 0, "is not false at every padded key"),
    "of queries": (lambda m: m.bool()[:, None, :, None], "is not false at every padded key"),
    "either axis": (
        lambda m: m.bool()[:, None, None, :] | m.bool()[:, None, :, None],
        "is not false at every padded key",
    ),
    "hides everything": (
        lambda m: (1.0 - m.float())[:, None, None, :] * LOWEST + LOWEST,
        "may hide all real keys",
    ),
    "some real keys": (
        lambda m: torch.where(
            m.bool()[:, None, None, :] & (torch.arange(m.shape[1]) % 2 == 0), 0.0, LOWEST
        ),
        "may hide all real keys",
    ),
    "of another sequence": (
        lambda m: m.flip(1).bool()[:, None, None, :],
        "is not false at every padded key",
    ),
}


@pytest.mark.parametrize("case", BAD_MASKS)
def test_attention_that_may_see_padded_keys(case: str) -> None:
    masks, reason = BAD_MASKS[case]
    program = captured(Encoder(masks, POOLED["mean"]))  # type: ignore[arg-type]
    assert_left_alone(Ragged(zeros=True), program, reason)


BAD_HEADS: dict[str, tuple[Callable[[Tensor, Tensor], Tensor], str]] = {
    "sum": (lambda x, m: x.sum(1), "mixes positions"),
    "mean": (lambda x, m: x.mean(1), "mixes positions"),
    "softmax": (lambda x, m: x.softmax(1), "mixes positions"),
    "norm over positions": (
        lambda x, m: F.layer_norm(x.transpose(1, 2), (5,))[:, :, 0],
        "mixes positions",
    ),
    "join": (lambda x, m: torch.cat([x, x * 2], 1), "mixes positions"),
    "slice": (lambda x, m: x[:, 1:], "takes positions apart"),
    "parts": (lambda x, m: x.split([2, 3], 1)[0], "takes positions apart"),
    "a row": (lambda x, m: x[0], "takes positions apart"),
    "merged": (lambda x, m: x.flatten(0, 1), "takes positions apart"),
    "merged behind": (lambda x, m: x.flatten(1), "takes positions apart"),
    "shifted": (lambda x, m: x.roll(1, 1), "does not know this operator"),
    "convolution": (
        lambda x, m: F.conv1d(x.mT, torch.ones(16, 16, 3), padding=1).mT,
        "does not know this operator",
    ),
    "running sum": (lambda x, m: x.cumsum(1), "does not know this operator"),
    "last real one": (
        lambda x, m: x[torch.arange(x.shape[0]), m.sum(1) - 1],
        "does not know this operator",
    ),
    "pairs": (lambda x, m: (x[:, :, None] * x[:, None, :]).sum(-1), "pairs positions"),
    "products of positions": (
        lambda x, m: x @ x.transpose(1, 2),
        "multiplies positions with each other",
    ),
    "products with a sequence's own matrix": (
        lambda x, m: x @ m[:, :, None].float().expand(-1, -1, 16)[:, :1].transpose(1, 2),
        "mixes positions",
    ),
    "a product whose weights they are": (
        lambda x, m: F.linear(x, x.sum(-1, keepdim=True).expand(-1, -1, 16).flatten(0, 1)),
        "takes positions apart",
    ),
    "weighed by another's mask": (
        lambda x, m: (x * m.flip(1)[:, :, None]).sum(1),
        "mixes positions",
    ),
    "filled where real": (
        lambda x, m: x.masked_fill(m[:, :, None] != 0, 0.0).sum(1),
        "mixes positions",
    ),
    "repeated": (lambda x, m: x[:1] + 0 * x.sum(-1, keepdim=True), "takes positions apart"),
    "as another axis": (lambda x, m: x.transpose(0, 1), "is not [batch, seq, ...]"),
    "channels first": (lambda x, m: x.transpose(1, 2).contiguous(), "is not [batch, seq, ...]"),
}


@pytest.mark.parametrize("case", BAD_HEADS)
def test_outputs_that_may_read_padded_positions(case: str) -> None:
    head, reason = BAD_HEADS[case]
    mask = torch.tensor([[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    program = program_of(Encoder(BOOL, head), *inputs(mask))
    assert_left_alone(Ragged(zeros=True), program, reason)


def test_an_output_of_positions_is_left_alone_until_zeros_are_asked_for() -> None:
    program = captured(Encoder(BOOL))
    assert_left_alone(Ragged(), program, "the output 'output' holds padded positions; with zeros")
    assert Ragged().run(captured(Encoder(BOOL, POOLED["mean"]))).modified


def test_a_position_by_number_in_causal_attention_with_a_mask_that_is_added() -> None:
    class Causal(Encoder):
        def attend(self, x: Tensor, mask: Tensor) -> Tensor:
            length = x.shape[1]
            q, k, v = (t.unflatten(-1, (2, 8)).transpose(1, 2) for t in self.qkv(x).split(16, -1))
            added = self.masks(mask).expand(-1, 1, length, length)
            seen = torch.ops.strop.attention(q, k, v, added, 2, 2, 0.3, True)
            return self.out(seen.transpose(1, 2).flatten(2))  # type: ignore[no-any-return]

    mask = PATTERNS["left"]
    first = program_of(Causal(MASKS["chosen"], POOLED["first"]), *inputs(mask))
    assert_left_alone(Ragged(zeros=True), first, "sees only padded keys in causal attention")
    for masks, head in (("chosen", "mean"), ("bool", "first")):
        other = program_of(Causal(MASKS[masks], POOLED[head]), *inputs(mask))
        assert Ragged(zeros=True).run(other).modified


def test_scores_that_are_no_single_attention_operator() -> None:
    class Written(Encoder):
        def attend(self, x: Tensor, mask: Tensor) -> Tensor:
            scores = self.qkv(x)[..., :16] @ x.transpose(1, 2) + self.masks(mask)[:, 0]
            return super().attend(scores.sigmoid() @ x, mask)

    program = captured(Written(MASKS["floor"], POOLED["mean"]))
    assert_left_alone(Ragged(zeros=True), program, "it mixes positions")


def test_a_mask_that_is_computed_from_positions() -> None:
    class Looking(Encoder):
        def attend(self, x: Tensor, mask: Tensor) -> Tensor:
            bias = self.out(x).sum(-1)[:, None, None, :]
            q = self.words.weight[None, None, : x.shape[1], :8].expand(x.shape[0], 2, -1, -1)
            v = x.unflatten(-1, (2, 8)).transpose(1, 2)
            seen = F.scaled_dot_product_attention(q, q, v, bias + self.masks(mask))
            return seen.transpose(1, 2).flatten(2)

    program = program_of(Looking(MASKS["floor"], POOLED["mean"]), *inputs(PATTERNS["right"]))
    assert_left_alone(Ragged(zeros=True), program, "is computed from padded positions too")


def test_models_without_products_of_positions() -> None:
    class Averages(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = nn.Embedding(19, 16)

        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            x = self.words(ids)[:, None]
            seen = F.scaled_dot_product_attention(x, x, x, BOOL(mask))
            return (seen[:, 0] * mask[:, :, None]).sum(1)

    program = captured(Averages())
    assert_left_alone(Ragged(zeros=True), program, "no product with weights works on its positions")


def test_images_have_no_padding() -> None:
    class Patches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(8, 24)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).chunk(3, -1)
            seen = F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])
            return seen[:, 0].mean(1)

    program = program_of(Patches(), torch.randn(2, 5, 8))
    reason = "no input [batch, seq] marks padding: no mask of attention is computed from one"
    assert_left_alone(Ragged(zeros=True), program, reason)


def test_the_miss_names_the_node_and_its_line() -> None:
    result = Ragged(zeros=True).run(captured(Encoder(BOOL, lambda x, m: x.sum(1))))
    (miss,) = result.log.misses
    assert miss.root.startswith("%sum_1 = aten.sum.dim_IntList (ragged_tools.py:")
