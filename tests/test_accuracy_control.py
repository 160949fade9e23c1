"""Quantization within a budget: which layers stay in float, and what is said of it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from conftest import Strop, Write
from program_tools import body, counts, program_of
from torch import Tensor, nn

from strop.compiler.ir.program import Program
from strop.compiler.recipes.registry import make_pass
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.learning import Learned, LearningPass
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.cache import Cache
from strop.compiler.util.errors import BudgetError, UsageError
from strop.passes import PASSES
from strop.passes.prune.prune import Prune
from strop.passes.quantize.control.control import AccuracyControl
from strop.passes.quantize.control.distance import cosine
from strop.passes.quantize.control.scheme import Scheme, takes_layers
from strop.passes.quantize.dynamic import QuantizeDynamic


class Chain(nn.Module):
    """Linear layers; the outliers of the third one's inputs cost most of the accuracy."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(32, 32) for _ in range(5))
        with torch.no_grad():
            self.layers[1].bias[0] = 100.0  # type: ignore[index, union-attr]
            self.layers[2].weight[:, 0] *= 0.01  # type: ignore[index, union-attr]

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


NAMES = [f"inner.layers.{i}.weight" for i in range(5)]


@pytest.fixture
def program() -> Program:
    torch.manual_seed(0)
    return program_of(Chain(), torch.randn(16, 32))


@pytest.fixture
def context() -> Context:
    torch.manual_seed(1)
    return Context(calibration=[{"input_0": torch.randn(16, 32)} for _ in range(3)])


def kept_of(log: Log) -> list[str]:
    assert log.learned is not None
    return [one["weights"][0] for one in log.learned["facts"]["layers"] if one["kept"]]


def mean_cosine(got: Program, want: Program, context: Context) -> float:
    assert context.calibration is not None
    found = [1 - cosine(got.run(**b), want.run(**b)) for b in context.calibration]
    return sum(found) / len(found)


def test_the_layer_that_costs_most_stays_in_float(program: Program, context: Context) -> None:
    result = AccuracyControl(min_cosine=0.999).run(program, context=context)
    assert counts(result) == {"linear-w8a8": 4}
    assert "aten.linear(%linear_w8a8_default_1, @layers.2.weight" in body(result.program)
    assert kept_of(result.log) == [NAMES[2]]
    assert mean_cosine(result.program, program, context) >= 0.999
    (note,) = result.log.notes
    assert note.startswith(f"1 of 5 layers stay in float: {NAMES[2]}; cosine 0.999")
    found = result.log.learned["facts"]["found"]  # type: ignore[index]
    assert found["cosine"] == pytest.approx(mean_cosine(result.program, program, context), rel=1e-5)


def test_within_the_budget_all_layers_are_quantized(program: Program, context: Context) -> None:
    result = AccuracyControl(min_cosine=0.5).run(program, context=context)
    assert counts(result) == {"linear-w8a8": 5}
    assert result.log.notes[0].startswith("0 of 5 layers stay in float: none; cosine ")


def test_no_layer_that_stays_in_float_could_be_quantized_too(
    program: Program, context: Context
) -> None:
    limit = 0.99998
    one = AccuracyControl(min_cosine=limit)
    kept = kept_of(one.run(program, context=context).log)
    assert 1 < len(kept) < 5
    for name in kept:
        others = tuple(other for other in kept if other != name)
        fewer = QuantizeDynamic(keep=others).run(program).program
        assert mean_cosine(fewer, program, context) < limit


@pytest.mark.parametrize("method", ["output", "gradient"])
def test_the_divergence_of_the_outputs_can_be_limited(
    program: Program, context: Context, method: Any
) -> None:
    one = AccuracyControl(max_kl=1e-5, method=method)
    result = one.run(program, context=context)
    assert kept_of(result.log) == [NAMES[2]]
    assert 0 < result.log.learned["facts"]["found"]["KL"] <= 1e-5  # type: ignore[index]


def evaluate_by(program: Program, batch: Mapping[str, Tensor]) -> Callable[..., Any]:
    want = program.run(**batch)

    def evaluate(other: Program) -> dict[str, float]:
        with torch.no_grad():
            distance = cosine(other.run(**batch), want)
        return {"score": 1 - distance, "distance": distance}

    return evaluate


