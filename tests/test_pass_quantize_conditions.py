"""What dynamic int8 leaves in float, and says so."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from program_tools import assert_left_alone, body, counts, program_of, same_numbers
from torch import Tensor, nn

from strop.passes.quantize.dynamic import DynamicLinear, Int8Embedding, QuantizeDynamic
from strop.passes.quantize.selection import Selection

SEED = torch.Generator().manual_seed(0)
X = torch.randn(3, 8, generator=SEED)
TABLE = torch.randn(7, 8, generator=SEED)
IDS = torch.tensor([0, 6, 3])
ROWS = {0: {0: ("rows", 1, 7)}}


def test_a_weight_that_is_computed_from_an_input_stays() -> None:
    program = program_of(lambda x, w: F.linear(x, w.relu()), X, TABLE)
    assert_left_alone(QuantizeDynamic(), program, "computed from an input")


def test_a_weight_in_another_dtype_stays() -> None:
    program = program_of(lambda x, w: F.linear(x, w), X.double(), w=TABLE.double())
    assert_left_alone(QuantizeDynamic(), program, "cpu has no int8 operators for torch.float64")


def test_a_weight_of_one_row_without_an_axis_for_it_stays() -> None:
    program = program_of(lambda x, w: F.linear(x, w), X, w=TABLE[0])
    assert_left_alone(QuantizeDynamic(), program, "the weight is not a matrix")


def test_a_table_that_is_computed_stays() -> None:
    program = program_of(lambda i, w: F.embedding(i, w * 2), IDS, w=TABLE)
    assert_left_alone(QuantizeDynamic(), program, "the table is computed")


def test_a_table_in_another_dtype_stays() -> None:
    program = program_of(lambda i, w: F.embedding(i, w), IDS, w=TABLE.double())
    assert_left_alone(QuantizeDynamic(), program, "no int8 operators for torch.float64")


def test_tables_below_a_number_of_rows_stay() -> None:
    rule = Int8Embedding(min_rows=8)
    program = program_of(lambda i, w: F.embedding(i, w), IDS, w=TABLE)
    root = program.find(torch.ops.aten.embedding.default)[0]
    assert "fewer than 8 rows" in str(rule.match(root, program))
    assert "fewer" not in str(Int8Embedding(min_rows=7).match(root, program))


@pytest.mark.parametrize(
    ("pattern", "kept"),
    [("inner.a", True), ("inner", True), ("*.a.*", True), ("inner.b", False), ("a", False)],
)
def test_a_layer_is_kept_by_name_by_pattern_or_with_what_holds_it(pattern: str, kept: bool) -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(8, 8)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x)  # type: ignore[no-any-return]

    program = program_of(Two(), X)
    root = program.find(torch.ops.aten.linear.default)[0]
    assert (
        "kept in float" in str(DynamicLinear(Selection(keep=(pattern,))).match(root, program))
    ) == kept


def test_a_layer_on_an_expression_is_kept_by_any_of_its_weights() -> None:
    program = program_of(lambda x, a, b: F.linear(x, torch.cat((a, b))), X, a=TABLE, b=TABLE[:2])
    assert_left_alone(QuantizeDynamic(keep=("inner.b",)), program, "'inner.b' matches 'inner.b'")


def test_embedding_tables_stay_where_that_is_asked() -> None:
    program = program_of(lambda i, w: F.embedding(i, w), IDS, w=TABLE)
    assert not QuantizeDynamic(embeddings=False).run(program).modified
    assert counts(QuantizeDynamic().run(program)) == {"embedding-int8": 1}


def test_a_row_for_padding_changes_nothing_where_a_model_only_runs() -> None:
    before = program_of(lambda i, w: F.embedding(i, w, padding_idx=2), IDS, w=TABLE)
    result = QuantizeDynamic().run(before)
    assert counts(result) == {"embedding-int8": 1}
    same_numbers(before, result.program, IDS, tolerance=0.02)


def cut(x: Tensor, table: Tensor) -> Tensor:
    return x + table[: x.shape[0]]


def test_a_table_cut_to_a_fixed_length_stays() -> None:
    assert_left_alone(QuantizeDynamic(), program_of(cut, X, table=TABLE), "cut to a fixed length")


def test_a_buffer_cut_to_length_stays() -> None:
    program = program_of(lambda x: x + TABLE[: x.shape[0]], X, dims=ROWS)
    assert_left_alone(QuantizeDynamic(), program, "the table is a buffer")


def test_a_table_that_is_named_is_not_cut_in_int8() -> None:
    program = program_of(cut, X, table=TABLE, dims=ROWS)
    assert_left_alone(QuantizeDynamic(keep=("inner.table",)), program, "kept in float")


def test_a_table_in_another_dtype_is_not_cut_in_int8() -> None:
    program = program_of(cut, X.double(), table=TABLE.double(), dims=ROWS)
    assert_left_alone(QuantizeDynamic(), program, "no int8 operators for torch.float64")


def test_a_table_is_stored_once_by_a_second_run() -> None:
    once = QuantizeDynamic().run(program_of(cut, X, table=TABLE, dims=ROWS)).program
    assert_left_alone(QuantizeDynamic(), once, "the table is in int8 already")


def test_what_is_cut_from_an_input_or_another_axis_or_of_another_rank_stays() -> None:
    def model(x: Tensor, wide: Tensor, table: Tensor, row: Tensor) -> Tensor:
        size = x.shape[0]
        return wide[:size].sum() + table[:, :size].sum() + row[:size].sum()

    program = program_of(
        model, X, X, table=TABLE, row=TABLE[0].clone(), dims={0: {0: ("rows", 1, 3)}}
    )
    result = QuantizeDynamic().run(program)
    assert not result.modified


def test_a_cut_keeps_its_start_and_its_numbers() -> None:
    def model(x: Tensor, table: Tensor) -> Tensor:
        return x + table[1 : x.shape[0] + 1]

    before = program_of(model, X, table=TABLE, dims={0: {0: ("rows", 1, 6)}})
    result = QuantizeDynamic().run(before)
    assert "strop.stored_int8" in body(result.program)
    step = float(TABLE.abs().max()) / 127
    same_numbers(before, result.program, X, tolerance=step / 2 + 1e-6)
