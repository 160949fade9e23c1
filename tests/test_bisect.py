"""Bisection, held to ten kinds of bug: each is traced to its pass and its rewrite."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import pytest
import torch
from torch import Tensor, nn
from torch.fx.node import Node

from strop.compiler import Model
from strop.compiler.debug.bisect import Culprit, bisect, first_bad
from strop.compiler.debug.checks import Check, Command, Metric, Verdict
from strop.compiler.frontend.prepare import Captured, capture_model
from strop.compiler.ir.builder import Builder
from strop.compiler.ir.nodes import arguments
from strop.compiler.ir.program import Program
from strop.compiler.recipes.registry import make_pass
from strop.compiler.rewriting.passes import Pass, Pipeline, RulePass
from strop.compiler.rewriting.pattern import Match
from strop.compiler.rewriting.rules import Log, Rule
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UsageError
from strop.compiler.util.stages import Stages

aten = torch.ops.aten
LAYERS, SIZE = 6, 16


class Block(nn.Module):
    """Attention by hand, so that there is something of everything to break."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(SIZE, 3 * SIZE)
        self.out = nn.Linear(SIZE, SIZE)
        self.norm = nn.LayerNorm(SIZE)
        self.feed = nn.Linear(SIZE, SIZE)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        packed = self.qkv(x)
        q, k, v = packed[..., :SIZE], packed[..., SIZE : 2 * SIZE], packed[..., 2 * SIZE :]
        scores = (q @ k.transpose(-1, -2)) * 0.25
        weights = torch.softmax(torch.where(mask, scores, -1e4), -1)
        x = self.norm(x + self.out(weights @ v))
        return x - nn.functional.gelu(self.feed(x))


class Stack(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block() for _ in range(LAYERS))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        for block in self.blocks:
            x = block(x, mask)
        return x, x.mean(-1)


@pytest.fixture(scope="module")
def captured() -> Captured:
    torch.manual_seed(0)
    mask = torch.ones(2, 8, 8, dtype=torch.bool).tril()
    example = {"x": torch.randn(2, 8, SIZE), "mask": mask}
    axes = {0: "batch", 1: ("seq", 2, 16)}
    dynamic = {"x": axes, "mask": {0: "batch", 1: "seq", 2: "seq"}}
    model = Model(Stack().eval(), example, dynamic)
    return capture_model(model, Stages())


class Renewed(Rule):
    """Replaces every root by an equal node; the one at ``bug_at`` by what ``bug`` makes of it."""

    name = "renewed"

    def __init__(self, root: object, bug: Callable[[Node, Builder], Node], bug_at: int) -> None:
        self.wanted = root
        self.bug = bug
        self.bug_at = bug_at
        self.seen = 0

    def targets(self):  # type: ignore[no-untyped-def]
        return (self.wanted,)

    def match(self, root: Node, program: Program) -> Match:
        return Match(root, {}, [root])

    def rewrite(self, match: Match, build: Builder) -> Node:
        self.seen += 1
        if self.seen == self.bug_at:
            return self.bug(match.root, build)
        return build.call(match.root.target, *match.root.args, **match.root.kwargs)


@dataclass(frozen=True)
class Sabotage(RulePass):
    name: ClassVar[str] = "sabotage"
    root: object = None
    bug: Callable[[Node, Builder], Node] | None = None
    bug_at: int = 1

    def rules(self) -> Sequence[Rule]:
        assert self.bug is not None
        return [Renewed(self.root, self.bug, self.bug_at)]


def wrong_axis(root: Node, build: Builder) -> Node:
    return build.call(root.target, root.args[0], -2)


def dropped_mask(root: Node, build: Builder) -> Node:
    return build.call(aten.clone.default, arguments(root)["self"])


def swapped_operands(root: Node, build: Builder) -> Node:
    return build.call(root.target, root.args[1], root.args[0])


def off_by_one_slice(root: Node, build: Builder) -> Node:
    x, dim, start, _ = root.args
    begin = start - 1 if start else 1  # type: ignore[operator]
    return build.call(root.target, x, dim, begin, begin + SIZE)  # type: ignore[operator]


def wrong_scale(root: Node, build: Builder) -> Node:
    return build.call(root.target, root.args[0], 0.5)


