"""``strop kernels``: configurations of kernels, compiled without a GPU, and modelled bounds."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence

import pytest
from conftest import Strop

from strop.kernels import registry
from strop.kernels import survey as surveys
from strop.kernels.architecture import ARCHITECTURES, SM80, SM90, Architecture
from strop.kernels.binary import Binary
from strop.kernels.compiler import CompileError
from strop.kernels.examples import launches
from strop.kernels.gate import Checked
from strop.kernels.inspect import Reading
from strop.kernels.kernel import Bucket, Configuration, Cost, Kernel, Launch
from strop.kernels.norm import NORM
from strop.kernels.roofline import modelled, rate
from strop.kernels.survey import Entry, Row, survey
from strop.kernels.variant import Variant

SMALL = dataclasses.replace(
    NORM,
    examples={"small": NORM.examples["RMSNorm of 1 x 4096, residual"]},
    axis="rows",
    share=lambda sizes, itemsizes: NORM.cost({**sizes, "rows": sizes["ROWS"]}, itemsizes),
    candidates=(Configuration({"ROWS": 1}, num_warps=4), Configuration({"ROWS": 3}, num_warps=4)),
)
PRODUCT = ("128x64xf16 * 64x128xf16",)


def checked(
    architecture: Architecture = SM90, dots: tuple[str, ...] = (), **changed: int
) -> Checked:
    variant = Variant("norm", (("x", "*fp16"),), ("x",), (("ROWS", 1),), 4, 1)
    reading = Reading(32, 0, 0, 0, 1024, 100, {"HMMA": 8} if dots else {}, 0, 0, {}, {})
    binary = Binary("norm_kernel", b"", ".version 8.7", 1024, 4, 0, dots, "3.9.0")
    return Checked(architecture, variant, binary, dataclasses.replace(reading, **changed))


def launch_of(programs: int, cost: Cost) -> Launch:
    kernel = Kernel("made", None, ("programs",), (), lambda sizes, itemsizes: cost)
    return Launch(kernel, {"programs": programs}, {})


def test_a_bound_is_the_larger_of_bytes_and_operations() -> None:
    nothing = Configuration({})
    found = modelled(checked(), launch_of(132 * 16, Cost(1000, 3350)), nothing)
    assert found.memory_seconds == pytest.approx(1e-9)
    assert found.operation_seconds == pytest.approx(1000 / 66.9e12)
    assert (found.seconds, found.limiter) == (found.memory_seconds, "bytes")
    assert (found.programs, found.waves, found.balance) == (132 * 16, 1.0, 1.0)
    found = modelled(checked(dots=PRODUCT), launch_of(133, Cost(9894, 1)), nothing)
    # One multiprocessor gets two programs, which takes as long as two for each.
    assert found.balance == 133 / 264
    assert found.operation_seconds == pytest.approx(1e-11 * 264 / 133)
    assert (found.seconds, found.limiter) == (found.operation_seconds, "operations")


def test_a_launch_without_programs_takes_no_time() -> None:
    assert modelled(checked(), launch_of(0, Cost(0, 0)), Configuration({})).seconds == 0


@pytest.mark.parametrize(
    ("dots", "name"),
    [
        (("16x32xf16 * 32x16xf16",), "fp16"),
        (("16x32xbf16 * 32x16xbf16",), "bf16"),
        (("16x32xi8 * 32x16xi8",), "i8"),
        (("16x32xf8E4M3FN * 32x16xf8E4M3FN",), "fp8e4nv"),
        (("16x32xf32 * 32x16xf32",), "tf32"),
        (("16x32xi8 * 32x16xi8", "16x32xf16 * 32x16xf16"), "fp16"),
    ],
)
def test_operations_are_done_at_the_rate_of_their_dtype(dots: tuple[str, ...], name: str) -> None:
    assert rate(SM90, dots) == SM90.rates[name]


def test_without_products_it_is_that_of_float32() -> None:
    assert rate(SM80, ()) == SM80.vector_rate
    assert rate(SM80, ("16x32xf64 * 32x16xf64",)) == SM80.vector_rate


def test_a_survey_compiles_what_sizes_get_and_candidates_that_may_be_faster() -> None:
    wrong = dataclasses.replace(SMALL, buckets=(Bucket("", SMALL.candidates[1]),), candidates=())
    row, nothing = survey([SMALL, wrong], SM90)
    first, broken = row.entries
    assert row.problem == ""
    assert [entry.taken for entry in row.entries] == [True, False]
    assert first.estimated
    assert first.configuration == NORM.configuration(launches(SMALL)["small"].sizes())
    assert broken.configuration.constants == {"ROWS": 3}
    assert isinstance(first.checked, Checked) and first.problems == []
    assert isinstance(broken.checked, CompileError)
    values = json.loads(json.dumps(first.to_json()))
    assert values["kernel"] == "norm" and values["example"] == "small"
    assert values["reading"]["registers"] == first.checked.reading.registers
    assert values["modelled"]["limiter"] in ("bytes", "operations")
    assert "reading" not in broken.to_json()
    # What can take no configuration has a problem.
    assert "kernel norm" in nothing.problem and "power of 2" in nothing.problem
    assert nothing.entries[0].problems == [nothing.problem]


def test_kernels_that_an_architecture_cannot_run_are_left_out() -> None:
    assert survey([dataclasses.replace(SMALL, capability=89)], SM80) == []


def row(one: Checked | CompileError, problem: str = "") -> Row:
    found = modelled(checked(), launch_of(1, Cost(10**9, 0)), Configuration({}))
    tile = Configuration({"ROWS": 2}, num_warps=8, num_stages=3)
    return Row([Entry("norm", "a [row]", tile, True, one, found, None)], problem)


@pytest.fixture
def prepared(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    """What the command finds for each architecture."""
    rows = [row(checked())]

    def found(kernels: Sequence[Kernel], architecture: Architecture) -> list[Row]:
        return rows

    monkeypatch.setattr(surveys, "survey", found)
    return rows


def test_the_command_shows_a_table_for_each_architecture(strop: Strop, prepared: object) -> None:
    result = strop("kernels")
    assert result.code == 0
    for name in ARCHITECTURES:
        assert f"{name} norm: a [row]" in result.out
    for text in ("ROWS=2", "100%", "modelled for H100 SXM, not measured"):
        assert text in result.out


def test_the_command_gives_json(strop: Strop, prepared: list[Row]) -> None:
    result = strop("kernels", "norm", "--arch", "sm90", "--json")
    assert json.loads(result.out) == {
        "sm90": [json.loads(json.dumps(prepared[0].entries[0].to_json()))]
    }


def test_what_can_take_nothing_is_exit_5_behind_the_table(
    strop: Strop, prepared: list[Row]
) -> None:
    prepared += [row(checked(spill_loads=3), "it spills"), row(CompileError("x"), "it fails")]
    result = strop("kernels", "--arch", "sm80")
    assert result.code == 5
    assert "sm80 norm: a [row]" in result.out and "failed" in result.out
    assert "it spills\nit fails" in result.err


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("nrm",), "there is no kernel 'nrm'; did you mean 'norm'?"),
        (("--arch", "sm70"), "there is no architecture 'sm70'; did you mean 'sm"),
    ],
)
def test_names_that_are_not_known(strop: Strop, arguments: tuple[str, ...], sentence: str) -> None:
    result = strop("kernels", *arguments)
    assert result.code == 2
    assert sentence in result.err


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ARCHITECTURES.values(), ids=lambda one: one.name)
def test_everything_that_is_shipped_holds_to_the_limits(architecture: Architecture) -> None:
    rows = survey([registry.kernel(name) for name in registry.names()], architecture)
    assert [row.problem for row in rows if row.problem] == []
