"""Recovery: a compressed program learns from the original, and nothing else of that ships."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Full, Strop, run_python
from distill_tools import Encoder, batch, captured
from program_tools import program_of
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler.ir.program import Program
from strop.compiler.rewriting.batches import on_batch
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.learning import Learned
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.cache import Cache
from strop.compiler.util.errors import UsageError
from strop.passes.distill import recover as recover_module
from strop.passes.distill.kept import kept_positions
from strop.passes.distill.objective import Objective
from strop.passes.distill.recover import Recover
from strop.passes.distill.taps import tapped
from strop.passes.distill.teacher import Teacher
from strop.passes.prune.prune import Prune
from strop.passes.prune.sparsify import Sparsify

BATCHES = [batch(seed=seed) for seed in range(20)]
SHORT = Recover(steps=4, check_every=2, lr=1e-3)


def teacher_of(classes: int = 0) -> Program:
    """An encoder whose feed-forward networks matter."""
    program = captured(Encoder(classes=classes))
    for name, weight in program.weights.items():
        if ".up." in name or ".down." in name:
            program.set_weight(name, 4 * weight, "test")
    return program


def halved(teacher: Program) -> Program:
    """The same without half of the channels of its feed-forward networks."""
    student = teacher.clone()
    for name, weight in teacher.weights.items():
        cut = weight.detach().clone()
        if ".up." in name:
            cut[::2] = 0
        elif ".down.weight" in name:
            cut[:, ::2] = 0
        student.set_weight(name, cut, "test")
    return student


def error(program: Program, teacher: Program) -> float:
    """The squared error of the outputs, relative to the teacher's, where there is no padding."""
    held = batch(rows=64, seed=999)
    with torch.no_grad():
        (got,), (want,) = program.run(**held), teacher.run(**held)
    counted = held["attention_mask"][..., None] if got.ndim == 3 else torch.ones(())
    return float(((got - want) * counted).square().sum() / (want * counted).square().sum())


@pytest.fixture(scope="module")
def teacher() -> Program:
    return teacher_of()


def learned(one: Recover, student: Program, context: Context) -> Learned:
    """What a pass learns."""
    log = Log()
    program = one.run(student, log, context).program
    assert log.learned is not None
    changed = {n: t for n, t in program.weights.items() if t is not student.weights[n]}
    return Learned(changed, log.learned["facts"], tuple(log.notes))


# What it gains --------------------------------------------------------------------------------


@pytest.mark.parametrize(("classes", "times"), [(0, 10), (3, 5)])
def test_inputs_alone_bring_back_most_of_what_half_the_channels_did(
    classes: int, times: float
) -> None:
    teacher = teacher_of(classes)
    student = halved(teacher)
    log = Log()
    context = Context(teacher=teacher, calibration=BATCHES * 2)
    result = Recover(steps=200, lr=3e-3, check_every=50).run(student, log, context)
    assert error(result.program, teacher) * times < error(student, teacher)
    assert result.program.contract == student.contract
    assert result.program.weights.keys() == student.weights.keys()
    assert log.learned is not None
    facts = log.learned["facts"]
    assert facts["validation"]["after"] < 0.25 * facts["validation"]["before"]
    assert facts["outputs"] == ({"logits": "logits"} if classes else {"hidden": "values"})
    taps = ["layer_norm_1=layer_norm_1", "layer_norm_3=layer_norm_3"]
    assert facts["taps"] == (taps if classes else taps[:1])  # the last one is the output itself
    assert (facts["data"], facts["mask"], facts["updates"]) == (
        "calibration",
        "attention_mask",
        200,
    )
    assert [line["update"] for line in facts["history"]] == [0, 50, 100, 150, 200]


def test_where_training_makes_nothing_better_all_weights_stay(teacher: Program) -> None:
    context = Context(teacher=teacher, calibration=BATCHES)
    result = replace(SHORT, lr=0.5).run(teacher, None, context)
    assert not result.modified and not result.log.rewrites
    assert result.log.notes == [
        "recovery made no weights better on what is held out: all stay as they were"
    ]


def test_few_batches_hold_nothing_out_and_that_is_said(teacher: Program) -> None:
    context = Context(teacher=teacher, calibration=BATCHES[:3])
    (note,) = SHORT.run(halved(teacher), None, context).log.notes
    assert note.startswith("recovery held nothing out, since there are few batches")


