"""Pass ``complex`` in the IR: every operator in all its forms, and what it refuses, with why."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from complex_tools import Function, check, parts, real, split, w, z
from program_tools import assert_left_alone, program_of, same_numbers
from torch import Tensor

from strop.passes.legalize.complex import SplitComplex

SEED = torch.Generator().manual_seed(0)
X = torch.randn(2, 3, 8, generator=SEED)
CONSTANT = torch.randn(4, dtype=torch.complex64, generator=SEED)

NUMBERS: dict[str, Function] = {
    "product": lambda x: (z(x) * w(x), z(x) * real(x), real(x) * z(x), z(x) * CONSTANT),
    "product with a number": lambda x: (z(x) * 2, z(x) * (2 - 3j), (2 - 3j) * z(x), x * (2 - 3j)),
    "sum": lambda x: (z(x) + w(x), z(x) + real(x), real(x) + z(x), z(x) + CONSTANT),
    "sum with a number": lambda x: (z(x) + 2, z(x) + (2 - 3j), (2 - 3j) + z(x), x + (2 - 3j)),
    "difference": lambda x: (z(x) - w(x), z(x) - real(x), real(x) - z(x), z(x) - CONSTANT),
    "difference with a number": lambda x: (z(x) - 2, 2 - z(x), z(x) - (2 - 3j), (2 - 3j) - z(x)),
    "difference of a real and a number": lambda x: (x - (2 - 3j), (2 - 3j) - x),
    "sum with a factor": lambda x: [
        torch.add(a, b, alpha=3) for a, b in ((z(x), w(x)), (z(x), real(x)), (real(x), z(x)))
    ],
    "difference with a factor": lambda x: [
        torch.sub(a, b, alpha=3) for a, b in ((z(x), w(x)), (z(x), 2 - 3j), (real(x), z(x)))
    ],
    "quotient": lambda x: (z(x) / w(x), z(x) / real(x).exp(), real(x) / w(x), CONSTANT / w(x)),
    "quotient by a number": lambda x: (z(x) / 2, z(x) / (2 - 3j), x / (2 - 3j)),
    "quotient of a number": lambda x: (2 / w(x), (2 - 3j) / w(x), w(x).reciprocal()),
    "powers": lambda x: (z(x) ** 2, z(x).square(), w(x).sqrt(), w(x).log(), z(x).exp()),
    "size and angle": lambda x: (z(x).abs(), z(x).angle(), z(x).sgn(), (z(x) * 0).sgn()),
    "conjugates": lambda x: (z(x).conj() * w(x), z(x).conj_physical(), z(x).conj().resolve_conj()),
    "one part": lambda x: (z(x).real, w(x).imag, z(x)[:, 1:].real, z(x).mT.imag),
    "from parts": lambda x: (
        torch.polar(real(x), x[..., :4]),
        torch.complex(x[..., 1:], x[:, :1, 1:]),
    ),
    "casts": lambda x: (x.to(torch.complex64) * 1j, (z(x) + 0j).to(torch.complex64)),
    "copies": lambda x: (z(x).clone(), z(x).contiguous(), z(x).detach(), -z(x)),
    "matrices": lambda x: (
        z(x) @ w(x).mT,
        torch.mm(z(x)[0], w(x)[0].t()),
        torch.bmm(z(x), w(x).mT),
    ),
    "einsum": lambda x: torch.einsum("bij,bkj->bik", z(x), w(x)),
}

SHAPES: dict[str, Function] = {
    "one of an axis": lambda x: (z(x)[1], z(x)[:, -1], z(x)[..., 2], z(x).select(-2, 1)),
    "reshaped": lambda x: (
        z(x).reshape(6, -1),
        z(x).view(3, 2, 4),
        z(x).flatten(),
        z(x).flatten(0, -2),
    ),
    "flattened from the right": lambda x: (z(x).flatten(-2), z(x).flatten(0, 1)),
    "unflattened": lambda x: (z(x).unflatten(-1, (2, 2)), z(x).unflatten(1, (3, 1))),
    "expanded": lambda x: (
        z(x)[:, :1].expand(2, 3, 4),
        z(x).expand(3, 5, 2, 3, 4),
        z(x)[:1].expand(2, -1, -1),
    ),
    "repeated": lambda x: (z(x).repeat(1, 2, 3), z(x).repeat(2, 1, 1, 1)),
    "unsqueezed": lambda x: [z(x).unsqueeze(d) for d in (0, 1, 3, -1, -2, -4)],
    "squeezed": lambda x: (
        *(z(x)[:, :1].squeeze(d) for d in (1, -2)),
        *(z(x)[:1, :, :1].squeeze(d) for d in ((0, 2), (-1, 0))),
    ),
    "transposed": lambda x: (
        z(x).transpose(0, -1),
        z(x).transpose(-2, -3),
        z(x).mT,
        z(x)[0].t(),
        z(x)[0, 0].t(),
    ),
    "with axes reversed": lambda x: torch.ops.aten.numpy_T(z(x)),
    "conjugated and transposed": lambda x: (z(x).mH @ w(x), z(x).adjoint() @ w(x), w(x) @ z(x).mH),
    "permuted": lambda x: (z(x).permute(2, 0, 1), z(x).permute(-1, 1, 0)),
    "moved": lambda x: (z(x).movedim(0, -1), z(x).movedim(-1, 1)),
    "cut": lambda x: (
        z(x)[:, 1:],
        z(x)[1:],
        z(x)[..., ::2],
        z(x).narrow(-1, 1, 2),
        z(x).narrow(0, 1, 1),
    ),
    "looked up": lambda x: (
        z(x)[torch.tensor([1, 0, 1])],
        z(x)[:, torch.tensor([2, 0])],
        z(x).index_select(-1, torch.tensor([3, 1])),
    ),
    "split": lambda x: (
        *z(x).split(2, -1),
        *z(x).split([1, 2], 1),
        *z(x).split(1),
        *z(x).chunk(2, -1),
    ),
    "taken apart": lambda x: (*z(x).unbind(-1), *z(x).unbind(1), *z(x).unbind()),
    "joined": lambda x: (
        torch.cat((z(x), w(x)), -1),
        torch.cat((z(x), w(x))),
        torch.cat((z(x), w(x)), 1),
    ),
    "joined with reals": lambda x: torch.cat(
        (z(x), torch.zeros_like(z(x)), CONSTANT.expand(2, 3, 4)), 1
    ),
    "stacked": lambda x: [torch.stack((z(x), w(x)), d) for d in (0, 1, 3, -1, -2)],
    "turned round": lambda x: (
        z(x).flip(-1),
        z(x).flip(0, 2),
        z(x).roll(1, -1),
        z(x).roll((1, 2), (0, -1)),
    ),
    "shifted": lambda x: (
        *(torch.fft.fftshift(z(x), d) for d in (None, -1, (0, 1))),
        *(torch.fft.ifftshift(z(x), d) for d in (None, 1)),
    ),
    "padded": lambda x: (F.pad(z(x), (1, 2)), F.pad(z(x), (0, 1, 2, 0)), F.pad(z(x), (-1, 1))),
    "chosen": lambda x: (
        torch.where(x[..., :4] > 0, z(x), w(x)),
        torch.where(x[:, :1, :4] > 0, z(x), real(x)),
    ),
    "filled": lambda x: (
        z(x).masked_fill(x[..., :4] > 0, 2),
        z(x).masked_fill(x[0, :, :4] > 0, 2 - 3j),
    ),
    "summed": lambda x: (
        z(x).sum(),
        z(x).sum(1),
        z(x).sum((0, -1)),
        z(x).sum(-1, keepdim=True),
        z(x).sum(()),
    ),
    "averaged": lambda x: (z(x).mean(), z(x).mean(-1), z(x).mean((0, 1), keepdim=True)),
    "summed up": lambda x: (z(x).cumsum(-1), z(x).cumsum(0)),
}


@pytest.mark.parametrize("name", NUMBERS | SHAPES)
def test_operators_on_pairs_give_the_same_numbers(name: str) -> None:
    check((NUMBERS | SHAPES)[name], X)


@pytest.mark.parametrize("size", [1e25, 1e-25])
def test_a_quotient_by_very_large_or_small_numbers_is_finite(size: float) -> None:
    before, after = split(lambda x, y: z(x) / z(y), X, X)
    (got,) = after.run(input_0=X * size, input_1=X.flip(0) * size)
    (want,) = before.run(input_0=X, input_1=X.flip(0))
    torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5)


def test_doubles_stay_doubles() -> None:
    wide = X.double()
    check(
        lambda x: (z(x) * 2j, torch.fft.fft(x), z(x.float()).to(torch.complex128)),
        wide,
        tolerance=1e-12,
    )


def test_complex_numbers_as_reals_lose_their_imaginary_part() -> None:
    check(lambda x: (z(x).to(torch.float32), z(x).to(torch.float64)), X)


def test_a_complex_weight_is_kept_as_pairs_that_can_still_be_trained() -> None:
    weight = torch.randn(4, dtype=torch.complex64)
    before = program_of(lambda x, w: parts(z(x) * w), X, w=weight)
    after = SplitComplex().run(before).program
    same_numbers(before, after, X, tolerance=1e-5)
    (name,) = after.weights
    assert after.weights[name].shape == (4, 2) and name in after.parameters
    kept = SplitComplex().run(program_of(lambda x: parts(z(x) * CONSTANT), X)).program
    assert not kept.parameters


def test_sizes_of_complex_values_are_read_off_their_pairs() -> None:
    def model(x: Tensor) -> Tensor:
        rows = z(x)[x[..., 0] > 0]
        return rows * rows.shape[0]

    before, after = split(model, X)
    same_numbers(before, after, X.flip(0, 1), tolerance=1e-5)


REFUSED: dict[str, Function] = {
    "its alpha is complex": lambda x: torch.add(z(x), z(x), alpha=2j),
    "the power 3 of complex": lambda x: z(x) ** 3,
    "the power -1 of complex": lambda x: z(x) ** -1,
    "another number of operands than two": lambda x: torch.einsum("bij->bji", z(x)),
    "another number of operands than two, but three": lambda x: torch.einsum(
        "bij,bij,bij->bi", z(x), z(x), z(x)
    ),
    "roll of complex numbers over all axes": lambda x: z(x).roll(1),
    "something other than zeros": lambda x: F.pad(z(x), (1, 0), value=1.0),
    "something other than zeros, but a mirror image": lambda x: F.pad(z(x), (1, 0), mode="reflect"),
    "something other than zeros, but a complex number": lambda x: torch.constant_pad_nd(
        z(x), (1, 0), 1j
    ),
    "complex zeros like a real tensor": lambda x: torch.zeros_like(x, dtype=torch.complex64),
    "no form on pairs": lambda x: z(x).tanh(),
    "transform of 4097 points (at most 4096)": lambda x: torch.fft.fft(x, n=4097),
    "of complex signals, or with all": lambda x: torch.stft(
        z(x)[0], 4, window=torch.ones(4), return_complex=True, center=False
    ),
    "of complex signals, or with all frequencies": lambda x: torch.stft(
        x[0], 4, window=torch.ones(4), return_complex=True, center=False, onesided=False
    ),
    "an inverse short-time transform to complex signals": lambda x: torch.istft(
        z(x)[..., :2].mT, 2, 1, window=torch.ones(2), return_complex=True
    ),
    "an inverse short-time transform to complex signals, or of all frequencies": lambda x: (
        torch.istft(z(x).mT, 4, window=torch.ones(4))
    ),
}


@pytest.mark.parametrize("reason", REFUSED)
def test_what_has_no_form_on_pairs_stays_and_says_why(reason: str) -> None:
    program = program_of(lambda x: parts(REFUSED[reason](x)), X)
    assert_left_alone(SplitComplex(), program, reason.partition(", but")[0])


def test_a_refusal_leaves_no_trace() -> None:
    before = program_of(lambda x: parts((z(x) * CONSTANT).tanh()), X)
    after = SplitComplex().run(before).program
    assert str(after) == str(before) and list(after.weights) == list(before.weights)


def test_a_program_of_reals_is_no_miss() -> None:
    result = SplitComplex().run(program_of(lambda x: x.exp(), X))
    assert not result.modified and not result.log.misses


def test_the_longest_transform_is_made() -> None:
    program = program_of(lambda x: parts(torch.fft.fft(x, n=4096)[..., :2]), X[0, :1])
    assert SplitComplex().run(program).modified