@pytest.mark.parametrize(
    ("limits", "kept"),
    [
        ({"metric": "score", "max_drop": 1e-3}, [NAMES[2]]),
        ({"metric": "distance", "max_rise": 1e-3}, [NAMES[2]]),
        ({"metric": "score", "max_drop": 1.0}, []),
        # A rise of the score is none, and a fall is not limited.
        ({"metric": "score", "max_rise": 0.0}, []),
        ({"metric": "distance", "max_drop": 0.0}, []),
    ],
)
def test_a_metric_of_the_users_can_be_limited(
    program: Program, context: Context, limits: Any, kept: list[str]
) -> None:
    assert context.calibration is not None
    evaluate = evaluate_by(program, next(iter(context.calibration)))
    result = AccuracyControl(**limits).run(program, context=replace(context, evaluate=evaluate))
    assert kept_of(result.log) == kept


def test_a_layer_that_saves_nothing_is_kept_before_one_that_does(
    program: Program, context: Context
) -> None:
    """By the clock here, the layer with outliers is the only one that saves time."""

    @contextmanager
    def clock(program: Program) -> Iterator[Callable[[Program], float]]:
        yield lambda other: 1.0 if "@inner.layers.2.weight, %int8" in str(other) else 1.5

    class Wider(Chain):
        def __init__(self) -> None:
            super().__init__()
            self.layers[2] = nn.Linear(32, 48)
            self.layers[3] = nn.Linear(48, 32)

    wide = program_of(Wider(), torch.randn(16, 32))
    said: list[str] = []
    timed = replace(context, clock=clock, say=said.append)
    result = AccuracyControl(min_cosine=0.9999).run(wide, context=timed)
    ladder = [one["weights"][0] for one in result.log.learned["facts"]["layers"]]  # type: ignore[index]
    assert ladder[-1] == NAMES[2]
    assert "saves (of the time)" in said[0]
    assert f"{NAMES[2]}" in said[0] and " 50.00%" in said[0]
    by_size = AccuracyControl(min_cosine=0.9999, weigh="multiply-adds")
    said.clear()
    by_size.run(wide, context=timed)
    assert "saves (of the multiply-adds)" in said[0]


def test_the_ladder_names_every_layer_with_what_it_costs_and_saves(
    program: Program, context: Context
) -> None:
    said: list[str] = []
    AccuracyControl(min_cosine=0.999).run(program, context=replace(context, say=said.append))
    title, head, first, *others = said[0].splitlines()
    assert title == "what each layer costs and saves:"
    assert head.split() == ["layer", "costs", "saves", "(of", "the", "multiply-adds)"]
    assert first.split()[0] == NAMES[2] and first.endswith(" 20.00%  kept in float")
    assert {line.split()[0] for line in others} == set(NAMES) - {NAMES[2]}
    assert not any("kept" in line for line in others)


@pytest.mark.parametrize(("most", "reached"), [(0.2, "1 of 5"), (0.0, "0 of 5"), (1.0, "4 of 5")])
def test_a_budget_that_cannot_be_met_tells_the_ladder_and_the_best_point(
    program: Program, context: Context, most: float, reached: str
) -> None:
    one = AccuracyControl(min_cosine=0.99999999, most_kept=most)
    with pytest.raises(BudgetError) as error:
        one.run(program, context=context)
    text = str(error.value)
    assert text.startswith(f"the budget cannot be met: with {reached} layers in float, cosine is")
    assert "(min_cosine 1). This is the best point that was reached" in text
    assert text.count("kept in float") == int(reached[0])
    assert all(name in text for name in NAMES)


def test_what_was_found_is_kept_with_the_ladder(
    program: Program, context: Context, tmp_path: Path
) -> None:
    said: list[str] = []
    context = replace(context, cache=Cache(tmp_path), say=said.append)
    one = AccuracyControl(min_cosine=0.999)
    first = one.run(program, context=context)
    progress: list[str] = []
    second = one.run(program, context=replace(context, progress=progress.append))
    assert progress == ["pass accuracy-control: taken from the cache"]
    assert said[0] == said[1]
    assert str(first.program) == str(second.program)
    assert "saved" not in json.dumps(first.log.learned)


class Learns(QuantizeDynamic, LearningPass):
    """Learns which weights there are, and takes away what the outliers lie on."""

    name = "learns"
    needs = ("calibration",)
    calls: ClassVar[int] = 0

    def learn(self, program: Program, context: Context) -> Learned:
        Learns.calls += 1
        scales = {name: w.detach() * 1.0 for name, w in program.weights.items() if w.ndim == 2}
        return Learned(scales, {"seen": sorted(scales)}, ("it learned",))

    def apply_learned_in(
        self, program: Program, log: Log, learned: Learned, context: Context
    ) -> None:
        assert len(learned.facts["seen"]) == len(learned.tensors) == 5
        QuantizeDynamic.apply_in(self, program, log, context)  # not that of LearningPass