def test_training_data_come_before_calibration_and_frozen_weights_stay(teacher: Program) -> None:
    context = Context(teacher=teacher, calibration=[], train=BATCHES)
    student = halved(teacher)
    got = learned(replace(SHORT, freeze=("words.*", "*.norm.*")), student, context)
    assert all(weight.grad is None for weight in student.weights.values())
    assert got.facts["data"] == "train"
    changed = set(got.tensors)
    frozen = {n for n in teacher.weights if n.startswith("words") or ".norm." in n}
    assert frozen and not frozen & changed and "blocks.0.up.weight" in changed


def test_zeros_of_a_sparse_weight_stay_and_its_other_elements_learn(teacher: Program) -> None:
    sparse = Sparsify(pattern="2:4").run(teacher).program
    context = Context(teacher=teacher, calibration=BATCHES)
    one = replace(SHORT, steps=40, check_every=20)
    result = one.run(sparse, None, context).program
    before, after = (p.weights["blocks.0.up.weight"] for p in (sparse, result))
    assert torch.equal(before == 0, after == 0) and (before == 0).float().mean() == 0.5
    assert (before != after).float().mean() > 0.4
    assert error(result, teacher) < 0.7 * error(sparse, teacher)


def test_metrics_of_the_user_are_measured_before_and_after(teacher: Program) -> None:
    student = halved(teacher)

    def evaluate(program: Program) -> Mapping[str, float]:
        assert not any(spec.tap for spec in program.contract.outputs)
        return {"error": error(program, teacher)}

    context = Context(teacher=teacher, train=BATCHES, evaluate=evaluate)
    log = Log()
    result = SHORT.run(student, log, context)
    assert log.learned is not None
    metrics = log.learned["facts"]["metrics"]
    assert metrics["before"] == evaluate(student)
    assert metrics["after"] == evaluate(result.program)


# What it is trained for -----------------------------------------------------------------------


def parts(one: Recover, student: Program, context: Context) -> dict[str, float]:
    """The parts of the first validation loss."""
    history = learned(one, student, context).facts["history"]
    return dict(history[0]["validation_parts"])


def test_weights_of_losses_choose_the_parts(teacher: Program) -> None:
    context = Context(teacher=teacher, calibration=BATCHES)
    student = halved(teacher)
    assert parts(SHORT, student, context).keys() == {"embedding", "hidden"}
    assert parts(replace(SHORT, hidden=0), student, context).keys() == {"embedding"}
    only = replace(SHORT, hidden=0, embedding=0, contrastive=1.0)
    assert parts(only, student, context).keys() == {"contrastive"}
    logits = teacher_of(3)
    context = replace(context, teacher=logits)
    found = parts(SHORT, halved(logits), context)
    assert found.keys() == {"soft", "hidden"}
    hotter = parts(replace(SHORT, temperature=8.0), halved(logits), context)
    assert hotter["hidden"] == found["hidden"] and hotter["soft"] != found["soft"]
    asked = replace(SHORT, outputs=("logits=values",))
    assert parts(asked, halved(logits), context).keys() == {"embedding", "hidden"}


