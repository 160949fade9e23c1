"""Which configurations launches take: by the model, by the limits, or as the kernel says."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import pytest
import torch
from test_kernel_variants import symbolic

from strop.kernels import selection
from strop.kernels.architecture import SM90, Architecture
from strop.kernels.binary import Binary
from strop.kernels.compiler import CompileError
from strop.kernels.estimate import estimated_seconds, least_seconds
from strop.kernels.examples import tensor
from strop.kernels.gate import Checked, GateError, Readers
from strop.kernels.inspect import Reading
from strop.kernels.kernel import Bucket, Configuration, Cost, Kernel, Launch
from strop.kernels.measure import MeasureError, measured_seconds
from strop.kernels.sampling import at, samples
from strop.kernels.selection import select, try_all
from strop.kernels.specialization import variant_of
from strop.kernels.tiles import tile_share, tile_sums
from strop.kernels.variant import Variant

DEPTH, COLUMNS = 4096, 4096


def tile(rows: int, columns: int = 128, warps: int = 4) -> Configuration:
    return Configuration({"BLOCK_M": rows, "BLOCK_N": columns}, warps, 3)


def cost(sizes: Mapping[str, int], itemsizes: Mapping[str, int]) -> Cost:
    rows, columns, depth = sizes["rows"], sizes["columns"], sizes["depth"]
    moved = (rows + columns) * depth + rows * columns
    return Cost(2 * rows * columns * depth, moved * itemsizes["x"])


PRODUCT = Kernel(
    "product",
    None,
    grid=("cdiv(rows, BLOCK_M) * cdiv(columns, BLOCK_N)",),
    buckets=(
        Bucket("depth % 16 > 0", tile(64, 32)),
        Bucket("rows <= 24", tile(16)),
        Bucket("", tile(64)),
    ),
    cost=cost,
    candidates=(tile(128, 256, 8), tile(32, 32)),
    axis="rows",
    share=tile_share(cost),
)


def launch(rows: int | torch.SymInt, kernel: Kernel = PRODUCT, depth: int = DEPTH) -> Launch:
    sizes = {"rows": rows, "columns": COLUMNS, "depth": depth}
    return Launch(kernel, {"x": tensor(1), **sizes}, {})


def checked(
    variant: Variant,
    architecture: Architecture = SM90,
    kind: str = "HGMMA",
    dots: tuple[str, ...] = ("64x64xf16 * 64x64xf16",),
    **changed: object,
) -> Checked:
    reading = Reading(128, 0, 0, 0, 48 * 1024, 100, {kind: 8}, 8, 0, {}, {})
    binary = Binary("f", b"", ".version 8.7", 48 * 1024, variant.num_warps, 0, dots, "3.9.0")
    return Checked(architecture, variant, binary, dataclasses.replace(reading, **changed))


def block(one: Checked) -> int:
    return int(dict(one.variant.constants)["BLOCK_M"])


@pytest.fixture(autouse=True)
def compiled(monkeypatch: pytest.MonkeyPatch) -> dict[int, Checked | CompileError | str]:
    """Instead of compiling: what becomes of a variant, by its BLOCK_M, and without an entry all
    is well."""
    outcomes: dict[int, Checked | CompileError | str] = {}

    # By the object and not its id, which a later one may have again.
    seen: dict[Readers, set[Variant]] = {}

    def instead(readers: Readers, variants: Sequence[Variant]) -> list[Checked | CompileError]:
        before = seen.setdefault(readers, set())
        assert not before.intersection(variants), "compiled twice"
        assert len(set(variants)) == len(variants)
        before.update(variants)
        return [_outcome(checked(variant, readers.architecture)) for variant in variants]

    def _outcome(good: Checked) -> Checked | CompileError:
        outcome = outcomes.get(block(good), good)
        if outcome == "spills":
            return dataclasses.replace(
                good, reading=dataclasses.replace(good.reading, spill_loads=2)
            )
        assert not isinstance(outcome, str)
        return outcome

    monkeypatch.setattr(Readers, "try_and_read", instead)
    return outcomes


def never(one: Checked, made: Launch, configuration: Configuration) -> None:
    """A model that knows nothing."""


def constant(times: Mapping[int, float]) -> selection.Timing:
    """A model that knows the time of each BLOCK_M."""
    return lambda one, made, configuration: times[configuration.constants["BLOCK_M"]]


def shown(taken: Sequence[selection.Taken]) -> list[tuple[str, int, bool]]:
    return [(one.when, one.configuration.constants["BLOCK_M"], one.candidate) for one in taken]


def test_without_a_reason_a_launch_takes_what_the_buckets_say() -> None:
    rows = symbolic(3, 64).shape[0]
    own = [("rows <= 24", 16, False), ("", 64, False)]
    (taken,) = select([launch(rows)], SM90, never)
    assert shown(taken) == own
    # Not by a margin, nor by enough, and not where it is not known what one program does.
    for near in (
        {16: 1.0, 64: 1.0, 32: 0.86, 128: 0.86},
        {16: 20e-6, 64: 20e-6, 32: 15.1e-6, 128: 15.1e-6},
    ):
        (taken,) = select([launch(rows)], SM90, constant(near))
        assert shown(taken) == own
    (taken,) = select([launch(rows, dataclasses.replace(PRODUCT, axis=""))], SM90)
    assert shown(taken) == own


def test_buckets_that_never_hold_are_left_out() -> None:
    (one, other, odd) = select([launch(24), launch(25), launch(25, depth=24 + 1)], SM90, never)
    assert shown(one) == [("", 16, False)]
    assert shown(other) == [("", 64, False)]
    assert shown(odd) == [("", 64, False)]
    assert odd[0].configuration == tile(64, 32)


def test_a_candidate_is_taken_where_it_is_faster_by_a_margin() -> None:
    def seconds(one: Checked, made: Launch, configuration: Configuration) -> float:
        rows = made.arguments["rows"]
        assert isinstance(rows, int)
        return 0.84 if configuration == tile(128, 256, 8) and 256 <= rows <= 1024 else 1.0

    (taken,) = select([launch(symbolic(3, 64).shape[0])], SM90, seconds)
    assert shown(taken) == [
        ("rows <= 16", 16, False),
        ("rows <= 128", 64, False),
        ("rows <= 1024", 128, True),
        ("", 64, False),
    ]
    (taken,) = select([launch(512)], SM90, seconds)
    assert shown(taken) == [("", 128, True)]


def test_a_candidate_whose_time_is_not_known_is_not_taken() -> None:
    def seconds(one: Checked, made: Launch, configuration: Configuration) -> float | None:
        return 1.0 if configuration == tile(64) else None

    (taken,) = select([launch(512)], SM90, seconds)
    assert shown(taken) == [("", 64, False)]


@pytest.mark.parametrize("outcome", ["spills", CompileError("cannot be compiled")])
def test_a_candidate_stands_in_for_a_configuration_that_breaks_a_limit(
    compiled: dict[int, object], outcome: object
) -> None:
    compiled[64] = outcome
    (taken,) = select([launch(512)], SM90, constant({32: 2.0, 128: 1.0}))
    assert shown(taken) == [("", 128, True)]


def test_a_candidate_that_breaks_a_limit_is_not_taken(compiled: dict[int, object]) -> None:
    compiled[128] = "spills"
    (taken,) = select([launch(512)], SM90, constant({64: 1.0, 32: 0.8}))
    assert shown(taken) == [("", 32, True)]


def test_nothing_that_holds_to_the_limits_is_an_error(compiled: dict[int, object]) -> None:
    compiled.update({16: "spills", 32: "spills", 64: "spills", 128: "spills"})
    with pytest.raises(GateError, match="kernel product .* spilled to memory: 2 instructions"):
        select([launch(512)], SM90)
    compiled[64] = CompileError("kernel product cannot be compiled")
    with pytest.raises(CompileError, match="kernel product cannot be compiled"):
        select([launch(512, dataclasses.replace(PRODUCT, axis=""))], SM90)


def test_the_model_prefers_tiles_that_fit() -> None:
    (few, many) = select([launch(16), launch(8192)], SM90)
    # Sixteen rows in a tile of 64 or more are mostly nothing; many rows share what tiles read.
    assert few[0].configuration == tile(32, 32) or few[0].configuration == tile(16)
    assert many[0].configuration == tile(128, 256, 8)


def test_the_choice_is_the_same_every_time() -> None:
    rows = symbolic(3, 64).shape[0]
    first, again = (shown(select([launch(rows)], SM90)[0]) for _ in range(2))
    assert first == again


# The model --------------------------------------------------------------------------------------


def seconds_of(
    rows: int, configuration: Configuration, architecture: Architecture = SM90, **changed: object
) -> float:
    made = launch(rows)
    one = checked(variant_of(made, configuration), architecture, **changed)  # type: ignore[arg-type]
    found = estimated_seconds(one, made, configuration)
    assert found is not None
    return found


def test_a_large_product_takes_its_operations_and_a_wait_for_each_round() -> None:
    wide, rows = tile(256, 256, 8), 132 * 256
    found = seconds_of(rows, wide, shared_memory=100 * 1024)
    # 16 programs for each multiprocessor, two at a time.
    rounds = 8
    operations = 2 * rows * COLUMNS * DEPTH / 989.4e12
    assert found == pytest.approx(operations + rounds * 0.7e-6)
    by_warps = seconds_of(rows, wide, kind="HMMA", shared_memory=100 * 1024)
    assert by_warps == pytest.approx(operations / 0.62 + rounds * 0.7e-6)
    # Another tile of rows is another 16 programs, which some get and others do not.
    more = seconds_of(rows + 1, wide, shared_memory=100 * 1024)
    assert more > found * 17 / 16 - 1e-6


@pytest.mark.parametrize("rows", [1, 16, 100, 4096])
@pytest.mark.parametrize("kind", ["HMMA", "HGMMA"])
def test_no_estimate_is_below_what_is_known_before_compiling(rows: int, kind: str) -> None:
    made = launch(rows)
    one = checked(variant_of(made, tile(64)))
    for configuration in PRODUCT.configurations():
        for shared in (1024, 64 * 1024, 200 * 1024):
            found = seconds_of(rows, configuration, kind=kind, shared_memory=shared)
            assert least_seconds(one, made, configuration) <= found


def test_candidates_that_cannot_be_faster_are_not_compiled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {block(one) for one in try_all([launch(4)], SM90).values()} == {16, 32}
    assert {block(one) for one in try_all([launch(8192)], SM90).values()} == {64, 128}
    # What is measured may be anything.
    assert len(try_all([launch(4)], SM90, never)) == 1 + len(PRODUCT.candidates)
    silent = dataclasses.replace(PRODUCT, share=None)
    assert len(try_all([launch(4, silent)], SM90)) == 1


def test_the_most_promising_candidates_are_compiled_first(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = dataclasses.replace(PRODUCT, candidates=(tile(32), tile(128), tile(256)))
    bounds = {32: 0.5, 128: 0.3, 256: 0.4}
    times = {64: 1.0, 32: 0.6, 128: 0.45, 256: 0.41}

    def seconds(one: Checked, made: Launch, configuration: Configuration) -> float:
        return times[configuration.constants["BLOCK_M"]]

    monkeypatch.setattr(selection, "estimated_seconds", seconds)
    monkeypatch.setattr(
        selection, "least_seconds", lambda one, made, c: bounds[c.constants["BLOCK_M"]]
    )
    made = launch(512, kernel)
    # The second one may still be faster than the first, and the last one than neither.
    assert [block(one) for one in try_all([made], SM90, seconds).values()] == [64, 128, 256]
    ((taken,),) = select([made], SM90, seconds)
    assert taken.configuration == tile(256)


def test_no_more_programs_run_at_a_time_than_have_room() -> None:
    made = launch(65536)
    one = checked(variant_of(made, tile(64)))
    known = dataclasses.replace(PRODUCT, sums=tile_sums())

    def least(configuration: Configuration, kernel: Kernel = PRODUCT) -> float:
        return least_seconds(one, dataclasses.replace(made, kernel=kernel), configuration)

    assert least(tile(64, warps=16)) > least(tile(64, warps=4))
    assert least(tile(128), known) > least(tile(128))
    two = dataclasses.replace(PRODUCT, sums=tile_sums(2))
    assert least(tile(128), two) > least(tile(128), known)
    # More than there are registers for: one, which spills.
    assert least(tile(1024), known) < float("inf")


def test_rows_that_are_not_there_cost_as_much_as_others() -> None:
    assert seconds_of(1, tile(64)) == pytest.approx(seconds_of(64, tile(64)), rel=0.05)


def test_small_tiles_read_operands_from_the_cache_again() -> None:
    # 32 rows and 32 columns of each product are read for 32 x 32 results.
    found = seconds_of(8192, tile(32, 32))
    programs = 8192 // 32 * COLUMNS // 32
    read = programs * ((32 + 32) * DEPTH + 32 * 32) * 2
    assert found >= read / SM90.cache_bandwidth


def test_few_loads_on_their_way_do_not_use_the_memory() -> None:
    deep = seconds_of(16, tile(16), shared_memory=96 * 1024)
    flat = seconds_of(16, tile(16), shared_memory=6 * 1024)
    assert flat > 1.5 * deep


def test_products_that_wait_for_their_loads_are_not_modelled() -> None:
    made = launch(512)
    one = checked(variant_of(made, tile(64)), async_copies=0)
    assert estimated_seconds(one, made, tile(64)) is None
    assert estimated_seconds(
        dataclasses.replace(one, binary=dataclasses.replace(one.binary, dots=())), made, tile(64)
    )
    assert estimated_seconds(
        checked(variant_of(made, tile(64)), async_copies=0, bulk_copies=1), made, tile(64)
    )


# Launches at plain sizes ------------------------------------------------------------------------


def test_samples_are_powers_of_two_within_the_bounds() -> None:
    assert samples(5) == (5,)
    assert samples(symbolic(3, 64, most=8).shape[0]) == (2, 4, 8)
    assert samples(symbolic(3, 64, most=9).shape[0]) == (2, 4, 8, 16)
    free = samples(symbolic(3, 64).shape[0])
    assert (free[0], free[-1]) == (2, 65536)
    assert samples(symbolic(3, 64).shape[0] * 2**20) == (65536,)


def test_a_launch_at_a_size() -> None:
    x = symbolic(3, 64)
    rows = x.shape[0]
    given = {"x": x[:, 8:], "rows": rows, "twice": 2 * rows, "more": rows + 1, "one": 1, "eps": 0.5}
    made = at(Launch(PRODUCT, {**given, "none": None}, {"K": 1}), "rows", 16)
    found = dict(made.arguments)
    moved = found.pop("x")
    assert (moved.shape, moved.stride(), moved.device.type) == ((16, 56), (64, 1), "meta")
    assert moved.dtype == x.dtype
    # What is no multiple of it is as in the model's examples.
    assert found == {
        "rows": 16, "twice": 32, "more": 4, "one": 1, "eps": 0.5, "none": None,
    }  # fmt: skip
    assert made.constants == {"K": 1}


def test_measuring_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    with pytest.raises(MeasureError, match="needs a CUDA device, and there is none here"):
        select([launch(512)], SM90, measured_seconds)