def test_a_scheme_that_learns_does_so_once_for_all_choices(
    program: Program, context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    import strop.passes

    monkeypatch.setattr(strop.passes, "PASSES", (*strop.passes.PASSES, Learns))
    monkeypatch.setattr(Learns, "calls", 0)
    result = AccuracyControl("learns", min_cosine=0.999).run(program, context=context)
    assert Learns.calls == 1
    assert counts(result) == {"linear-w8a8": 4}
    assert result.log.notes[0] == "it learned"
    assert result.log.learned["facts"]["scheme"] == {"seen": NAMES}  # type: ignore[index]


def test_options_of_the_scheme_go_to_it(program: Program, context: Context) -> None:
    one = AccuracyControl(min_cosine=0.5, scheme_options={"keep": ["*.layers.4"]})
    result = one.run(program, context=context)
    assert counts(result) == {"linear-w8a8": 4}
    one = AccuracyControl(min_cosine=0.999, scheme_options={"keep": ["*.layers.4"]})
    assert counts(one.run(program, context=context)) == {"linear-w8a8": 3}


def test_names_of_weights_are_no_patterns(context: Context) -> None:
    module = nn.ModuleDict({"a[b]": nn.Linear(32, 32), "ab": nn.Linear(32, 32)})

    def model(x: Tensor) -> Tensor:
        return module["ab"](module["a[b]"](x))  # type: ignore[no-any-return]

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = module

        def forward(self, x: Tensor) -> Tensor:
            return model(x)

    program = program_of(Named(), torch.randn(16, 32))
    scheme = Scheme.of(QuantizeDynamic(), program, context)
    layers = scheme.layers(program)
    for layer in layers:
        assert str(scheme.alone(program, [layer])).count("linear_w8a8(") == 1
        assert str(scheme.keeping(program, [layer])).count("linear_w8a8(") == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "nothing limits what quantization may cost: give min_cosine"),
        ({"metric": "accuracy"}, "metric names what max_drop or max_rise limits"),
        ({"max_drop": 0.1}, "metric names what max_drop or max_rise limits"),
        ({"min_cosine": 0.9, "scheme": "quantise"}, "no pass 'quantise' .*did you mean 'quantize'"),
        ({"min_cosine": 0.9, "scheme": "prune"}, "no pass 'prune' quantizes layers"),
        ({"min_cosine": 0.9, "most_kept": 1.5}, "most_kept is 1.5; it is a share, from 0 to 1"),
        ({"min_cosine": 0.9, "batches": 0}, "batches is 0; at least 1 is needed"),
        ({"min_cosine": 0.9, "method": "guess"}, "option 'method'"),
        ({"min_cosine": 0.9, "scheme_options": {"kep": ["a"]}},
         "'quantize' has no option 'kep'; did you mean 'keep'"),
        ({"min_cosine": 0.9, "scheme_options": {"keep": "a"}}, "takes a list, in brackets"),
    ],
)  # fmt: skip
def test_wrong_options_are_told_before_anything_runs(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        make_pass("accuracy-control", options)


def test_what_is_missing_is_told(program: Program, context: Context) -> None:
    with pytest.raises(UsageError, match="needs calibration or train: give Model"):
        AccuracyControl(min_cosine=0.9).run(program)
    one = AccuracyControl(metric="accuracy", max_drop=0.1)
    with pytest.raises(UsageError, match="needs evaluate"):
        one.run(program, context=context)
    other = replace(context, evaluate=lambda program: {"acuracy": 1.0})
    with pytest.raises(UsageError, match="evaluate did not return 'accuracy'; did you mean"):
        one.run(program, context=other)
    nothing = AccuracyControl(min_cosine=0.9, scheme_options={"keep": ["inner"]})
    with pytest.raises(UsageError, match="pass 'quantize' finds no layer to quantize"):
        nothing.run(program, context=context)


def test_what_quantizes_named_layers_is_told_from_what_has_the_same_options() -> None:
    assert takes_layers(QuantizeDynamic)
    assert not takes_layers(Prune) and not takes_layers(AccuracyControl)


def test_every_pass_that_quantizes_says_so() -> None:
    named = {kind for kind in PASSES if kind.name.startswith("quantize")}
    assert {kind for kind in PASSES if kind.quantizes} == named | {AccuracyControl}


MODEL = """
    import torch
    from strop.compiler import Model

    class Chain(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = torch.nn.ModuleList(torch.nn.Linear(32, 32) for _ in range(5))
            with torch.no_grad():
                self.layers[1].bias[0] = 100.0
                self.layers[2].weight[:, 0] *= 0.01

        def forward(self, x):
            for layer in self.layers:
                x = layer(x)
            return x

    def make():
        torch.manual_seed(0)
        calibration = [{"x": torch.randn(16, 32)} for _ in range(2)]
        return Model(Chain().eval(), {"x": torch.randn(16, 32)}, calibration=calibration)
"""
CONTROL = ("--pass", "accuracy-control{min_cosine=0.999}", "--before", "residuals",
           "--set", "budget.max_error=1", "--set", "budget.min_cosine=0.99")  # fmt: skip


def test_a_build_keeps_layers_and_says_which(strop: Strop, write: Write, tmp_path: Path) -> None:
    source, out = write(MODEL), tmp_path / "out"
    result = strop("build", source, *CONTROL, "-o", out)
    assert result.code == 0, result.err
    assert "what each layer costs and saves:" in result.out
    assert "1 of 5 layers stay in float: layers.2.weight" in result.out
    manifest = json.loads((out / "manifest.json").read_text())
    (step,) = [p for p in manifest["passes"] if p["name"] == "accuracy-control"]
    assert step["rewrites"] == {"linear-w8a8": 4}
    assert "costs and saves" not in json.dumps(manifest)
    assert "of the time" in json.dumps(json.loads((out / "build.json").read_text())["notes"])


def test_a_budget_that_cannot_be_met_ends_a_build(
    strop: Strop, write: Write, tmp_path: Path
) -> None:
    source, out = write(MODEL), tmp_path / "out"
    never = (
        "--set",
        "accuracy-control.most_kept=0",
        "--set",
        "accuracy-control.weigh=multiply-adds",
    )
    result = strop("build", source, *CONTROL, *never, "-o", out)
    assert result.code == 3
    assert "with 0 of 5 layers in float, cosine is" in result.err
    assert "layers.2.weight" in result.err
    assert sorted(p.name for p in tmp_path.iterdir()) == [Path(source.split(":")[0]).name]


def test_the_ladder_of_a_recipe_is_shown(strop: Strop, write: Write) -> None:
    source = write(MODEL)
    fast = ("--weigh", "multiply-adds", "--batches", 1)
    fast = (*fast, "--recipe", "cpu-fp32")
    own = ("--pass", "quantize", "--before", "residuals")
    result = strop("debug", "sensitivity", source, *own, *fast)
    assert result.code == 0, result.err
    head, first, *others = result.out.splitlines()
    assert head.split()[:2] == ["layer", "costs"] and len(others) == 4
    assert first.split()[0] == "layers.2.weight" and first.endswith(" 20.00%")
    held = strop("debug", "sensitivity", source, *CONTROL, *fast)
    assert held.out == result.out
    named = strop("debug", "sensitivity", source, "--step", "quantise", *own, *fast)
    assert named.code == 2 and "did you mean 'quantize'?" in named.err
    float_only = strop("debug", "sensitivity", source, *fast)
    assert float_only.code == 2 and "no step quantizes" in float_only.err


def test_without_data_layers_cannot_be_compared(strop: Strop, small: str) -> None:
    result = strop("debug", "sensitivity", small)
    assert result.code == 2 and "give Model(calibration=...)" in result.err


class Pooled(nn.Module):
    """Convolutions with a pool and a join between, whose results share the grids of others."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3, padding=1)
        self.third, self.head = nn.Conv2d(16, 4, 1), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(torch.relu(self.first(x)), 2)
        x = torch.cat([x, torch.relu(self.second(x))], 1)
        return self.head(self.third(x).mean((2, 3)))  # type: ignore[no-any-return]


@pytest.mark.parametrize("method", ["output", "gradient"])
def test_what_a_static_scheme_calibrated_for_all_layers_serves_any_choice(method: Any) -> None:
    torch.manual_seed(0)
    program = program_of(Pooled(), torch.randn(2, 3, 12, 12))
    context = Context(calibration=[{"input_0": torch.randn(32, 3, 12, 12)}])
    one = AccuracyControl("quantize-static", min_cosine=0.99, method=method)
    result = one.run(program, context=context)
    assert len(result.log.learned["facts"]["layers"]) == 4  # type: ignore[index]
    scheme = Scheme.of(one.quantizer(), program, context)
    layers = scheme.layers(program)
    for count in range(4):
        quantized = scheme.keeping(program, layers[:count])
        assert mean_cosine(quantized, program, context) > 0.99