def test_gradient_checkpointing_gives_the_same_with_less_memory(teacher: Program) -> None:
    def saved(segments: int) -> tuple[int, list[Tensor]]:
        """Bytes that are kept for gradients, and the gradients."""
        leaves = {n: w.detach().clone().requires_grad_() for n, w in teacher.weights.items()}
        student = replace(tapped(teacher, ["gelu"]), weights=leaves)
        held = {leaf.untyped_storage().data_ptr() for leaf in leaves.values()}
        kept: dict[int, int] = {}

        def pack(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in held:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            outputs = on_batch(student, BATCHES[0], segments=segments)
        sum(o.square().sum() for o in outputs).backward()  # type: ignore[union-attr]
        return sum(kept.values()), [t.grad for t in leaves.values() if t.grad is not None]

    whole, cut = saved(0), saved(6)
    assert 2 * cut[0] < whole[0]
    assert len(whole[1]) == len(cut[1]) and all(map(torch.equal, whole[1], cut[1]))
    assert len(saved(10**6)[1]) == len(whole[1])
    context, student = Context(teacher=teacher, calibration=BATCHES), halved(teacher)
    for bf16 in (False, True):
        asked = [replace(SHORT, segments=n, bf16=bf16) for n in (0, 4)]
        plain, segmented = (learned(one, student, context) for one in asked)
        assert plain.facts == segmented.facts


def test_relations_of_attention_are_compared_though_heads_are_fewer(teacher: Program) -> None:
    context = Context(teacher=teacher, calibration=BATCHES)
    one = replace(SHORT, hidden=0, embedding=0, relations=1.0)
    assert parts(one, teacher, context) == {"relations": pytest.approx(0, abs=1e-9)}
    pruned = Prune(share=0.5, kinds=("heads",), importance="first").run(teacher).program
    assert pruned.weights["blocks.0.q.weight"].shape == (8, 16)
    other = [b | {"input_ids": b["input_ids"] + 7 * (1 - b["attention_mask"])} for b in BATCHES]
    found = [parts(one, pruned, replace(context, calibration=c)) for c in (BATCHES, other)]
    assert found[0]["relations"] > 1e-3 and found[0] == pytest.approx(found[1], rel=1e-5)
    plain = program_of(lambda x, w: F.layer_norm(x @ w, (3,)), torch.randn(2, 3), w=torch.eye(3))
    with pytest.raises(UsageError, match="it has 0 taps and 0 attentions; set one of soft, embed"):
        one.run(plain, None, Context(teacher=plain, train=[{"input_0": torch.randn(2, 3)}]))


def test_the_loss_is_the_weighted_sum_of_its_parts(teacher: Program) -> None:
    context = Context(teacher=teacher, calibration=BATCHES)
    one = replace(SHORT, hidden=0.25, embedding=2.0)
    first = learned(one, halved(teacher), context).facts["history"][0]
    found = first["validation_parts"]
    wanted = 0.25 * found["hidden"] + 2 * found["embedding"]
    assert first["validation"] == pytest.approx(wanted, rel=1e-4)


def test_hard_labels_go_through_the_users_loss(teacher: Program) -> None:
    logits = teacher_of(3)
    data = [b | {"label": torch.arange(8) % 3} for b in BATCHES]

    def loss(outputs: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> Tensor:
        return nn.functional.cross_entropy(outputs["logits"], given["label"])

    one = replace(SHORT, hard=0.5, soft=0, hidden=0)
    context = Context(teacher=logits, train=data, loss=loss)
    assert parts(one, halved(logits), context).keys() == {"hard"}
    with pytest.raises(UsageError, match="pass 'recover' needs train and loss: give Model"):
        one.run(logits, None, Context(teacher=logits, calibration=BATCHES))


OWN = """
import torch

def gap(student, teacher, batch):
    assert batch["input_ids"].shape[0] == 8 and not teacher["hidden"].requires_grad
    return (student["hidden"] - teacher["hidden"]).abs().mean()

def rows(student, teacher, batch):
    return student["hidden"].mean((1, 2))

def broken(student, teacher, batch):
    return student["missing"]
"""


def test_a_loss_of_the_users_own_sees_student_and_teacher(teacher: Program, tmp_path: Path) -> None:
    file = tmp_path / "own.py"
    file.write_text(OWN)
    one = replace(SHORT, hidden=0, embedding=0, own=0.5, own_loss=f"{file}:gap")
    context, student = Context(teacher=teacher, calibration=BATCHES), halved(teacher)
    facts = learned(one, student, context).facts
    first = facts["history"][0]
    assert first["validation_parts"].keys() == {"own"} and facts["losses"]["own"] == 0.5
    assert first["validation"] == pytest.approx(0.5 * first["validation_parts"]["own"], rel=1e-4)
    key = one.key(student, context)
    file.write_text(OWN + "# changed\n")
    assert one.key(student, context) != key
    for name, said in (
        ("rows", "own_loss returned a tensor of [8]; it must return a float tensor without axes"),
        ("broken", "own_loss raised KeyError: 'missing'\n  at "),
        ("gone", "has no 'gone'"),
    ):
        with pytest.raises(UsageError, match=re.escape(said)):
            replace(one, own_loss=f"{file}:{name}").run(student, None, context)
    with pytest.raises(UsageError, match="own is above 0: name the loss"):
        Recover(own=1.0)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"input_ids": torch.full((8, 7), 99)},
            r"input_ids i64\[8, 7\] for i64\[batch, seq\].*Index",
        ),
        (
            {"input_ids": torch.rand(8, 7)},
            r"input_ids f32\[8, 7\] for i64\[batch, seq\].*: RuntimeEr",
        ),
        ({"attention_mask": torch.ones(8, 6)}, r"attention_mask f32\[8, 6\] for i64\[batch, seq\]"),
    ],
)
def test_a_batch_that_the_model_does_not_take_is_named(
    change: dict[str, Tensor], said: str, teacher: Program
) -> None:
    data = [*BATCHES[:3], BATCHES[3] | change]
    with pytest.raises(UsageError, match=rf"^train\[3\]: the model does not run on .*{said}"):
        SHORT.run(halved(teacher), None, Context(teacher=teacher, train=data))