def stale_shape(root: Node, build: Builder) -> Node:
    made = build.call(root.target, *root.args)
    made.meta["val"] = made.meta["val"][..., :1]
    return made


def lost_output(root: Node, build: Builder) -> Node:
    output = build.graph.output_node()
    output.args = (output.args[0][:1],)  # type: ignore[index]
    return build.call(root.target, *root.args)


def not_a_number(root: Node, build: Builder) -> Node:
    made = build.call(root.target, *root.args)
    return build.call(
        aten.log.default, build.call(aten.neg.default, build.call(aten.abs.default, made))
    )


def nondeterminism(root: Node, build: Builder) -> Node:
    made = build.call(root.target, *root.args)
    noise = build.call(aten.mul.Tensor, build.call(aten.rand_like.default, made), 1e-6)
    return build.call(aten.add.Tensor, made, noise)


def crash(root: Node, build: Builder) -> Node:
    return build.call(root.target, root.args[7])


BUGS = [
    (wrong_axis, aten.softmax.int),
    (dropped_mask, aten.where.ScalarOther),
    (swapped_operands, aten.sub.Tensor),
    (off_by_one_slice, aten.slice.Tensor),
    (wrong_scale, aten.mul.Tensor),
    (stale_shape, aten.transpose.int),
    (lost_output, aten.linear.default),
    (not_a_number, aten.gelu.default),
    (nondeterminism, aten.linear.default),
    (crash, aten.layer_norm.default),
]


def passes_with(bug: Pass) -> Pipeline:
    names = ("noops", "cse", "masks", "linears", "norms", "bias-gelu", "cse")
    made = [make_pass(name, {}) for name in names]
    return Pipeline.of([*made[:3], bug, *made[3:]])


def found(captured: Captured, bug: Pass, check: Check | None = None) -> Culprit:
    metric = Metric(captured.cases, "max_abs", 1e-4)
    return bisect(captured.program, passes_with(bug), check or metric, captured.probe.inputs)


