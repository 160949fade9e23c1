"""Dynamic int8: text, numbers, layers that are kept, and gradients."""

from __future__ import annotations

import torch
from program_tools import body, counts, program_of, run_passes, same_numbers
from torch import nn

from strop.compiler.ir.dialect.linear import int8_scale, int8_weight
from strop.passes.cleanup.constants import FoldConstants
from strop.passes.cleanup.linears import PlainLinears
from strop.passes.legalize.complex import SplitComplex
from strop.passes.quantize.dynamic import QuantizeDynamic


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.first, self.head = nn.Embedding(11, 8), nn.Linear(8, 6), nn.Linear(6, 3)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.head(torch.relu(self.first(self.table(ids))))  # type: ignore[no-any-return]


IDS = torch.tensor([[1, 5, 10], [0, 2, 9]])


def test_linears_and_tables_become_int8_operators() -> None:
    before = program_of(Small(), IDS)
    result = QuantizeDynamic().run(before)
    assert counts(result) == {"linear-w8a8": 2, "embedding-int8": 1}
    assert "strop.linear_w8a8(%embedding_int8_default, @first.weight, " in body(result.program)
    # Three roundings to 8 bits of values of order one.
    same_numbers(before, result.program, IDS, tolerance=0.05)


def test_named_layers_stay_in_float_and_say_so() -> None:
    result = QuantizeDynamic(keep=("inner.head", "*table*")).run(program_of(Small(), IDS))
    assert counts(result) == {"linear-w8a8": 1}
    assert any("matches 'inner.head'" in m.reason for m in result.log.misses)


def test_weights_are_rounded_to_nearest_within_half_a_step() -> None:
    weight = torch.randn(5, 16)
    weight[2] = 0
    scale = int8_scale(weight)
    grid = int8_weight(weight, scale)
    assert grid.dtype == torch.int8
    assert int(grid.abs().max()) == 127
    error = (grid * scale[:, None] - weight).abs()
    assert bool((error <= scale[:, None] / 2 + 1e-7).all())


def test_gradients_pass_straight_through() -> None:
    program = QuantizeDynamic(embeddings=False).run(program_of(Small(), IDS)).program
    program.run(input_0=IDS)[0].sum().backward()
    gradients = {n: p.grad for n, p in program.parameters.items()}
    assert gradients
    assert all(g is not None and bool(g.abs().sum() > 0) for g in gradients.values())


def test_a_table_cut_to_length_is_stored_in_int8() -> None:
    def model(x: torch.Tensor, table: torch.Tensor) -> torch.Tensor:
        return x + table[: x.shape[0]]

    x, table = torch.randn(3, 8), torch.randn(7, 8)
    before = program_of(model, x, table=table, dims={0: {0: ("rows", 1, 7)}})
    result = QuantizeDynamic().run(before)
    assert counts(result) == {"table-int8": 1}
    assert "strop.stored_int8(@table, %int8_scale_default)" in body(result.program)
    step = float(table.abs().max()) / 127
    same_numbers(before, result.program, x, tolerance=step / 2 + 1e-6)


def test_the_table_of_a_fourier_transform_stays_in_float() -> None:
    def spectrum(x: torch.Tensor) -> torch.Tensor:
        return torch.fft.rfft(x).abs()

    program = program_of(spectrum, torch.randn(4, 16))
    before = run_passes(program, SplitComplex(), FoldConstants(), PlainLinears())
    assert "aten.linear" in body(before)
    result = QuantizeDynamic().run(before)
    assert not result.modified
    assert "constant of the compiler's" in result.log.misses[0].reason
