"""Weight-only quantization: what is rewritten, by which grids, and why other layers are not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from program_tools import assert_left_alone, body, counts, program_of, run_passes, session
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler import Model, build
from strop.compiler.ir.footprint import footprint
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import PassResult
from strop.compiler.targets.target import CPU
from strop.compiler.util.errors import UsageError
from strop.passes.cleanup.noops import Noops
from strop.passes.quantize.methods import METHODS, MethodName
from strop.passes.quantize.weights import QuantizeWeights

WORDS, WIDTH = 50, 64


class Tied(nn.Module):
    """A table, a norm, two layers, and a head that is the table."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words, self.norm = nn.Embedding(WORDS, WIDTH), nn.LayerNorm(WIDTH)
        self.up, self.down = nn.Linear(WIDTH, 96), nn.Linear(96, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.words(ids)
        x = x + self.down(F.relu(self.up(self.norm(x))))
        return self.head(x)  # type: ignore[no-any-return]


IDS = torch.arange(24).reshape(3, 8)


def words(rows: int, seed: int = 0) -> Tensor:
    return torch.randint(0, WORDS, (rows, 8), generator=torch.Generator().manual_seed(seed))


DATA = [{"input_0": words(8, seed)} for seed in range(3)]


def tied() -> Program:
    module = Tied()
    module.norm.weight.data[::7] *= 4
    return run_passes(program_of(module, IDS, dims={0: {0: ("rows", 1, 64)}}), Noops())


def quantized(program: Program, **options: Any) -> PassResult:
    return QuantizeWeights(**options).run(program, context=Context(calibration=DATA))


def one_layer(size: int = 64, rows: int = 6) -> Program:
    weight = torch.randn(rows, size, generator=torch.Generator().manual_seed(1))
    return program_of(lambda x, weight: F.linear(x, weight), torch.randn(2, size), weight=weight)


def test_linears_and_tables_become_operators_on_packed_weights() -> None:
    result = quantized(tied(), method="nearest", embeddings=4)
    assert counts(result) == {"linear-nbits": 3, "embedding-nbits": 1}
    assert "strop.linear_nbits(%layer_norm, @up.weight, %group_scale_default" in body(
        result.program
    )
    assert "strop.group_scale(@up.weight, 2, 4, False)" in body(result.program)


@pytest.mark.parametrize("learnable", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_the_file_gives_what_the_program_gives(method: MethodName, learnable: bool) -> None:
    made = quantized(tied(), method=method, bits=3, embeddings=3, learnable=learnable, steps=20)
    file = session(made.program)
    for rows in (1, 3, 7):
        ids = words(rows, 9)
        want = made.program.run(input_0=ids)[0].detach().numpy()
        got = file.run(None, {"input_0": ids.numpy()})[0]
        # The product rounds activations to 8 bits.
        assert np.abs(got - want).max() < 0.02 * np.abs(want).max()


@pytest.mark.parametrize("method", [m for m in METHODS if m != "nearest"])
def test_every_method_is_nearer_than_rounding_to_nearest(method: MethodName) -> None:
    program, ids = tied(), words(64, 9)
    options: dict[str, Any] = {"bits": 3, "keep": ("*words*",)}
    want = program.run(input_0=ids)[0].detach()

    def error(method: MethodName) -> float:
        made = quantized(program, method=method, **options).program
        return float((made.run(input_0=ids)[0].detach() - want).square().mean())

    assert error(method) < 0.97 * error("nearest")


def test_the_same_data_give_the_same_whole_numbers() -> None:
    for method in ("gptq", "adaround"):
        first, again = (quantized(tied(), method=method, steps=20) for _ in range(2))
        assert not first.program.has_other_values(
            replace(again.program, weights={n: t for n, t in first.program.weights.items()})
        )
        for name, tensor in first.program.weights.items():
            assert torch.equal(tensor, again.program.weights[name]), name


def test_without_data_the_squared_error_decides_and_with_data_gptq() -> None:
    alone = QuantizeWeights().run(tied())
    assert alone.log.learned is not None and alone.log.learned["facts"]["method"] == "mse"
    seen = quantized(tied())
    assert seen.log.learned is not None and seen.log.learned["facts"]["method"] == "gptq"


def test_a_tied_head_shares_the_table_and_another_width_does_not() -> None:
    shared = quantized(tied(), embeddings=4).program
    apart = quantized(tied(), embeddings=8).program
    table = WORDS * WIDTH
    assert not quantized(tied(), embeddings=4).log.notes
    (note,) = quantized(tied(), embeddings=8).log.notes
    assert "is stored 2 times, in 4 and 8 bits" in note
    extra = footprint(apart).bytes - footprint(shared).bytes
    scales = WORDS * WIDTH // 32 * (4 + 1)
    assert extra == table + scales


def test_three_bits_take_the_room_of_four() -> None:
    three, four = (footprint(quantized(tied(), bits=bits).program).bytes for bits in (3, 4))
    assert three == four
    assert footprint(quantized(tied(), bits=2).program).bytes < three


def test_awq_moves_scales_of_channels_into_norms_and_layers() -> None:
    program = tied()
    result = quantized(program, method="awq", bits=3)
    changed = {r.node for r in result.log.rewrites if r.rule == "scaled-channels"}
    assert {"@inner.norm.weight", "@inner.norm.bias", "@inner.up.weight"} <= changed
    old, new = (p.weights["inner.norm.weight"].detach().abs() for p in (program, result.program))
    assert float(new.max() / new.min()) < float(old.max() / old.min())


def test_several_passes_give_layers_widths_of_their_own() -> None:
    first = quantized(tied(), method="nearest", bits=8, only=("inner.up",)).program
    second = quantized(first, bits=3, keep=("*words*", "*head*")).program
    widths = [node.args[-1] for node in second.find(torch.ops.strop.linear_nbits.default)]
    assert widths == [8, 3]
    ids = words(4)
    assert bool(second.run(input_0=ids)[0].isfinite().all())


def test_few_rows_are_told_with_their_number() -> None:
    data = [{"input_0": torch.zeros(1, 8, dtype=torch.int64)}]
    result = QuantizeWeights(method="gptq").run(tied(), context=Context(calibration=data))
    note, _ = result.log.notes
    assert "3 of 3 weights saw fewer rows of data than they have input channels" in note
    assert "with 8 rows for 96 channels" in note


def test_layers_that_see_only_zeros_and_rows_of_zeros_are_rounded() -> None:
    weight = torch.randn(6, 64)
    weight[2] = 0
    program = program_of(lambda x, weight: F.linear(x, weight), torch.randn(2, 64), weight=weight)
    data = [{"input_0": torch.zeros(4, 64)}]
    for method in METHODS:
        made = QuantizeWeights(method=method).run(program, context=Context(calibration=data))
        got = made.program.run(input_0=torch.eye(64))[0].detach()
        assert bool((got[:, 2] == 0).all()) and bool(got.isfinite().all()), method
        assert float((got.t() - weight).abs().max()) < 0.5, method


def test_reasons_for_which_layers_stay_in_float() -> None:
    assert_left_alone(
        QuantizeWeights(), one_layer(40), "groups of 32 do not divide its 40 input channels"
    )
    assert_left_alone(QuantizeWeights(keep=("*weight",)), one_layer(), "matches '*weight'")
    computed = program_of(lambda x: F.linear(x, x), torch.randn(4, 32))
    assert_left_alone(QuantizeWeights(), computed, "computed from an input")
    double = program_of(
        lambda x, weight: F.linear(x, weight),
        torch.randn(2, 32, dtype=torch.float64),
        weight=torch.randn(4, 32, dtype=torch.float64),
    )
    assert_left_alone(QuantizeWeights(), double, "cpu has no products with packed weights in")
    broken = program_of(
        lambda x, weight: F.linear(x, weight),
        torch.randn(2, 32),
        weight=torch.full((4, 32), torch.nan),
    )
    assert_left_alone(QuantizeWeights(), broken, "holds NaN or infinity, which no scale fits")
    table = program_of(
        lambda i, table: F.embedding(i, table), torch.tensor([1, 2]), table=torch.randn(9, 40)
    )
    assert_left_alone(
        QuantizeWeights(embeddings=4, group=0), table, "its rows of 40 values are no multiple of 16"
    )


def test_reasons_of_the_target() -> None:
    def run(**changed: Any) -> None:
        QuantizeWeights().run(one_layer(), context=Context(target=replace(CPU, **changed)))

    for changed, reason in (
        ({"weight_zero_points": False}, "takes symmetric weights only: set symmetric=true"),
        ({"weight_bits": 0}, "has no products with packed weights of 4 bits"),
        ({"weight_groups": (64, 128)}, "takes groups of 64 or 128 input channels only"),
    ):
        with pytest.raises(UsageError, match=reason):
            run(**changed)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"bits": 9}, "bits is 9; it must be from 2 to 8"),
        ({"bits": 1}, "bits is 1; it must be from 2 to 8"),
        ({"embeddings": 1}, "embeddings is 1; it must be 0, or from 2 to 8"),
        ({"group": 48}, "group is 48; it must be one of 0, 16, 32, 64, 128, 256"),
        ({"batches": 0}, "batches is 0; it must be 1 or more"),
        ({"steps": 0}, "steps is 0; it must be 1 or more"),
        ({"damping": 0.0}, "damping is 0.0; it must be above 0"),
    ],
)
def test_options_outside_of_their_ranges_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        QuantizeWeights(**options)


