"""Random models keep their numbers through every pass, every rewrite, and the file."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import pytest
import torch
from fuzz_models import BLOCKS, Fuzzed, Recipe, inputs_of
from hypothesis import HealthCheck, assume, event, given, settings
from hypothesis import strategies as st
from program_tools import program_of
from torch import Tensor

from strop.compiler.ir.program import Program
from strop.compiler.ir.stale import verify_types
from strop.compiler.lower.choices import shipped
from strop.compiler.lower.onnx.lowering import lower_to_onnx
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.learning import LearningPass
from strop.compiler.rewriting.passes import Pass, RulePass
from strop.compiler.rewriting.rules import Log
from strop.compiler.targets.target import get_target
from strop.compiler.util.errors import UnsupportedError
from strop.compiler.util.numerics import sqnr
from strop.passes import PASSES
from strop.passes.fuse.packed import PackLinears
from strop.passes.quantize.dynamic import QuantizeDynamic

# An output may be off by this share of its largest magnitude (or of 1, if that is less) ...
TOLERANCE = 2e-5
# ... and by this many times what rounding the inputs and weights differently moves it.
NOISE = 30
# The file rounds at run time where the program does: a value on the edge may fall to either side.
INT8_DB = 25.0
TRACED, OTHERS = (2, 5), ((1, 1), (3, 8), (1, 2))
DIMS = [{}, {0: ("batch", 1, 8)}, {0: ("batch", 1, 8), 1: ("seq", 1, 16)}]

RECIPES = st.builds(
    Recipe,
    blocks=st.lists(
        st.tuples(
            st.sampled_from(sorted(BLOCKS)), st.lists(st.integers(0, 23), max_size=16).map(tuple)
        ),
        min_size=2,
        max_size=20,
    ).map(tuple),
    outputs=st.lists(st.integers(0, 40), max_size=3).map(tuple),
    dynamic=st.sampled_from([0, 2, 1]),
    seed=st.integers(0, 50),
    gain=st.sampled_from([1.0, 0.1, 5.0, 100.0]),
)


@dataclass(frozen=True)
class Fuzz:
    """A model, captured, and what it gives at several sizes.

    Attributes:
        feeds: inputs at the traced size and, where dims are dynamic, at others.
        wanted: what the captured program gives for each.
        slack: how far an output may be off, for each.
    """

    program: Program
    feeds: list[dict[str, Tensor]]
    wanted: list[tuple[Tensor, ...]]
    slack: list[list[float]]


def run(program: Program, feeds: Sequence[dict[str, Tensor]]) -> list[tuple[Tensor, ...]]:
    with torch.no_grad():
        return [tuple(t.detach() for t in program.run(**feed)) for feed in feeds]


def fuzz_of(recipe: Recipe) -> Fuzz:
    """Capture a model and measure how far rounding alone moves its outputs."""
    module = Fuzzed(recipe).eval()
    example = inputs_of(recipe, *TRACED)
    with torch.no_grad():
        original = tuple(t.detach() for t in module(*example))
    finite(original)
    dims = DIMS[recipe.dynamic]
    try:
        program = program_of(module, *example, dims={0: dims, 1: dims})
    except UnsupportedError as error:
        event(f"refused: {str(error).splitlines()[0][:60]}")
        assume(False)
    sizes = [TRACED, *((b, n if 1 in dims else TRACED[1]) for b, n in OTHERS if dims)]
    feeds = [{f"input_{i}": t for i, t in enumerate(inputs_of(recipe, *size))} for size in sizes]
    wanted = run(program, feeds)
    for outputs in wanted:
        finite(outputs)
    fuzz = Fuzz(program, feeds, wanted, slack(program, feeds, wanted))
    reason = apart(fuzz, [original, *wanted[1:]])
    assert reason is None, f"capture: {reason}"
    return fuzz


def finite(outputs: Sequence[Tensor]) -> None:
    assume(all(bool(t.isfinite().all()) and float(t.double().abs().max()) < 1e9 for t in outputs))


def scale(t: Tensor) -> float:
    return max(1.0, float(t.double().abs().max()))


def slack(
    program: Program, feeds: Sequence[dict[str, Tensor]], wanted: Sequence[tuple[Tensor, ...]]
) -> list[list[float]]:
    """How far each output may be off: a share of its magnitude, and a multiple of its noise."""
    generator = torch.Generator().manual_seed(1)

    def shaken(t: Tensor) -> Tensor:
        if not t.is_floating_point():
            return t
        return t * (1 + 2**-23 * torch.randn(t.shape, generator=generator))

    other = program.clone()
    other.weights = {n: shaken(t.detach()) for n, t in other.weights.items()}
    moved = run(other, [{n: shaken(t) for n, t in feed.items()} for feed in feeds])
    found = [
        [TOLERANCE * scale(a) + NOISE * float((a.double() - b.double()).abs().max()) for a, b in z]
        for z in (zip(w, m) for w, m in zip(wanted, moved))
    ]
    # What its own rounding moves that far, says nothing.
    assume(all(s < 0.05 * scale(a) for ss, w in zip(found, wanted) for s, a in zip(ss, w)))
    return found


def apart(fuzz: Fuzz, got: Sequence[Sequence[Tensor]]) -> str | None:
    """The first output that is further off than it may be, in words."""
    for case, (want, have, limits) in enumerate(zip(fuzz.wanted, got, fuzz.slack, strict=True)):
        for i, (a, b, limit) in enumerate(zip(want, have, limits, strict=True)):
            if (a.shape, a.dtype) != (b.shape, b.dtype):
                return f"output {i} is {b.dtype} {b.shape}, not {a.dtype} {a.shape}, in case {case}"
            off = float((a.double() - b.double()).abs().max())
            if not off <= limit:
                return f"output {i} is off by {off:.2e} in case {case} (at most {limit:.1e})"
    return None


def wrong(fuzz: Fuzz, program: Program) -> str | None:
    """What is wrong with a program that a pass made, in words."""
    verify_types(program)
    return apart(fuzz, run(program, fuzz.feeds))


def hold_pass(fuzz: Fuzz, run_pass: Pass, program: Program, every_stop: bool) -> Program:
    """Run a pass, whole and stopped after some of its rewrites; returns the whole result."""
    result = run_pass.run(program)
    count = len(result.log.rewrites)

    def stopped(number: int) -> Program:
        return run_pass.run(program, Log(limit=number)).program

    stops = range(1, count) if every_stop else sorted({1, count // 2} & set(range(1, count)))
    if count and any(wrong(fuzz, one) for one in (result.program, *map(stopped, stops))):
        number = next(n for n in range(1, count + 1) if wrong(fuzz, stopped(n)))
        last, reason = result.log.rewrites[number - 1], wrong(fuzz, stopped(number))
        pytest.fail(f"'{run_pass.name}', rewrite {number} ({last.rule} %{last.node}): {reason}")
    SEEN.update(r.rule for r in result.log.rewrites)
    return result.program


def run_file(program: Program, feeds: Sequence[dict[str, Tensor]]) -> list[tuple[Tensor, ...]]:
    """Lower, and run in a default session."""
    model = lower_to_onnx(program, get_target("cpu"), shipped(get_target("cpu")))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    data = ir.serde.serialize_model(model).SerializeToString()
    session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    used = {i.name for i in session.get_inputs()}
    return [
        tuple(
            torch.from_numpy(np.array(a))
            for a in session.run(None, {n: t.numpy() for n, t in feed.items() if n in used})
        )
        for feed in feeds
    ]


def hold_float(fuzz: Fuzz, every_stop: bool) -> None:
    """Every pass, and the file, of cpu-fp32; before any pass, the file too."""
    program = fuzz.program
    for step in load_recipe("cpu-fp32").pipeline().steps:
        program = hold_pass(fuzz, step.run, program, every_stop)
    for what, one in (("the file", program), ("the file without passes", fuzz.program)):
        reason = apart(fuzz, run_file(one, fuzz.feeds))
        assert reason is None, f"{what}: {reason}"


def hold_int8(fuzz: Fuzz, every_stop: bool) -> None:
    """Every pass of cpu-int8, with gates packed; what follows quantization only for its form."""
    recipe = load_recipe("cpu-int8").override("packed.gates=true")
    program, quantized = fuzz.program, False
    for step in recipe.pipeline().steps:
        quantized = quantized or step.name == "quantize"
        if not quantized:
            program = hold_pass(fuzz, step.run, program, every_stop)
            continue
        program = step.run.run(program).program
        verify_types(program)
    in_torch, in_file = run(program, fuzz.feeds), run_file(program, fuzz.feeds)
    for want, got in zip(in_torch, in_file):
        for i, (a, b) in enumerate(zip(want, got, strict=True)):
            assert bool(a.isfinite().all()) and bool(b.isfinite().all()), f"output {i}"
            if a.is_floating_point() and float(a.abs().max()) > 1e-3:
                ratio = sqnr(b.double().numpy(), a.double().numpy())
                assert ratio is None or ratio > INT8_DB, f"int8 file, output {i}: {ratio:.1f} dB"


FAST = settings(
    max_examples=15,
    derandomize=True,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
SLOW = settings(FAST, max_examples=300, derandomize=False, print_blob=True)
# Rules that made a rewrite.
SEEN: set[str] = set()


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Tensors as small as these are computed faster by one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@FAST
@given(RECIPES)
def test_random_models_keep_their_numbers_in_float(recipe: Recipe) -> None:
    hold_float(fuzz_of(recipe), every_stop=False)


@pytest.mark.slow
@FAST
@given(RECIPES)
def test_random_models_run_in_int8(recipe: Recipe) -> None:
    hold_int8(fuzz_of(recipe), every_stop=False)


@pytest.mark.slow
def test_many_random_models_keep_their_numbers_after_every_rewrite_of_every_rule() -> None:
    @SLOW
    @given(RECIPES)
    def hold(recipe: Recipe) -> None:
        fuzz = fuzz_of(recipe)
        hold_float(fuzz, every_stop=True)
        hold_int8(fuzz, every_stop=True)

    SEEN.clear()
    hold()
    assert every_rule() - SEEN == set(), "the models do not reach every rule"


def every_rule() -> set[str]:
    """Names of all rules, and of the passes that are one; int8 only for its form, no learning."""
    passes = [PackLinears(gates=True) if p is PackLinears else p() for p in PASSES]
    return {
        name
        for one in passes
        if not isinstance(one, (QuantizeDynamic, LearningPass))
        for name in ([r.name for r in one.rules()] if isinstance(one, RulePass) else [one.name])
    }