def test_a_loss_without_a_gradient_is_told(teacher: Program, tmp_path: Path) -> None:
    (tmp_path / "own.py").write_text(
        "import torch\n"
        "def detached(student, teacher, batch): return student['hidden'].detach().sum()\n"
        "def constant(student, teacher, batch): return torch.ones((), requires_grad=True)\n"
    )
    for name in ("detached", "constant"):
        one = replace(SHORT, own=1.0, own_loss=f"{tmp_path}/own.py:{name}")
        with pytest.raises(
            UsageError, match=r"^train\[\d+\]: own_loss returned a number that has no"
        ):
            one.run(halved(teacher), None, Context(teacher=teacher, train=BATCHES))


def test_where_all_weights_are_frozen_nothing_can_be_learned(teacher: Program) -> None:
    with pytest.raises(UsageError, match="freeze: all weights match it, and none is left to train"):
        replace(SHORT, freeze=("*",)).run(teacher, None, Context(teacher=teacher, train=BATCHES))


def test_padding_does_not_count(teacher: Program) -> None:
    """Words that are masked reach the hidden states of their own places only."""
    student, context = halved(teacher), Context(teacher=teacher)
    other = [b | {"input_ids": b["input_ids"] + 7 * (1 - b["attention_mask"])} for b in BATCHES]
    found = [parts(SHORT, student, replace(context, calibration=c)) for c in (BATCHES, other)]
    assert found[0] == pytest.approx(found[1], rel=1e-5)
    blind = replace(SHORT, mask="")
    found = [parts(blind, student, replace(context, calibration=c)) for c in (BATCHES, other)]
    assert found[0] != pytest.approx(found[1], rel=1e-3)


def test_projections_are_trained_and_thrown_away(
    teacher: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Objective] = []

    class Kept(Objective):
        def __init__(self, *rest: Any) -> None:
            super().__init__(*rest)
            made.append(self)
            self.first = {n: t.detach().clone() for n, t in self.parameters.items()}

    monkeypatch.setattr(recover_module, "Objective", Kept)
    student = captured(Encoder(hidden=20, seed=4))
    got = learned(replace(SHORT, taps=("gelu*",)), student, Context(teacher=teacher, train=BATCHES))
    projections = {n for n in made[0].parameters if n.startswith("projection/")}
    assert projections == {"projection/gelu", "projection/gelu_1"}
    for name in projections:
        assert made[0].parameters[name].shape == (32, 20)
        assert not torch.equal(made[0].parameters[name], made[0].first[name])  # type: ignore[attr-defined]
    assert set(got.tensors) <= set(student.weights)


def test_what_pruning_left_is_compared_without_projection(teacher: Program) -> None:
    pruned = Prune(share=0.5, importance="random").run(teacher).program
    assert pruned.weights["blocks.0.up.weight"].shape == (16, 16)
    kept = kept_positions(pruned)
    index = torch.tensor(pruned.origins["blocks.0.up.weight"].kept[0])
    assert torch.equal(kept["gelu"][2], index) and "layer_norm_1" not in kept
    context = Context(teacher=teacher, calibration=BATCHES)
    got = learned(replace(SHORT, taps=("gelu",), embedding=0), pruned, context)
    # What is left of the first block's channels is the teacher's own.
    assert got.facts["history"][0]["validation"] == pytest.approx(0, abs=1e-10)
    assert got.facts["taps"] == ["gelu=gelu"]


