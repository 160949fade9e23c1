"""Passes that learn: new values of weights, what they need, and that nothing is learned twice."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Full, Strop
from program_tools import program_of
from torch import Tensor, nn

from strop.compiler import Model, build, load_recipe
from strop.compiler.frontend.data import context_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting import learning
from strop.compiler.rewriting.code_identity import code_identity
from strop.compiler.rewriting.context import Context, seeded
from strop.compiler.rewriting.learning import FACTS, TENSORS, Learned, LearningPass
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.compiler.targets.target import CPU
from strop.compiler.util.cache import Cache
from strop.compiler.util.errors import UsageError, VerifyError
from strop.compiler.util.user_code import load_object

X = torch.linspace(-1, 1, 8).reshape(2, 4)
BATCHES = [{"input_0": X, "wanted": X.sum(1, keepdim=True)}]
learned_in: list[str] = []
scratch: list[Path] = []


@dataclass(frozen=True)
class Fit(LearningPass):
    """Trains the weights by a few steps of gradient descent on the context's loss."""

    name = "fit"
    needs = ("train", "loss")
    steps: int = 3

    def learn(self, program: Program, context: Context) -> Learned:
        learned_in.append(self.name)
        assert context.scratch and list(context.scratch.iterdir()) == []
        scratch.append(context.scratch)
        (context.scratch / "kept").write_text("for now")
        assert torch.is_grad_enabled() and context.train and context.loss
        weights = {n: w.detach().clone().requires_grad_() for n, w in program.weights.items()}
        student = replace(program, weights=weights)
        optimizer = torch.optim.SGD(weights.values(), lr=0.1)
        for _ in range(self.steps):
            for batch in context.train:
                (output,) = student.run(input_0=batch["input_0"])
                optimizer.zero_grad()
                context.loss({"output": output}, batch).backward()
                optimizer.step()
        return Learned(weights, {"steps": self.steps}, ("it learned",))


def mse(outputs: Any, batch: Any) -> Tensor:
    return nn.functional.mse_loss(outputs["output"], batch["wanted"])


def linear() -> Program:
    return program_of(lambda x, w, b: nn.functional.linear(x, w, b), X, w=torch.full((1, 4), 0.6),
                      b=torch.full((1,), 0.1))  # fmt: skip


@pytest.fixture
def context(tmp_path: Path) -> Iterator[Context]:
    learned_in.clear()
    yield Context(train=BATCHES, loss=mse, cache=Cache(tmp_path / "learned"))


# New values -----------------------------------------------------------------------------------


def test_new_values_stand_in_the_new_program_alone_and_say_who_made_them(context: Context) -> None:
    before = linear()
    kept = {name: tensor.clone() for name, tensor in before.weights.items()}
    with seeded(1):
        result = Fit(steps=40).run(before, None, context)
    assert result.modified and len(result.log.rewrites) == 2
    assert [r.node for r in result.log.rewrites] == [f"@{name}" for name in result.program.weights]
    assert result.log.notes == ["it learned"]
    assert str(result.program) == str(before)
    for name, tensor in before.weights.items():
        assert torch.equal(tensor, kept[name])
        assert not torch.equal(result.program.weights[name], kept[name])
        assert result.program.origins[name].made_by == "fit"
        assert result.program.origins[name].sources == before.origins[name].sources
    (got,) = result.program.run(input_0=X)
    assert mse({"output": got}, BATCHES[0]) < 0.5 * mse({"output": before.run(input_0=X)[0]},
                                                        BATCHES[0])  # fmt: skip


def replace_weights(program: Program) -> Program:
    """The same program with other weights."""
    for name in list(program.weights):
        program.set_weight(name, program.weights[name] * 0.5 + 0.1, "test")
    return program


@pytest.mark.parametrize(
    ("name", "tensor", "said"),
    [
        ("gone", torch.ones(1, 4), "there is no weight 'gone'"),
        ("inner.w", torch.ones(4), "its new values are torch.float32 (4,)"),
        ("inner.w", torch.ones(1, 4).double(), "its new values are torch.float64 (1, 4)"),
    ],
)
def test_values_of_another_kind_are_refused(name: str, tensor: Tensor, said: str) -> None:
    with pytest.raises(VerifyError, match=re.escape(said)):
        linear().set_weight(name, tensor, "test")


def test_a_trained_weight_stays_one() -> None:
    program = linear()
    (name, _) = program.parameters
    program.set_weight(name, torch.zeros(1, 4), "test")
    assert name in program.parameters and program.parameters[name].requires_grad


@dataclass(frozen=True)
class InPlace(Pass):
    """Writes to a weight that other programs share."""

    name = "in-place"

    def apply(self, program: Program, log: Log) -> None:
        with torch.no_grad():
            next(iter(program.weights.values())).mul_(2)