def test_names_that_match_nothing_are_refused() -> None:
    with pytest.raises(UsageError, match=r"only: no weight is 'haed'"):
        quantized(tied(), only=("haed",))


def test_methods_that_need_data_say_so() -> None:
    with pytest.raises(UsageError, match="needs calibration or train"):
        QuantizeWeights(method="gptq").run(tied())


def test_data_with_nan_or_of_another_dtype_are_refused() -> None:
    program = one_layer()
    nan = torch.randn(2, 64)
    nan[1, 3] = torch.nan
    with pytest.raises(UsageError, match=r"calibration\[0\]\['input_0'\] holds NaN"):
        QuantizeWeights().run(program, context=Context(calibration=[{"input_0": nan}]))
    with pytest.raises(UsageError, match="input_0"):
        whole = [{"input_0": torch.zeros(2, 64, dtype=torch.int64)}]
        QuantizeWeights().run(program, context=Context(calibration=whole))


@pytest.mark.parametrize("with_data", [False, True])
def test_the_recipe_builds_with_and_without_data(with_data: bool, tmp_path: Path) -> None:
    model = Model(
        Tied().eval(),
        {"ids": words(4)},
        dynamic={"ids": {0: ("rows", 1, 64)}},
        calibration=[{"ids": words(16, seed)} for seed in range(4)] if with_data else None,
    )
    artifact = build(model, tmp_path / "out", recipe="cpu-int4")
    step = next(p for p in artifact.manifest["passes"] if p["name"] == "quantize-weights")
    assert step["learned"]["facts"]["method"] == ("gptq" if with_data else "mse")
    full = build(model, tmp_path / "full", recipe="cpu-fp32")
    small, large = (a.path / "model.onnx" for a in (artifact, full))
    assert small.stat().st_size < 0.6 * large.stat().st_size