def test_a_narrower_residual_stream_is_compared_with_what_is_left_of_it(teacher: Program) -> None:
    logits = teacher_of(3)
    narrow = Prune(share=0.5, kinds=("width",), importance="first", round_to=2).run(logits).program
    assert narrow.weights["words.weight"].shape == (40, 8)
    context = Context(teacher=logits, calibration=BATCHES)
    got = learned(replace(SHORT, steps=60, check_every=30, lr=3e-3), narrow, context)
    assert got.facts["taps"] == ["layer_norm_1=layer_norm_1", "layer_norm_3=layer_norm_3"]
    assert kept_positions(narrow)["layer_norm_3"][2].tolist() == list(range(8))
    assert got.facts["validation"]["after"] < 0.6 * got.facts["validation"]["before"]
    assert not kept_positions(logits)


# Bad input ------------------------------------------------------------------------------------


def test_recovery_needs_data(teacher: Program) -> None:
    said = "pass 'recover' needs train or calibration: give Model(train=...) in the factory"
    with pytest.raises(UsageError, match=re.escape(said)):
        Recover().run(teacher, None, Context(teacher=teacher))
    with pytest.raises(UsageError, match="needs a program to learn from"):
        Recover().run(teacher, None, Context(train=BATCHES))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"soft": -1.0}, "soft is -1.0; it must be 0 or above"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"steps": 0}, "training has no end"),
        ({"freeze": ("word.*",)}, "freeze: no weight is 'word.*'; nearest: words.weight"),
        ({"mask": "attention_mas"}, "no input 'attention_mas'; did you mean 'attention_mask'?"),
        ({"taps": ("nothing",)}, "tap 'nothing' is no value that student and teacher share"),
        ({"outputs": ("a=values",)}, "outputs: there is no output 'a'"),
        ({"embedding": 0, "hidden": 0}, "outputs are hidden (values), and it has 0 taps and 0 att"),
    ],
)
def test_options_without_meaning_are_told(
    options: dict[str, Any], said: str, teacher: Program
) -> None:
    with pytest.raises(UsageError, match=re.escape(said)):
        Recover(**options).run(teacher, None, Context(teacher=teacher, train=BATCHES))


def test_a_teacher_with_another_contract_is_told(teacher: Program) -> None:
    def said(other: Program) -> str:
        with pytest.raises(UsageError) as caught:
            SHORT.run(teacher_of(3), None, Context(teacher=other, train=BATCHES))
        return str(caught.value)

    assert "the teacher has the outputs hidden, the student logits" in said(teacher)
    one = program_of(lambda x, w: x @ w, torch.randn(2, 3), w=torch.eye(3))
    assert "the teacher has the inputs input_0, the student input_ids, attention" in said(one)
    assert (
        "the teacher's output 'logits' is ['batch', 5], the student's ['batch', 3]: both need the "
        "same sizes, and the same vocabulary or classes"
    ) in said(teacher_of(5))


# The teacher's values -------------------------------------------------------------------------


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """One entry for each run of the teacher."""
    found: list[str] = []
    compute = Teacher._compute

    def counted(self: Teacher, given: Mapping[str, Tensor]) -> list[Tensor]:
        found.append("ran")
        return compute(self, given)

    monkeypatch.setattr(Teacher, "_compute", counted)
    return found


def test_the_teacher_runs_once_for_each_batch(teacher: Program, runs: list[str]) -> None:
    context = Context(teacher=teacher, calibration=BATCHES)
    student = halved(teacher)
    one = replace(SHORT, steps=40, check_every=10)
    kept = learned(one, student, context)
    assert len(runs) == 20
    anew = learned(replace(one, teacher_gib=0.0), student, context)
    assert len(runs) == 20 + 40 + 5 * 2
    assert kept.facts == anew.facts
    for name, tensor in kept.tensors.items():
        assert torch.equal(tensor, anew.tensors[name])