@dataclass(frozen=True)
class LearnsInPlace(LearningPass):
    """Writes to a weight, past torch's count, while it learns."""

    name = "learns-in-place"
    needs = ()

    def learn(self, program: Program, context: Context) -> Learned:
        next(iter(program.weights.values())).data.mul_(2)
        return Learned()


@pytest.mark.parametrize("wrong", [InPlace(), LearnsInPlace()])
def test_a_pass_that_writes_to_a_weight_is_caught(wrong: Pass) -> None:
    with pytest.raises(VerifyError, match="in place"):
        wrong.run(linear())


# Needs ----------------------------------------------------------------------------------------


def test_a_pass_whose_needs_are_not_met_says_what_to_give() -> None:
    with pytest.raises(UsageError, match=re.escape("needs loss: give Model(loss=...)")):
        Fit().run(linear(), None, Context(train=BATCHES))
    with pytest.raises(UsageError, match=re.escape("needs train and loss")):
        Fit().run(linear())


def test_needs_are_looked_at_before_the_capture(tmp_path: Path) -> None:
    class Never(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise AssertionError("it ran")

    recipe = load_recipe("cpu-fp32").insert(Fit)
    with pytest.raises(UsageError, match="pass 'fit' needs train and loss"):
        build(Model(Never().eval(), {"input_0": X}), tmp_path / "out", recipe)


# The cache ------------------------------------------------------------------------------------


def test_nothing_is_learned_twice(context: Context) -> None:
    program = linear()
    first = Fit().run(program, None, context)
    again = Fit().run(linear(), None, context)
    assert learned_in == ["fit"] and not scratch[-1].exists()
    assert again.log.notes == first.log.notes
    for name, tensor in first.program.weights.items():
        assert torch.equal(again.program.weights[name], tensor)


def other_loss(outputs: Any, batch: Any) -> Tensor:
    return 2 * mse(outputs, batch)


CHANGES: dict[str, Any] = {
    "option": lambda p, c: (Fit(steps=4), p, c),
    "weights": lambda p, c: (Fit(), replace_weights(p), c),
    "program": lambda p, c: (Fit(), program_of(lambda x, w: x @ w.T, X, w=torch.ones(1, 4)), c),
    "data": lambda p, c: (Fit(), p, replace(c, train=[{**BATCHES[0], "wanted": X[:, :1]}])),
    "more data": lambda p, c: (Fit(), p, replace(c, train=BATCHES * 2)),
    "seed": lambda p, c: (Fit(), p, replace(c, seed=1)),
    "teacher": lambda p, c: (Fit(), p, replace(c, teacher=linear())),
    "teacher of the same weights": lambda p, c: (Fit(), p, replace(c, teacher=p.clone())),
}


@pytest.mark.parametrize("what", CHANGES)
def test_whatever_matters_makes_it_learn_again(what: str, context: Context) -> None:
    Fit().run(linear(), None, context)
    one, program, changed = CHANGES[what](linear(), context)
    one.run(program, None, changed)
    assert learned_in == ["fit", "fit"]


def test_a_weight_is_hashed_once_before_it_learns_and_once_after(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, read = linear(), []
    kinds = {id(weight) for weight in program.weights.values()}
    real = learning.digest_of

    def counted(values: Any, digest: Any) -> None:
        if isinstance(values, Tensor) and id(values) in kinds:
            read.append(id(values))
        real(values, digest)

    monkeypatch.setattr(learning, "digest_of", counted)
    within = replace(context, teacher=program.clone())
    Fit().run(program, context=within)
    assert sorted(read) == sorted([*kinds, *kinds])
    Fit().run(program, context=within)
    assert len(read) == 3 * len(kinds)


def test_another_version_or_another_source_makes_it_learn_again(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Fit().key(linear(), context)
    monkeypatch.setattr("strop.compiler.rewriting.learning.code_identity", lambda _: ["changed"])
    assert Fit().key(linear(), context) != key
    monkeypatch.undo()
    assert Fit().key(linear(), context) == key
    monkeypatch.setattr("strop.compiler.rewriting.learning.version", lambda package: "0")
    assert Fit().key(linear(), context) != key


@pytest.mark.parametrize(
    "source",
    [
        "def measure(run): return {'a': 1}\n",
        "class Measure:\n    def __call__(self, run): return {'a': 1}\nmeasure = Measure()\n",
        "from functools import partial\n"
        "def both(name, run): return {name: 1}\nmeasure = partial(both, 'a')\n",
    ],
)
def test_the_source_of_the_users_own_measure_counts(source: str, tmp_path: Path) -> None:
    def key(text: str) -> str:
        file = tmp_path / f"measure_{len(text)}.py"
        file.write_text(text)
        measure = load_object(f"{file}:measure", "a measure")
        model = Model(nn.Identity().eval(), (X,), train=[(X,)], evaluate=measure)
        return Fit().key(linear(), context_of(model, CPU))

    assert key(source) == key(source) != key(source + "# changed\n")


def weighted(scale: float, shift: Any = 0.0) -> Any:
    def measure(run: Any) -> dict[str, float]:
        return {"a": scale}

    return measure


class Measures:
    """An object whose method measures."""

    def __init__(self, scale: float) -> None:
        self.scale = scale

    def measure(self, run: Any) -> dict[str, float]:
        return {"a": self.scale}

    def __call__(self, run: Any) -> dict[str, float]:
        return {"a": self.scale}


def ratio(name: str, run: Any) -> dict[str, float]:
    return {name: 1.0}


@pytest.mark.parametrize(
    ("one", "same", "other"),
    [
        (weighted(1.0), weighted(1.0), weighted(2.0)),
        (Measures(1.0), Measures(1.0), Measures(2.0)),
        (Measures(1.0).measure, Measures(1.0).measure, Measures(2.0).measure),
        (partial(ratio, "a"), partial(ratio, "a"), partial(ratio, "b")),
        (partial(ratio, n=("a", 1)), partial(ratio, n=("a", 1)), partial(ratio, n=("a", 2))),
        (partial(ratio, X), partial(ratio, X + 1), partial(ratio, 1.0)),
        (Measures, Measures, Fit),
        (len, len, Measures),
        (lambda run, a=1: {}, None, lambda run, a=2: {}),
    ],
)  # fmt: skip
def test_functions_of_one_file_are_told_apart(one: Any, same: Any, other: Any) -> None:
    assert code_identity(one) == code_identity(same or one) != code_identity(other)


def test_data_that_are_drawn_anew_are_the_same_for_the_same_seed(context: Context) -> None:
    class Drawn:
        def __iter__(self) -> Iterator[dict[str, Tensor]]:
            return iter([{"input_0": torch.randn(2, 4), "wanted": torch.randn(2, 1)}])

    drawn = replace(context, train=Drawn())
    torch.manual_seed(1)
    key, state = Fit().key(linear(), drawn), torch.get_rng_state()
    torch.manual_seed(2)
    assert Fit().key(linear(), drawn) == key
    assert Fit().key(linear(), replace(drawn, seed=1)) != key
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_full_disk_costs_what_was_learned_and_no_build(context: Context, full: Full) -> None:
    told: list[str] = []
    with full(10):
        result = Fit().run(linear(), context=replace(context, say=told.append))
    assert result.modified and len(told) == 1
    assert re.match("what pass 'fit' learned is not kept: the cache .*too large", told[0])


@pytest.mark.parametrize("file", [TENSORS, FACTS])
@pytest.mark.parametrize("damage", ["flip", "cut", "remove"])
def test_a_damaged_entry_is_learned_again_and_that_is_said(
    file: str, damage: str, context: Context
) -> None:
    said: list[str] = []
    context = replace(context, say=said.append)
    Fit().run(linear(), None, context)
    assert context.cache
    (entry,) = context.cache.entries()
    path = context.cache.root / entry.key / file
    content = path.read_bytes()
    if damage == "remove":
        path.unlink()
    else:
        path.write_bytes(content[:-9] + (b"?" * 9 if damage == "flip" else b""))
    Fit().run(linear(), None, context)
    assert learned_in == ["fit", "fit"]
    assert said == ["what pass 'fit' had learned was damaged in the cache: it learns again"]
    Fit().run(linear(), None, context)
    assert learned_in == ["fit", "fit"] and len(said) == 1


def test_a_cache_that_cannot_be_written_costs_no_build(tmp_path: Path, context: Context) -> None:
    (tmp_path / "taken").write_text("a file")
    said: list[str] = []
    Fit().run(linear(), None, replace(context, cache=Cache(tmp_path / "taken"), say=said.append))
    assert len(said) == 1 and said[0].startswith("what pass 'fit' learned is not kept: the cache")


def test_a_pass_can_be_stopped_after_any_of_its_weights(context: Context) -> None:
    before = linear()
    start = {name: tensor.clone() for name, tensor in before.weights.items()}
    for limit in (0, 1, 2):
        after = Fit().run(before, Log(limit=limit), context).program
        changed = [n for n, t in after.weights.items() if not torch.equal(t, start[n])]
        assert len(changed) == limit
    assert learned_in == ["fit"]


# Interrupted learning, and what is recorded ----------------------------------------------------


@dataclass(frozen=True)
class Counts(LearningPass):
    """Needs three runs to learn, of which the first two are interrupted."""

    name = "counts"
    needs = (("train", "calibration"),)

    def learn(self, program: Program, context: Context) -> Learned:
        assert context.kept is not None
        ran = len(list(context.kept.iterdir()))
        if ran < 2:
            (context.kept / str(ran)).touch()
            raise KeyboardInterrupt
        return Learned(facts={"ran": ran})


def test_an_interrupted_pass_finds_what_it_kept_until_it_has_learned(context: Context) -> None:
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            Counts().run(linear(), None, context)
    other = replace(context, seed=1)
    with pytest.raises(KeyboardInterrupt):
        Counts().run(linear(), None, other)
    log = Log()
    Counts().run(linear(), log, context)
    assert log.learned and log.learned["facts"] == {"ran": 2}
    assert context.cache and len(context.cache.interrupted()) == 1


def test_what_it_learned_from_is_recorded_whether_cached_or_not(context: Context) -> None:
    logs = [Log(), Log(), Log()]
    Fit().run(linear(), logs[0], replace(context, teacher=linear(), seed=4))
    Fit().run(linear(), logs[1], replace(context, teacher=linear(), seed=4))
    Fit().run(linear(), logs[2], replace(context, cache=None))
    assert learned_in == ["fit", "fit"]
    assert logs[0].learned == logs[1].learned
    first, last = logs[0].learned, logs[2].learned
    assert first and last and first["facts"] == {"steps": 3}
    assert first["from"]["program"] == first["from"]["teacher"] == last["from"]["program"]
    assert first["from"]["data"] == last["from"]["data"] and list(first["from"]["data"]) == [
        "train"
    ]
    assert (first["from"]["seed"], last["from"]["seed"], last["from"]["teacher"]) == (4, 0, None)


def test_one_of_several_needs_is_enough(context: Context) -> None:
    said = "pass 'counts' needs train or calibration: give Model(train=...) in the factory"
    with pytest.raises(UsageError, match=re.escape(said)):
        Counts().run(linear())
    only = Context(calibration=BATCHES, cache=context.cache)
    keys = {Counts().key(linear(), c) for c in (context, only, replace(only, train=BATCHES))}
    assert len(keys) == 3


def test_of_several_processes_the_first_one_keeps_what_was_learned(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    Fit().run(linear(), None, context)
    assert context.cache and context.cache.entries() == []


# Whole builds ---------------------------------------------------------------------------------

FACTORY = """
import torch
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from strop.compiler import Context, Learned, LearningPass, Model, Rule

X = torch.linspace(-1, 1, 32).reshape(8, 4)

@dataclass(frozen=True)
class Nudge(LearningPass):
    name = "nudge"
    needs = ("train",)

    def learn(self, program, context):
        with open(Path(__file__).with_name("learned.txt"), "a") as file:
            file.write("x")
        mean = sum(batch["x"].mean() for batch in context.train)
        return Learned({n: w.detach() + 1e-6 * mean for n, w in program.weights.items()})

def make():
    torch.manual_seed(0)
    module = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.GELU(), torch.nn.Linear(4, 2))
    return Model(module.eval(), (X,), dynamic={"input": {0: ("rows", 1, 16)}},
                 train=lambda: iter([{"input": X, "x": X + 1}] * 3))
"""


def manifest_of(artifact: Path) -> Any:
    """What the manifest says of what was learned."""
    passes = json.loads((artifact / "manifest.json").read_text())["passes"]
    return next(p["learned"] for p in passes if p["name"] == "nudge")


def test_builds_bisections_and_questions_learn_once(strop: Strop, tmp_path: Path) -> None:
    file = tmp_path / "nudged.py"
    file.write_text(FACTORY)
    learned = tmp_path / "learned.txt"
    common = ("--pass", f"{file}:Nudge", "--before", "bias-gelu")
    source = f"{file}:make"
    first = strop("build", source, "-o", tmp_path / "a", *common)
    assert first.code == 0, first.err
    second = strop("build", source, "-o", tmp_path / "b", *common, "--instruments", "full")
    assert second.code == 0, second.err
    strop("debug", "bisect", source, *common, "--metric", "max_abs", "--max", "0")
    strop("debug", "why-not", source, "activations", *common)
    assert learned.read_text() == "x"
    shown = strop("cache")
    assert "nudge-" in shown.out
    assert strop("cache", "--clear").code == 0
    assert "nudge-" not in strop("cache").out
    assert strop("build", source, "-o", tmp_path / "c", *common).code == 0
    assert learned.read_text() == "xx"
    assert manifest_of(tmp_path / "a") == manifest_of(tmp_path / "b")
    learned_from = manifest_of(tmp_path / "a")["from"]
    assert learned_from["data"].keys() == {"train"} and len(learned_from["teacher"]) == 64
    files = [(tmp_path / out / "model.onnx").read_bytes() for out in "abc"]
    assert files[0] == files[1] == files[2]
