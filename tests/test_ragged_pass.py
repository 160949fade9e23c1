"""Ragged batches: real positions alone are computed, and every output stays what it was."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from program_tools import body, program_of, session
from ragged_tools import (
    MASKS,
    PATTERNS,
    POOLED,
    TEXT,
    Encoder,
    captured,
    inputs,
    ragged,
    same_where_real,
    sequence,
)
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.passes.quantize.dynamic import QuantizeDynamic
from strop.passes.ragged.ragged import Ragged

TOLERANCE = 2e-6


def test_all_is_computed_on_real_positions() -> None:
    text = body(ragged(captured(Encoder(MASKS["bool"]))).program)
    assert "f32[1, u0, 48] = aten.linear(" in text
    assert "f32[1, u0, 16] = strop.ragged_attention(%getitem" in text
    assert "[batch, seq, 48]" not in text and "[batch, seq, 32]" not in text
    # One gather behind the embeddings, one of the mask, and one at the end.
    assert text.count("= aten.index_select(") == 3


def test_attention_with_a_mask_of_queries_sees_all_positions() -> None:
    text = body(ragged(captured(Encoder(MASKS["both axes"]))).program)
    assert "f32[batch, seq, 16] = strop.attention(" in text
    assert "f32[1, u0, 48] = aten.linear(" in text
    # Behind the embeddings, before attention for q, k and v, behind it, and at the end.
    assert text.count("= aten.index_select(") == 6


def test_attention_whose_scores_are_bounded_sees_all_positions() -> None:
    before = captured(Encoder(MASKS["bool"], softcap=0.5))
    after = ragged(before).program
    assert "= strop.attention(" in body(after) and "ragged_attention" not in body(after)
    same_where_real(before, after, PATTERNS["holes"], TOLERANCE)


@pytest.mark.parametrize("masks", MASKS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_last_hidden_state_stays_and_is_zero_at_padded_positions(
    masks: str, pattern: str
) -> None:
    before, after = _both(masks, "sequence")
    same_where_real(before, after, PATTERNS[pattern], TOLERANCE)


@pytest.mark.parametrize("head", POOLED)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_pooled_outputs_stay_for_every_row(head: str, pattern: str) -> None:
    for masks in ("bool", "floor"):
        before, after = _both(masks, head)
        assert after.contract.outputs[0].padded is None
        same_where_real(before, after, PATTERNS[pattern], TOLERANCE)


_BUILT: dict[tuple[str, str], tuple[Program, Program]] = {}


def _both(masks: str, head: str) -> tuple[Program, Program]:
    key = (masks, head)
    if key not in _BUILT:
        before = captured(Encoder(MASKS[masks], POOLED.get(head, sequence)))
        _BUILT[key] = before, ragged(before).program
    return _BUILT[key]


rows = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.lists(st.integers(0, 1), min_size=width * 2, max_size=width * 2), min_size=1, max_size=4
    )
)


# Masks are small as they are drawn.
@settings(max_examples=40, deadline=None, phases=[Phase.generate])
@given(rows, st.sampled_from(list(MASKS)), st.sampled_from(["sequence", *POOLED]))
def test_any_mask(pattern: list[list[int]], masks: str, head: str) -> None:
    before, after = _both(masks, head)
    same_where_real(before, after, torch.tensor(pattern), TOLERANCE)


@pytest.mark.parametrize("dtype", [torch.bool, torch.int32, torch.int64, torch.float32])
def test_a_mask_of_any_dtype(dtype: torch.dtype) -> None:
    mask = PATTERNS["right"].to(dtype)
    before = captured(Encoder(lambda m: m.bool()[:, None, None, :]), mask)
    same_where_real(before, ragged(before).program, mask, TOLERANCE)
    same_where_real(before, ragged(before).program, PATTERNS["holes"].to(dtype), TOLERANCE)


def test_a_mask_that_is_true_at_padding() -> None:
    padding = PATTERNS["right"] == 0
    before = captured(Encoder(lambda m: ~m[:, None, None, :]), padding)
    after = ragged(before).program
    padded = after.contract.outputs[0].padded
    assert padded is not None and (padded.mask, padded.value) == ("input_1", 1)
    same_where_real(before, after, padding, TOLERANCE)


def test_sizes_that_are_fixed() -> None:
    mask = PATTERNS["right"]
    before = program_of(Encoder(MASKS["bool"], POOLED["first"]), *inputs(mask))
    after = ragged(before).program
    for pattern in (mask, 1 - mask, torch.zeros_like(mask)):
        same_where_real(before, after, pattern, TOLERANCE)


def test_gradients_are_those_of_the_whole_program() -> None:
    before, after = _both("bool", "mean")
    words, mask = inputs(PATTERNS["holes"])
    grads = []
    for program in (before, after):
        (pooled,) = program.run(input_0=words, input_1=mask)
        weights = list(program.parameters.values())
        grads.append(torch.autograd.grad(pooled.square().sum(), weights))
    for want, got in zip(*grads, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("pattern", PATTERNS)
def test_the_file_gives_the_same(pattern: str) -> None:
    mask = PATTERNS[pattern]
    for masks, head in (("bool", "first"), ("both axes", "sequence"), ("floor", "mean")):
        program = _both(masks, head)[1]
        words, _ = inputs(mask)
        with torch.no_grad():
            (want,) = program.run(input_0=words, input_1=mask)
        (got,) = _session(masks, head).run(
            None, {"input_0": words.numpy(), "input_1": mask.numpy()}
        )
        np.testing.assert_allclose(got, want.numpy(), rtol=0, atol=1e-5)


_SESSIONS: dict[tuple[str, str], Any] = {}


def _session(masks: str, head: str) -> Any:
    key = (masks, head)
    if key not in _SESSIONS:
        _SESSIONS[key] = session(_both(masks, head)[1])
    return _SESSIONS[key]


def test_padding_does_not_enter_the_scale_of_int8_products() -> None:
    quantized = QuantizeDynamic(embeddings=False).run(captured(Encoder(MASKS["bool"]))).program
    after = ragged(quantized).program
    one, padded = torch.ones(1, 3, dtype=torch.int64), torch.tensor([[1, 1, 1, 0, 0, 0]])
    with torch.no_grad():
        (alone,) = after.run(**dict(zip(("input_0", "input_1"), inputs(one))))
        words = torch.cat([inputs(one)[0], torch.full((1, 3), 7)], 1)
        (beside,) = after.run(input_0=words, input_1=padded)
    torch.testing.assert_close(beside[:, :3], alone, rtol=0, atol=TOLERANCE)


def test_the_same_values_are_gathered_once() -> None:
    class Twice(Encoder):
        def forward(self, ids: Tensor, mask: Tensor) -> Tensor:
            x = self.words(ids)
            return x + self.out(x) + self.out(x.tanh()) + self.attend(x, mask)

    text = body(ragged(captured(Twice(MASKS["bool"]))).program)
    assert text.count("aten.reshape(%embedding, [1, -1, 16])") == 1


def test_nothing_is_left_of_what_was_computed_whole() -> None:
    program = _both("bool", "sequence")[1]
    unread = [n for n in program.calls() if not n.users]
    assert not unread


def test_it_says_of_which_input_padding_is_read() -> None:
    result = Ragged(zeros=True).run(captured(Encoder(MASKS["bool"])))
    assert [(r.rule, r.node) for r in result.log.rewrites] == [("ragged", "input_1")]
    assert TEXT[1][0] == "seq"
