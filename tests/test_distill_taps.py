"""Taps and what they are compared with; which input marks padding, and what outputs are."""

from __future__ import annotations

import re
from collections import OrderedDict
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from distill_tools import Encoder, batch, captured
from program_tools import program_of
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.ir.snapshots.weight_store import WeightStore
from strop.compiler.ir.snapshots.writer import save_program
from strop.compiler.ir.verifier import verify
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import UsageError, VerifyError
from strop.passes.distill.align import AUTO, Pair, align, attention_pairs
from strop.passes.distill.outputs import outputs_of
from strop.passes.distill.padding import padding_mask
from strop.passes.distill.taps import strip, tappable, tapped

BLOCKS = ["layer_norm_1", "layer_norm_3"]


@pytest.fixture(scope="module")
def encoder() -> Program:
    return captured(Encoder(classes=3))


# Taps -----------------------------------------------------------------------------------------


def test_taps_are_outputs_marked_as_such_and_gone_again(encoder: Program) -> None:
    everything = [node.name for node in tappable(encoder)]
    wanted = encoder.run(**batch())
    seen = tapped(encoder, everything)
    verify(seen)
    values = seen.run(**batch())
    assert [spec.tap for spec in seen.contract.outputs] == [False, *[True] * len(everything)]
    assert seen.contract.outputs[1].name == f"tap.{everything[0]}"
    assert torch.equal(values[0], wanted[0]) and torch.equal(values[-1], wanted[0])
    again = strip(seen)
    verify(again)
    assert str(again) == str(encoder) and again.contract == encoder.contract
    assert again.weights.keys() == encoder.weights.keys()
    assert all(again.weights[name] is tensor for name, tensor in encoder.weights.items())
    for got, want in zip(again.run(**batch()), wanted):
        assert torch.equal(got, want)


def test_what_only_a_tap_needs_goes_with_it(encoder: Program) -> None:
    seen = tapped(encoder, BLOCKS[:1])
    logits, tap = seen.outputs
    seen.contract = replace(seen.contract, outputs=seen.contract.outputs[1:])
    seen.graph.output_node().args = ((tap,),)
    seen.erase_dead([logits])
    seen.drop_unused_weights()
    assert "blocks.0.up.weight" in seen.weights and "head.weight" not in seen.weights
    stripped = strip(seen)
    assert not stripped.weights and not list(stripped.calls())


def test_what_is_computed_from_weights_alone_is_no_tap() -> None:
    program = program_of(lambda x, w: x @ (w * 2).sin(), X, w=W.T)
    assert [node.name for node in tappable(program)] == ["matmul"]


def test_values_of_several_tensors_sizes_and_integers_are_no_taps() -> None:
    def parts(x: Tensor) -> Tensor:
        left, right = x.split(2, 1)
        return (left + right) * x.shape[0] + x.argmax()

    program = program_of(parts, X, dims={0: {0: ("rows", 2, 9)}})
    everything = [node.name for node in program.calls()]
    taps = [node.name for node in tappable(program)]
    assert {"split", "argmax"} <= set(everything) - set(taps)
    assert {"add", "mul"} <= set(taps) and len(taps) < len(everything) - 2


def test_a_tapped_program_is_written_and_read_as_one(encoder: Program, tmp_path: Path) -> None:
    seen = tapped(encoder, BLOCKS)
    save_program(seen, tmp_path / "p.json", WeightStore(tmp_path / "weights"))
    assert load_program(tmp_path / "p.json").contract == seen.contract


@dataclass(frozen=True)
class LeavesTaps(Pass):
    """Forgets to remove what it looked at."""

    name = "leaves-taps"

    def apply(self, program: Program, log: Log) -> None:
        made = tapped(program, BLOCKS)
        program.graph, program.contract = made.graph, made.contract
        log.rewrites.append(None)  # type: ignore[arg-type]


def test_a_pass_that_leaves_taps_is_caught(encoder: Program) -> None:
    with pytest.raises(VerifyError, match="it leaves taps among the outputs"):
        LeavesTaps().run(encoder)


# Alignment ------------------------------------------------------------------------------------


def test_repeated_blocks_are_found_by_their_modules(encoder: Program) -> None:
    got = align(encoder, encoder, [AUTO])
    assert got == [Pair(name, name) for name in BLOCKS]


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (["blocks.1"], ["layer_norm_3"]),
        (["blocks.*.up"], ["linear_4", "linear_10"]),
        (["gelu*"], ["gelu", "gelu_1"]),
        (["gelu_1", "gelu", AUTO], ["gelu", "layer_norm_1", "gelu_1", "layer_norm_3"]),
    ],
)
def test_values_are_chosen_by_name_or_by_module(
    wanted: list[str], names: list[str], encoder: Program
) -> None:
    assert [pair.student for pair in align(encoder, encoder, wanted)] == names


