"""The kernels on packed weights against ``strop::linear_nbits`` in float64."""

from __future__ import annotations

from dataclasses import dataclass, replace

import pytest
import torch
from kernel_cases import close, device, float_dtypes, guarded, random, strided
from matrix_cases import activated, only
from torch import Tensor

import strop.kernels.gemm_packed as gemm_packed_module
import strop.kernels.gemv_packed as gemv_packed_module
from strop.compiler.ir import dialect  # noqa: F401
from strop.kernels.activation import NAMES
from strop.kernels.examples import tensor
from strop.kernels.gemm_packed import GEMM_PACKED, gemm_packed
from strop.kernels.gemv_packed import GEMV_PACKED, splits
from strop.kernels.kernel import Launch
from strop.kernels.launching import Choice, recording
from strop.kernels.packing import pack, packed_bytes, why_not

strop = torch.ops.strop
# Both kernels: up to 16 rows, and more; they share how numbers are unpacked and scaled.
BOTH = [3, pytest.param(17, marks=pytest.mark.slow)]


@dataclass(frozen=True)
class Case:
    """A layer: x [rows, depth], numbers [columns, depth], scale and zero [columns, groups]."""

    x: Tensor
    numbers: Tensor
    scale: Tensor
    zero: Tensor | None
    bits: int

    def run(
        self,
        bias: Tensor | None = None,
        residual: Tensor | None = None,
        activation: str = "none",
    ) -> Tensor:
        """What the kernels give."""
        weight = pack(self.numbers, self.bits)
        return gemm_packed(
            self.x, weight, self.scale, self.zero, bias, residual, self.bits, activation
        )

    def weight(self) -> Tensor:
        """(number - zero) * scale in float64."""
        zero = 1 << (self.bits - 1) if self.zero is None else self.zero.int()[:, :, None]
        grouped = self.numbers.unflatten(1, (self.scale.shape[1], -1)).double()
        return ((grouped - zero) * self.scale.double()[:, :, None]).flatten(1)

    def reference(self) -> Tensor:
        """What the trainable layer gives in float64 on this weight, which lies on its grid."""
        zero = None if self.zero is None else self.zero.int()
        scale = self.scale.double()
        wanted: Tensor = strop.linear_nbits(
            self.x.double(), self.weight(), scale, zero, None, self.bits
        )
        return wanted


def case(
    rows: int,
    columns: int,
    depth: int,
    *,
    group: int = 32,
    bits: int = 4,
    symmetric: bool = True,
    dtype: torch.dtype = torch.float16,
    scales: torch.dtype = torch.float16,
) -> Case:
    """Random numbers over their whole range; group 0 is one for each row."""
    groups = depth // group if group else 1
    random_numbers = torch.Generator().manual_seed(columns)
    numbers = torch.randint(2**bits, (columns, depth), generator=random_numbers)
    zero = torch.randint(2**bits, (columns, groups), generator=random_numbers)
    scale = 0.01 + random(columns, groups, seed=1).abs()
    return Case(
        random(rows, depth, dtype=dtype),
        numbers.to(torch.uint8).to(device()),
        scale.to(scales),
        None if symmetric else zero.to(torch.uint8).to(device()),
        bits,
    )


# It computes with 16-bit floats, so bfloat16 needs a GPU.
@pytest.mark.parametrize("dtype", float_dtypes()[1:], ids=str)
@pytest.mark.parametrize("symmetric", [True, False], ids=["symmetric", "asymmetric"])
@pytest.mark.parametrize("group", [0, 32, 64, 96, 128, 192, 384])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", BOTH)
def test_numbers_are_scaled_by_their_group(
    rows: int, bits: int, group: int, symmetric: bool, dtype: torch.dtype
) -> None:
    made = case(rows, 5, 384, group=group, bits=bits, symmetric=symmetric, dtype=dtype)
    close(made.run(), made.reference())