def test_what_is_kept_of_the_teacher_is_bounded_and_found_again(
    teacher: Program, runs: list[str], tmp_path: Path
) -> None:
    values = tapped(teacher, ["gelu"])
    size = sum(t.nbytes for t in values.run(**BATCHES[0]))
    said: list[str] = []
    for _ in range(2):
        held = Teacher(values, tmp_path / "t", int(2.9 * size), said.append)
        for given in BATCHES[:3]:
            for got, want in zip(held.values(given), values.run(**given)):
                assert torch.equal(got, want)
    assert len(runs) == 4 and not said
    (tmp_path / "t" / "broken").touch()
    for file in (tmp_path / "t").glob("*.safetensors"):
        file.write_bytes(file.read_bytes()[:-9])
    held = Teacher(values, tmp_path / "t", 10 * size, said.append)
    assert torch.equal(held.values(BATCHES[0])[0], values.run(**BATCHES[0])[0])
    assert len(runs) == 5


def test_the_teacher_computes_in_bfloat16_where_the_student_does(teacher: Program) -> None:
    held = Teacher(teacher, None, 0, print)
    (exact,) = held.values(BATCHES[0])
    with torch.autocast("cpu", torch.bfloat16):
        (rounded,) = held.values(BATCHES[0])
    assert 0 < (rounded - exact).abs().max() < 0.1


def test_a_full_disk_is_told_once(teacher: Program, tmp_path: Path, full: Full) -> None:
    said: list[str] = []
    held = Teacher(teacher, tmp_path / "t", 10**9, said.append)
    with full(100):
        for given in BATCHES[:2]:
            held.values(given)
    assert not list((tmp_path / "t").iterdir())
    assert len(said) == 1 and said[0].startswith("the teacher's values are computed anew in each")


# Whole builds ---------------------------------------------------------------------------------


class Killed(BaseException):
    """Ends a build as a kill does."""


def test_an_interrupted_recovery_goes_on_and_gives_the_same(
    teacher: Program, tmp_path: Path
) -> None:
    class Stops(list[Any]):
        """Ends the process at the 40th batch that training asks for."""

        asked = -len(BATCHES) - 2

        def __iter__(self) -> Iterator[Any]:
            return (self[i] for i in range(len(self)))

        def __getitem__(self, place: Any) -> Any:
            Stops.asked += 1
            if Stops.asked == 15:
                raise Killed
            return super().__getitem__(place)

    student = halved(teacher)
    one = replace(SHORT, steps=20, check_every=4)
    context = Context(teacher=teacher, calibration=Stops(BATCHES), cache=Cache(tmp_path))
    with pytest.raises(Killed):
        one.run(student, None, context)
    told: list[str] = []
    got = learned(one, student, replace(context, progress=told.append))
    assert told[0] == "training: on from the checkpoint of update 12"
    whole = learned(one, student, Context(teacher=teacher, calibration=BATCHES))
    assert got.facts == whole.facts
    for name, tensor in whole.tensors.items():
        assert torch.equal(got.tensors[name], tensor)


FACTORY = """
import sys
from dataclasses import dataclass
sys.path.insert(0, {tests!r})
from distill_tools import Encoder, batch, model_of
from strop.compiler import Pass
from test_distill_recover import halved

def make():
    data = [batch(seed=seed) for seed in range(20)]
    return model_of(Encoder(), calibration=data, evaluate=lambda run: {{"always": 1.0}})

@dataclass(frozen=True)
class Halve(Pass):
    name = "halve"

    def apply(self, program, log):
        for name, tensor in halved(program).weights.items():
            program.set_weight(name, tensor, "halve")
            log.changed_weight("halve", name)
"""

RECIPE = """
name = "small"
extends = "cpu-fp32"
[budget]
max_error = 10.0
[[slots.compress]]
name = "factory.py:Halve"
[[slots.compress]]
name = "recover"
steps = 20
check_every = 10
taps = ["auto", "gelu"]
"""