def test_values_that_a_pass_made_again_are_found_by_their_module(encoder: Program) -> None:
    student = encoder.clone()
    (node,) = [n for n in student.graph.nodes if n.name == "layer_norm_1"]
    node._rename("layer_norm_again")
    assert align(student, encoder, [AUTO])[0] == Pair("layer_norm_again", "layer_norm_1")


def test_layers_of_another_depth_are_paired_by_hand(encoder: Program) -> None:
    student = captured(Encoder(blocks=1, classes=3))
    assert align(student, encoder, [AUTO]) == [Pair("layer_norm_1", "layer_norm_1")]
    got = align(student, encoder, ["blocks.0=blocks.1"])
    assert got == [Pair("layer_norm_1", "layer_norm_3")]


def test_another_models_blocks_are_found_by_their_modules_and_not_by_chance() -> None:
    def stack(stem: nn.Module, head: nn.Module) -> Program:
        blocks = [nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(2)]
        parts = {"stem": stem, "blocks": nn.Sequential(*blocks), "head": head}
        return program_of(nn.Sequential(OrderedDict(parts)), torch.randn(3, 4))

    student = stack(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), nn.Linear(4, 2))
    teacher = stack(nn.Identity(), nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2)))
    want = [Pair("relu_1", "relu"), Pair("relu_2", "relu_1")]
    assert align(student, teacher, ["inner.blocks.[01]"]) == align(student, teacher, [AUTO]) == want
    assert align(student, teacher, ["relu_1"]) == [Pair("relu_1", "relu_1")]  # as the user asks


def test_another_models_attention_is_found_by_its_module_and_not_by_chance() -> None:
    class Attention(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return F.scaled_dot_product_attention(x.sin(), x.cos(), x.exp())

    def stack(stem: nn.Module) -> Program:
        parts = {"stem": stem, "block": Attention()}
        return program_of(nn.Sequential(OrderedDict(parts)), torch.randn(1, 2, 3, 4))

    student, teacher = stack(nn.Identity()), stack(Attention())
    want = [Pair("sin", "sin_1"), Pair("cos", "cos_1"), Pair("exp", "exp_1")]
    assert attention_pairs(student, teacher) == want
    assert len(attention_pairs(teacher, teacher)) == 6


def test_what_pruning_left_is_taken_out_of_the_teachers_value(encoder: Program) -> None:
    student = captured(Encoder(hidden=20, classes=3))
    index = torch.arange(0, 32)[torch.arange(32) % 8 < 5]
    (pair,) = align(student, encoder, ["gelu"], {"gelu": {2: index}})
    assert pair.axis is None
    value = torch.randn(2, 3, 32)
    assert torch.equal(pair.of_teacher(value), value[..., index])


def test_other_numbers_of_features_need_a_projection_and_are_not_chosen_by_themselves(
    encoder: Program,
) -> None:
    student = captured(Encoder(width=8, hidden=20, classes=3))
    assert align(student, encoder, [AUTO]) == []
    (pair,) = align(student, encoder, ["gelu_1"])
    assert (pair.axis, pair.sizes, dict(pair.kept)) == (2, (20, 32), {})


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("blok.1", "tap 'blok.1' is no value that student and teacher share; nearest: blocks.1"),
        ("gelu=linear_99", "tap 'gelu=linear_99' is no value that student and teacher share"),
        (
            "gelu=head",
            "3 axes, %linear_12 = aten.linear (distill_tools.py:50) of the teacher 2",
        ),
    ],
)
def test_taps_that_align_to_nothing_are_told(wanted: str, said: str, encoder: Program) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        align(encoder, encoder, [wanted])


def test_values_that_differ_in_several_axes_are_told() -> None:
    def parts(count: int, size: int) -> Program:
        return program_of(
            lambda x, w: (x @ w).unflatten(1, (count, size)), X, w=torch.randn(4, count * size)
        )

    with pytest.raises(UsageError, match="differ in more than one number of features"):
        align(parts(2, 3), parts(3, 4), ["unflatten"])


# Padding and outputs --------------------------------------------------------------------------


def eager(words: Tensor, mask: Tensor, w: Tensor) -> Tensor:
    x = F.embedding(words, w)
    scores = (x @ x.transpose(-1, -2)).masked_fill(mask[:, None] == 0, -1e9)
    return torch.softmax(scores, -1) @ x


WORDS, MASK = torch.randint(0, 9, (2, 4)), torch.ones(2, 4, dtype=torch.int64)


def test_the_input_that_masks_attention_marks_padding(encoder: Program) -> None:
    assert padding_mask(encoder) == "attention_mask"
    weights = {"w": torch.randn(9, 5)}
    dims: Any = {0: {0: "batch", 1: "seq"}, 1: {0: "batch", 1: "seq"}}
    assert padding_mask(program_of(eager, WORDS, MASK, dims=dims, **weights)) == "input_1"
    assert padding_mask(program_of(eager, WORDS, MASK > 0, **weights)) is None
    plain = program_of(lambda x, w: torch.softmax(x @ w, -1), torch.randn(2, 4), w=torch.eye(4))
    assert padding_mask(plain) is None