@pytest.mark.parametrize("columns", [1, 5, 123])
@pytest.mark.parametrize("rows", [1, 2, 5, 16, 17, pytest.param(123, marks=pytest.mark.slow)])
def test_rows_and_columns_need_not_fill_tiles(
    rows: int, columns: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case(rows, columns, 64, symmetric=False)
    with guarded(monkeypatch):
        found = made.run()
    close(found, made.reference())


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("rows", [2, 18])
@pytest.mark.parametrize(
    ("depth", "group"), [(32, 32), (96, 32), (160, 32), (192, 64), (123, 0), (1, 0)]
)
def test_the_depth_need_not_fill_blocks(depth: int, group: int, rows: int, bits: int) -> None:
    """Behind the last number and behind the last scale lie NaN, which must not be read."""
    made = case(rows, 5, depth, group=group, bits=bits, symmetric=False)
    odd = replace(made, x=strided(made.x), scale=strided(made.scale))
    close(odd.run(), made.reference())


@pytest.mark.parametrize("rows", [2, 17])
def test_rows_may_lie_apart(rows: int) -> None:
    made = case(rows, 5, 128, symmetric=False)
    assert made.zero is not None
    far = replace(
        made, x=strided(made.x, 8), scale=strided(made.scale), zero=made.zero.repeat(1, 2)[:, :4]
    )
    residual = random(rows, 5, dtype=torch.float16, seed=3)
    weight = pack(made.numbers, 4).repeat(1, 2)[:, :64]
    found = gemm_packed(far.x, weight, far.scale, far.zero, None, strided(residual), 4, "none")
    close(found, made.reference() + residual.double())


@pytest.mark.parametrize(("rows", "depth"), [(3, 128), (17, 128)])
@pytest.mark.parametrize("activation", NAMES)
def test_bias_activation_and_residual_come_behind_the_sums(
    activation: str, rows: int, depth: int
) -> None:
    made = case(rows, 5, depth)
    bias = random(5, seed=2)
    residual = random(rows, 5, dtype=torch.float16, seed=3)
    found = made.run(bias, residual, activation)
    sums = made.reference() + bias.double()
    close(found, activated(sums, activation) + residual.double())


@pytest.mark.parametrize(
    ("rows", "bits", "depth"), [(1, 4, 8192), (9, 8, 4096), (16, 4, 3 * 4096 + 160)]
)
def test_parts_of_the_depth_are_added_up(
    rows: int, bits: int, depth: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = case(rows, 5, depth, bits=bits, symmetric=False)
    bias, residual = random(5, seed=2), random(rows, 5, seed=3)
    assert splits(5, depth, bits) > 1
    with guarded(monkeypatch):
        found = made.run(bias, residual, "silu")
    close(found, activated(made.reference() + bias.double(), "silu") + residual.double())


@pytest.mark.parametrize("index", range(len(GEMM_PACKED.configurations())))
def test_every_tile_of_many_rows(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    one = only(GEMM_PACKED, GEMM_PACKED.configurations()[index])
    monkeypatch.setattr(gemm_packed_module, "GEMM_PACKED", one)
    made = case(131, 33, 160, symmetric=False)
    close(made.run(), made.reference())


@pytest.mark.parametrize("index", range(len(GEMV_PACKED.configurations())))
def test_every_tile_of_few_rows(index: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tile may have fewer rows than x: then more programs compute the others."""
    one = only(GEMV_PACKED, GEMV_PACKED.configurations()[index])
    monkeypatch.setattr(gemv_packed_module, "GEMV_PACKED", one)
    made = case(11, 33, 160, symmetric=False)
    close(made.run(), made.reference())


@pytest.mark.parametrize(("rows", "depth"), [(2, 8192), (20, 256)])
def test_the_same_inputs_give_the_same_bits(rows: int, depth: int) -> None:
    made = case(rows, 5, depth)
    first = made.run()
    assert all(torch.equal(made.run(), first) for _ in range(2))


@pytest.mark.parametrize("rows", [1, 17])
@pytest.mark.parametrize("scales", [torch.float16, torch.float32])
def test_scales_of_any_size(rows: int, scales: torch.dtype) -> None:
    """0, the least number, a negative one, and one with which a weight is beyond float16."""
    made = case(rows, 5, 64, bits=8, scales=scales)
    extreme = made.scale.clone()
    extreme[0], extreme[1], extreme[2] = 0.0, torch.finfo(scales).tiny, -1.0
    extreme[3] = 30000.0 if scales == torch.float16 else 1e5
    small = replace(made, x=made.x * 2**-13, scale=extreme)
    found, wanted = small.run().double(), small.x.double() @ small.weight().T
    error = (found - wanted).abs().amax(0)
    assert (error <= 1e-3 * wanted.abs().amax(0) + 6e-8).all()
    assert not found[:, 0].any() and found[:, 3].abs().max() > 100


@pytest.mark.parametrize("rows", [1, 17])
def test_weights_beyond_float16_are_exact_in_their_product(rows: int) -> None:
    made = case(rows, 3, 64, bits=8)
    huge = replace(made, x=made.x * 2**-14, scale=torch.full_like(made.scale, 32768.0))
    plain = replace(made, scale=torch.ones_like(made.scale) * 2.0)
    close(huge.run(), plain.reference(), 2e-3)


def test_extreme_activations_are_multiplied_exactly() -> None:
    made = case(4, 3, 64)
    made.x[0], made.x[1, 0], made.x[2] = 0.0, 60000.0, 6e-8
    small = replace(made, scale=made.scale * 1e-3)
    found, wanted = small.run(), small.reference()
    assert not found[0].any()
    for row in (1, 3):
        close(found[row], wanted[row])
    assert torch.allclose(found[2].double(), wanted[2], atol=6e-8)


@pytest.mark.parametrize("rows", [0, 1, 17])
def test_no_rows_and_no_columns(rows: int) -> None:
    assert case(rows, 0, 32).run().shape == (rows, 0)
    assert case(0, 5, 1024).run().shape == (0, 5)


def test_what_kernels_do_not_take_is_refused() -> None:
    made = case(2, 4, 48, group=0)
    with pytest.raises(TypeError, match="float16 or bfloat16, but x is torch.float32"):
        replace(made, x=made.x.float()).run()
    with pytest.raises(ValueError, match="a group of 24 numbers is no multiple of 32"):
        replace(made, scale=made.scale.repeat(1, 2)).run()
    with pytest.raises(ValueError, match="48 numbers cannot be cut into 5 groups"):
        replace(made, scale=made.scale.repeat(1, 5)).run()
    with pytest.raises(ValueError, match=r"shape \[4, 64\] is needed, not \[4, 24\]"):
        gemm_packed(made.x, made.numbers[:, :24], made.scale, None, None, None, 4, "none")
    with pytest.raises(ValueError, match="no activation 'swish'"):
        made.run(activation="swish")
    assert why_not(64, 1, 3) == "packed weights have 4 or 8 bits, not 3"
    assert why_not(0, 1, 4) == "a weight without numbers has nothing to pack"
    assert why_not(64, 0, 4) == "64 numbers cannot be cut into 0 groups of equal length"
    assert why_not(4096, 32, 4) is None


def moved(rows: int, columns: int, depth: int, bits: int) -> tuple[int, int]:
    """The bytes that the launches for few rows move, and those that any kernel has to."""
    weight = tensor(columns, packed_bytes(depth, bits), dtype=torch.uint8)
    x, scale = tensor(rows, depth), tensor(columns, depth // 128)
    with recording() as recorded:
        y = gemm_packed(x, weight, scale, None, None, None, bits, "none")
    (choice,) = recorded
    assert isinstance(choice, Choice)
    total = 0
    for made in choice.then:
        assert isinstance(made, Launch)
        tensors = {k: v.itemsize for k, v in made.arguments.items() if isinstance(v, Tensor)}
        total += made.kernel.cost(made.sizes(), tensors).bytes
    return total, sum(t.numel() * t.itemsize for t in (x, weight, scale, y))


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize(
    ("columns", "depth"),
    [(4096, 4096), (1024, 4096), (14336, 4096), (4096, 14336), (128256, 4096), (5120, 13824)],
)
def test_one_row_moves_hardly_more_bytes_than_any_kernel_must(
    columns: int, depth: int, bits: int
) -> None:
    total, least = moved(1, columns, depth, bits)
    assert least <= total <= least / 0.95


def test_the_depth_is_split_where_multiprocessors_would_wait() -> None:
    assert splits(4096, 4096, 4) == splits(1024, 4096, 4) == splits(384, 1536, 8) == 1
    assert splits(1024, 14336, 4) == splits(2048, 4096, 8) == 2
    assert splits(1024, 16384, 4) == 4
    assert splits(32, 128 * 32 * 500, 4) == 128
    assert splits(0, 4096, 4) == 1