@pytest.mark.parametrize(
    "where",
    [
        pytest.param("first", marks=pytest.mark.slow),
        "middle",
        pytest.param("last", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("bug", "root"), BUGS, ids=[b.__name__ for b, _ in BUGS])
def test_a_bug_is_traced_to_its_pass_and_rewrite(
    captured: Captured, bug: Callable[[Node, Builder], Node], root: object, where: str
) -> None:
    count = len(captured.program.find(root))  # type: ignore[arg-type]
    assert count >= LAYERS
    number = {"first": 1, "middle": count // 2, "last": count}[where]
    culprit = found(captured, Sabotage(root, bug, number))
    # A pass that raises is known as far as it went.
    whole = number if bug is crash else count
    assert (culprit.step.name, culprit.number, culprit.count) == ("sabotage", number, whole)
    assert "test_bisect.py:" in culprit.place
    passes = len(passes_with(Sabotage()).steps)
    assert culprit.checks["passes"] <= 2 + math.ceil(math.log2(passes))
    assert culprit.checks.get("rewrites", 0) <= 2 + math.ceil(math.log2(count))
    if bug in (crash, lost_output):
        assert culprit.change == ""
    else:
        assert culprit.change.count("\n-") <= 8


def test_the_value_that_moved_is_named_with_its_line(captured: Captured) -> None:
    culprit = found(captured, Sabotage(aten.softmax.int, wrong_axis, 2))
    assert culprit.moved is not None
    assert culprit.moved.startswith("%matmul_3 = aten.matmul (test_bisect.py:")
    assert "-2" in culprit.change
    assert culprit.rewrite is not None
    assert culprit.rewrite.rule == "renewed"


@pytest.mark.parametrize(
    ("size", "bad"), [(n, b) for n in (1, 2, 7, 8, 100) for b in range(1, n + 1)]
)
def test_the_search_asks_log2_times(size: int, bad: int) -> None:
    asked = []

    def is_bad(n: int) -> bool:
        asked.append(n)
        return n >= bad

    assert first_bad(0, size, is_bad) == bad
    assert len(asked) <= math.ceil(math.log2(size)) if size > 1 else not asked


class Moody(Check):
    """Good and bad in turns."""

    repeats = 2

    def __init__(self) -> None:
        self.asked = 0

    def ask(self, program: Program, again: Program) -> Verdict:
        self.asked += 1
        return Verdict(self.asked % 2 == 0, "who knows")


def test_a_flaky_check_is_said_to_be_flaky(captured: Captured) -> None:
    with pytest.raises(UsageError, match="the check is flaky: on the captured model"):
        found(captured, Sabotage(aten.softmax.int, wrong_axis, 1), Moody())


class Fickle(Check):
    """Right about everything, but never twice about what a search tries on its way."""

    repeats = 2

    def __init__(self) -> None:
        self.asked: dict[str, int] = {}

    def ask(self, program: Program, again: Program) -> Verdict:
        text = str(program)
        self.asked[text] = self.asked.get(text, 0) + 1
        right = len(self.asked) <= 2 or self.asked[text] == 1
        return Verdict(("aten.tanh" not in text) == right, "who knows")


def test_a_check_that_changes_its_mind_later_is_found_out(captured: Captured) -> None:
    def with_tanh(root: Node, build: Builder) -> Node:
        return build.call(aten.tanh.default, root.args[0])

    with pytest.raises(UsageError, match="the check is flaky: at one rewrite of 'sabotage'"):
        found(captured, Sabotage(aten.gelu.default, with_tanh, 3), Fickle())


def test_a_check_that_fails_on_the_original_is_said_before_any_search(captured: Captured) -> None:
    check = Metric(captured.cases, "cosine", 1.5)
    with pytest.raises(UsageError, match="fails on the captured model, before any pass"):
        found(captured, Sabotage(aten.softmax.int, wrong_axis, 1), check)


def test_passes_that_are_all_good_are_not_blamed(captured: Captured) -> None:
    harmless = Sabotage(aten.softmax.int, wrong_axis, bug_at=0)
    with pytest.raises(UsageError, match="holds after the last pass"):
        found(captured, harmless)


@dataclass(frozen=True)
class ByHand(Pass):
    """No rules: copies every linear layer, and raises at the fourth."""

    name: ClassVar[str] = "by-hand"
    good: int = 3

    def apply(self, program: Program, log: Log) -> None:
        for i, node in enumerate(program.find(aten.linear.default)):
            if i == self.good:
                raise ValueError("at the fourth")
            new = Builder(program, node, self.name).call(node.target, *node.args, **node.kwargs)
            node.replace_all_uses_with(new)
            program.erase_dead([node])
            log.rewrote(self.name, node)


@pytest.mark.parametrize("good", [0, 3])
def test_a_pass_without_rules_raises_at_the_rewrite_after_its_last(
    captured: Captured, good: int
) -> None:
    culprit = found(captured, ByHand(good))
    assert (culprit.step.name, culprit.number, culprit.count) == ("by-hand", good + 1, good + 1)
    assert culprit.place.startswith("after rule" if good else "before its first rewrite")
    assert culprit.rewrite is None


def test_a_name_is_never_given_twice(captured: Captured) -> None:
    program = captured.program.clone()
    node = program.find(aten.gelu.default)[0]
    name = node.name
    renewed = Builder(program, node, "x").call(aten.relu.default, node.args[0])
    node.replace_all_uses_with(renewed)
    program.erase_dead([node])
    later = program.clone()
    place = later.find(aten.relu.default)[0]
    with later.graph.inserting_before(place):
        other = later.graph.call_function(aten.gelu.default, (place.args[0],), name=name)
    assert other.name != name


def test_a_command_of_the_users_judges_the_lowered_file(captured: Captured) -> None:
    code = (
        "import sys, onnx; names = [n.op_type for n in onnx.load(sys.argv[1]).graph.node];"
        "sys.exit('Tanh' in names)"
    )

    def with_tanh(root: Node, build: Builder) -> Node:
        return build.call(aten.tanh.default, root.args[0])

    check = Command(f'"{sys.executable}" -c "{code}" {{}}', get_target("cpu"))
    culprit = found(captured, Sabotage(aten.gelu.default, with_tanh, 3), check)
    assert (culprit.step.name, culprit.number) == ("sabotage", 3)
    assert "exited with 1" in culprit.reason


def test_an_unknown_metric_is_refused_with_the_nearest_one(captured: Captured) -> None:
    with pytest.raises(UsageError, match="did you mean 'cosine'"):
        Metric(captured.cases, "cosin", 0.9)