def test_a_recipe_recovers_and_says_in_the_manifest_how(strop: Strop, tmp_path: Path) -> None:
    tests = str(Path(__file__).parent)
    (tmp_path / "factory.py").write_text(FACTORY.format(tests=tests))
    (tmp_path / "recipe.toml").write_text(RECIPE)
    built = [
        strop("build", f"{tmp_path / 'factory.py'}:make", "-o", tmp_path / out,
              "--recipe", tmp_path / "recipe.toml")
        for out in ("a", "b")
    ]  # fmt: skip
    assert [one.code for one in built] == [0, 0], built[0].err
    manifests = [(tmp_path / out / "manifest.json").read_bytes() for out in ("a", "b")]
    assert manifests[0] == manifests[1]
    manifest = json.loads(manifests[0])
    (step,) = [p for p in manifest["passes"] if p["name"] == "recover"]
    facts, source = step["learned"]["facts"], step["learned"]["from"]
    assert source["teacher"] != source["program"] and source["data"].keys() == {
        "calibration",
        "train",
    }
    assert source["data"]["train"] is None and len(source["data"]["calibration"]) == 64
    assert facts["losses"] == {"soft": 1.0, "embedding": 1.0, "hidden": 1.0}
    assert (facts["temperature"], facts["seed"], facts["updates"]) == (2.0, 0, 20)
    assert facts["metrics"] == {"before": {"always": 1.0}, "after": {"always": 1.0}}
    assert len(facts["history"]) == 3
    assert [o["name"] for o in manifest["contract"]["outputs"]] == ["hidden"]
    assert step["parameters_before"] == step["parameters_after"]


def small_recipe(tmp_path: Path, **options: Any) -> list[str]:
    """The arguments of a build that halves and recovers the small encoder."""
    (tmp_path / "factory.py").write_text(FACTORY.format(tests=str(Path(__file__).parent)))
    lines = [f"{name} = {json.dumps(value)}" for name, value in options.items()]
    base = RECIPE.replace("steps = 20\n", "").replace("check_every = 10\n", "")
    (tmp_path / "recipe.toml").write_text("\n".join([base, *lines]) + "\n")
    return [f"{tmp_path / 'factory.py'}:make", "--recipe", str(tmp_path / "recipe.toml")]


def facts_of(artifact: Path) -> dict[str, Any]:
    """What a manifest says of the recovery."""
    passes = json.loads((artifact / "manifest.json").read_text())["passes"]
    facts: dict[str, Any] = next(p for p in passes if p["name"] == "recover")["learned"]["facts"]
    return facts


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_a_build_that_is_interrupted_says_how_to_go_on_and_does(
    number: signal.Signals, tmp_path: Path
) -> None:
    arguments = small_recipe(tmp_path, steps=900, check_every=20)
    command = [sys.executable, "-m", "strop.compiler.cli", "build", *arguments, "-o"]
    cache = tmp_path / "cache"

    def environment(cache: Path) -> dict[str, str]:
        return os.environ | {"STROP_CACHE": str(cache)}

    with subprocess.Popen(
        [*command, str(tmp_path / "out")],
        env=environment(cache),
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    ) as running:
        while not list(cache.glob("learned/.under-way-recover-*/state.safetensors")):
            assert running.poll() is None
            time.sleep(0.05)
        time.sleep(1)
        running.send_signal(number)
        _, said = running.communicate(timeout=60)
    assert running.returncode == (130 if number == signal.SIGINT else -signal.SIGKILL)
    told = re.search(r"training was interrupted after \d+ updates; the checkpoint of update", said)
    assert bool(told) == (number == signal.SIGINT)
    assert not (tmp_path / "out").exists()
    for out, where in (("out", cache), ("whole", tmp_path / "other")):
        subprocess.run([*command, str(tmp_path / out)], env=environment(where), check=True)
    assert facts_of(tmp_path / "out") == facts_of(tmp_path / "whole")
    models = [(tmp_path / out / "model.onnx").read_bytes() for out in ("out", "whole")]
    assert models[0] == models[1]
    assert not list(cache.glob("learned/.under-way-*"))


@pytest.mark.slow
def test_two_processes_build_what_one_does(tmp_path: Path) -> None:
    arguments = small_recipe(tmp_path, steps=20, check_every=10, accumulate=2, held_out=0.25)
    torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2")
    for out, starter in (("one", ()), ("two", torchrun)):
        done = run_python(
            *starter, "-m", "strop.compiler.cli", "build", *arguments, "-o", str(tmp_path / out),
            STROP_CACHE=str(tmp_path / f"cache-{out}"),
        )  # fmt: skip
        assert done.code == 0, done.err
    one, two = facts_of(tmp_path / "one"), facts_of(tmp_path / "two")
    for line, other in zip(one["history"], two["history"]):
        assert other["validation"] == pytest.approx(line["validation"], abs=1e-4)
        assert other["loss"] == pytest.approx(line["loss"], abs=1e-4)