X, W, IMAGE = torch.randn(2, 4), torch.randn(5, 4), torch.randn(2, 4, 5, 5)
KERNEL, FEW = torch.randn(5, 4, 1, 1), torch.randn(4, 4)
IDS = torch.ones(2, 3, dtype=torch.int64)
OUTPUTS: dict[str, tuple[Any, tuple[Tensor, ...], dict[str, Tensor], tuple[str, int]]] = {
    "linear": (lambda x, w: F.linear(x, w), (X,), {"w": W}, ("logits", -1)),
    "bias": (lambda x, w, b: x @ w.T + b, (X,), {"w": W, "b": W[:, 0]}, ("logits", -1)),
    "scaled": (lambda x, w: 3 * (x @ w.T) + 1, (X,), {"w": W}, ("logits", -1)),
    "log-softmax": (lambda x: x.log_softmax(-1), (X,), {}, ("logits", -1)),
    "softmax": (lambda x, w: (x @ w.T).softmax(-1), (X,), {"w": W}, ("probabilities", -1)),
    "convolution": (lambda x, w: F.conv2d(x, w), (IMAGE,), {"w": KERNEL}, ("logits", 1)),
    "pooled": (lambda x, w: F.conv2d(x, w).mean((2, 3)), (IMAGE,), {"w": KERNEL}, ("logits", -1)),
    "norm": (lambda x, w: F.layer_norm(x, (4,), w), (X,), {"w": W[0]}, ("values", -1)),
    "tanh": (lambda x, w: F.linear(x, w).tanh(), (X,), {"w": W}, ("values", -1)),
    "sum": (lambda x, w: F.linear(x, w) + x[:, :1], (X,), {"w": W}, ("values", -1)),
    "projection": (lambda x, w: F.linear(x, w), (X,), {"w": FEW}, ("values", -1)),
    "shifted": (lambda x, w: 3 * (x @ w.T) + 1, (X,), {"w": FEW}, ("values", -1)),
    "pixels": (lambda x, w: F.conv2d(x, w[..., None, None]), (IMAGE,), {"w": FEW}, ("values", 1)),
    "few": (lambda x, w, b: F.linear(x, w, b), (X,), {"w": FEW, "b": FEW[0]}, ("logits", -1)),
    "added": (lambda x, w, b: x @ w + b, (X,), {"w": FEW, "b": FEW[0]}, ("logits", -1)),
    "times": (lambda x, w, b: F.linear(x, w) * b, (X,), {"w": FEW, "b": FEW[0]}, ("values", -1)),
    "addmm": (lambda x, w, b: torch.addmm(b, x, w), (X,), {"w": FEW, "b": FEW[0]}, ("logits", -1)),
    "tied": (lambda i, w: F.linear(F.embedding(i, w), w), (IDS,), {"w": FEW}, ("logits", -1)),
    "similarity": (lambda x, y: x @ y.T, (X, X), {}, ("values", -1)),
    "one number": (lambda x, w: F.linear(x, w), (X,), {"w": W[:1]}, ("values", -1)),
    "one axis": (lambda x, w: F.linear(x, w), (X[0],), {"w": W}, ("values", -1)),
    "integers": (lambda x, w: F.linear(x, w).argmax(-1), (X,), {"w": W}, ("ignored", -1)),
}


@pytest.mark.parametrize("name", OUTPUTS)
def test_what_an_output_is_follows_from_the_operators(name: str) -> None:
    function, inputs, weights, wanted = OUTPUTS[name]
    (output,) = outputs_of(program_of(function, *inputs, **weights))
    assert (output.kind, output.axis) == wanted


def test_a_layer_whose_result_is_used_again_gives_no_logits() -> None:
    def kinds(function: Any) -> list[str]:
        return [o.kind for o in outputs_of(program_of(function, X, w=W))]

    assert kinds(lambda x, w: (F.linear(x, w), F.normalize(F.linear(x, w)))) == ["logits", "values"]

    def compared(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        projected = F.linear(x, w)
        return projected, projected / projected.norm()

    assert kinds(compared) == ["values", "values"]

    def decided(x: Tensor, w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = F.linear(x, w)
        return logits, logits.softmax(-1), logits.argmax(-1)

    assert kinds(decided) == ["logits", "probabilities", "ignored"]


def test_the_user_may_say_what_an_output_is(encoder: Program) -> None:
    assert [o.kind for o in outputs_of(encoder, ("logits=values",))] == ["values"]
    with pytest.raises(UsageError, match="there is no output 'logit'; did you mean 'logits'"):
        outputs_of(encoder, ("logit=values",))
    with pytest.raises(UsageError, match="'logits=value' is no NAME=KIND; did you mean 'values'"):
        outputs_of(encoder, ("logits=value",))


def test_modules_give_the_same_answers() -> None:
    net = nn.Sequential(nn.Conv2d(4, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout())
    (output,) = outputs_of(program_of(net, IMAGE))
    assert output.kind == "logits"
