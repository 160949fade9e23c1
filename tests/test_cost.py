"""What a run is estimated to take, against counts made by hand and by torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from program_tools import program_of
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from strop.compiler.ir.cost import Cost, CostModel

Made = nn.Module | Callable[..., Any]
ROWS = {0: {0: ("rows", 0, 1000)}}


def costs_of(module: Made, *inputs: Tensor, dims: Any = None) -> CostModel:
    return CostModel(program_of(module, *inputs, dims=dims))


def cost_of(module: Made, *inputs: Tensor) -> Cost:
    return costs_of(module, *inputs).at({})


PRODUCTS: dict[str, tuple[Any, tuple[Tensor, ...]]] = {
    "linear": (nn.Linear(5, 7), (torch.ones(2, 3, 5),)),
    "matmul": (lambda a, b: a @ b, (torch.ones(2, 3, 5), torch.ones(5, 4))),
    "matrices in batches": (torch.bmm, (torch.ones(6, 3, 5), torch.ones(6, 5, 4))),
    "with a sum": (torch.addmm, (torch.ones(4), torch.ones(3, 5), torch.ones(5, 4))),
    "convolution": (nn.Conv2d(4, 6, 3, padding=1, groups=2), (torch.ones(2, 4, 9, 9),)),
    "transposed": (nn.ConvTranspose2d(4, 6, 3, stride=2), (torch.ones(2, 4, 5, 5),)),
    "einsum": (
        lambda a, b: torch.einsum("bhqd,bhkd->bhqk", a, b),
        (torch.ones(2, 3, 4, 5), torch.ones(2, 3, 6, 5)),
    ),
    "einsum without arrow": (
        lambda a, b: torch.einsum("ij,jk", a, b),
        (torch.ones(3, 4), torch.ones(4, 5)),
    ),
    "einsum with an ellipsis": (
        lambda a, b: torch.einsum("...ij,...jk->...ik", a, b),
        (torch.ones(2, 3, 4), torch.ones(2, 4, 5)),
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_multiply_adds_are_those_that_torch_counts(name: str) -> None:
    made, inputs = PRODUCTS[name]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        made(*inputs)
    assert counter.get_total_flops() > 0
    assert cost_of(made, *inputs).multiply_adds == counter.get_total_flops() / 2


def test_a_recurrent_network_multiplies_all_its_weights_at_every_step() -> None:
    network = nn.LSTM(3, 4, batch_first=True)
    weights = sum(p.numel() for p in network.parameters())
    assert cost_of(network, torch.ones(2, 5, 3)).multiply_adds == 2 * 5 * weights


def test_distances_and_decompositions_are_counted() -> None:
    assert cost_of(torch.cdist, torch.ones(4, 3), torch.ones(5, 3)).multiply_adds == 4 * 5 * 3
    assert cost_of(torch.linalg.slogdet, torch.eye(6)).multiply_adds == 6**3


def test_a_cost_is_that_of_the_sizes_asked_for() -> None:
    costs = costs_of(nn.Linear(5, 7), torch.ones(6, 5), dims=ROWS)
    for rows in (0, 1, 900):
        found = costs.at({"rows": rows})
        assert found.multiply_adds == rows * 35
        assert found.outputs == 4 * rows * 7
        assert found.moved == found.peak == 4 * rows * (5 + 7)


def test_what_is_alive_at_once_is_counted_and_no_more() -> None:
    x = torch.ones(1000)
    size = 4000
    assert cost_of(lambda x: x.sin().cos().tan(), x).peak == 3 * size
    assert cost_of(lambda x: x.sin() + x.cos(), x).peak == 4 * size
    assert cost_of(lambda x: (x.sin(), x.cos()), x).outputs == 2 * size


def test_a_view_takes_no_memory_and_keeps_what_it_shows() -> None:
    x = torch.ones(10, 100)
    size = 4000
    assert cost_of(lambda x: x.sin().t()[:5].expand(3, 5, 10) * 1, x).peak == 2 * size + 600
    kept = cost_of(lambda x: (x.sin().t(), x.cos().tan().exp()), x)
    assert kept.peak == 4 * size  # the input, what is shown, and two of the three others
    assert cost_of(lambda x: x.double() + x, x).peak == size + 2 * 8000


def test_attention_holds_its_scores() -> None:
    query = torch.ones(2, 3, 40, 5)
    found = cost_of(F.scaled_dot_product_attention, query, query, query)
    assert found.multiply_adds == 2 * 3 * 40 * 40 * (5 + 5)
    assert found.peak == 4 * (4 * query.numel() + 2 * 3 * 40 * 40)


def test_a_size_that_only_the_data_know_is_the_most_that_it_can_be() -> None:
    costs = costs_of(lambda x: x[x > 0] * 2, torch.randn(6, 5), dims=ROWS)
    assert costs.at({"rows": 100}).outputs == 4 * 500


def test_packed_heads_multiply_as_often_as_split_ones() -> None:
    def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        result: Tensor = torch.ops.strop.attention(q, k, v, None, 4, 2, 1.0, False)
        return result

    packed = (torch.ones(2, 5, 32), torch.ones(2, 7, 16), torch.ones(2, 7, 16))
    split = tuple(x.unflatten(2, (-1, 8)).transpose(1, 2) for x in packed)
    wanted = 2 * (2 * 4 * 5 * 7 * 8)
    assert cost_of(attend, *packed).multiply_adds == wanted
    assert cost_of(attend, *split).multiply_adds == wanted


ON_KERNELS: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], int]] = {
    "int8 rows": (
        lambda x, w, s: torch.ops.strop.linear_w8a8_rows(x, w, s, None),
        (torch.ones(3, 8), torch.ones(4, 8), torch.ones(4)),
        3 * 4 * 8,
    ),
    "few bits": (
        lambda x, w, s: torch.ops.strop.linear_nbits(x, w, s, None, None, 4),
        (torch.ones(3, 8), torch.ones(4, 8), torch.ones(4, 1)),
        3 * 4 * 8,
    ),
    "packed": (
        lambda x, w, s: torch.ops.strop.packed_linear(x, w, s, None, None, None, 4, "none"),
        (torch.ones(3, 8), torch.ones(4, 64, dtype=torch.uint8), torch.ones(4, 1)),
        3 * 4 * 8,
    ),
    "gated": (
        lambda x, a, b: torch.ops.strop.gated_linear(x, a, b, None, None, "silu"),
        (torch.ones(3, 8), torch.ones(4, 8), torch.ones(4, 8)),
        2 * 3 * 4 * 8,
    ),
}


@pytest.mark.parametrize("name", ON_KERNELS)
def test_operators_that_kernels_run_count_their_products(name: str) -> None:
    made, inputs, wanted = ON_KERNELS[name]
    assert cost_of(made, *inputs).multiply_adds == wanted


def test_bytes_moved_by_a_call_are_its_inputs_weights_and_result() -> None:
    model = costs_of(nn.Linear(5, 7), torch.ones(2, 5), dims=ROWS)
    assert model.moved({"rows": 3}) == {"linear": 4 * (3 * 5 + 7 * 5 + 7 + 3 * 7)}


def test_constants_and_views_move_nothing_and_lookups_read_only_their_rows() -> None:
    def look_up(places: Tensor, table: Tensor) -> Tensor:
        return F.embedding(places, table * 2).reshape(-1)

    program = program_of(look_up, torch.ones(3, dtype=torch.int64), table=torch.ones(1000, 4))
    assert CostModel(program).moved({}) == {"embedding": 3 * 8 + 2 * (3 * 4 * 4)}
