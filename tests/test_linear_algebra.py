"""Linear algebra: formulas held to torch in eager mode, and as loops in the runtime."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from test_lowering import Wrapped, lowered, session, x
from torch import Tensor

import strop.compiler.ir.dialect  # noqa: F401
from strop.compiler import Model, build
from strop.compiler.lower.onnx.formulas import FORMULAS
from strop.compiler.lower.onnx.formulas.repeat import repeat
from strop.compiler.lower.onnx.formulas.singular import right_vectors
from strop.compiler.util.errors import UnsupportedError

aten = torch.ops.aten
SQUARE = x(2, 5, 5).double()
POSITIVE = SQUARE @ SQUARE.mT + torch.eye(5, dtype=torch.float64)
RIGHT = x(2, 5, 3, seed=1).double()
WIDE, TALL = x(2, 3, 5).double(), x(2, 5, 3).double()
LU = torch.linalg.lu_factor(SQUARE)
TAU = x(2, 3, seed=2).double()
# Two of five singular values are 0.
LOW = TALL @ TALL.mT
# Without a diagonal, the first pivot is a block of two rows.
HOLLOW = SQUARE.tril(-1) + SQUARE.triu(1)
HALF = torch.tensor(0.5, dtype=torch.float64)
Function = Callable[..., Any]

# By operator, several calls each: positional arguments, then those by name.
CALLS: list[tuple[Any, tuple[Any, ...], dict[str, Any]]] = [
    *[(aten.linalg_lu_factor_ex.default, (a,), {}) for a in (SQUARE, WIDE, TALL)],
    *[(aten.linalg_lu.default, (a,), {}) for a in (SQUARE, WIDE, TALL)],
    *[(aten.lu_unpack.default, torch.linalg.lu_factor(a), {}) for a in (SQUARE, WIDE, TALL)],
    (aten.lu_unpack.default, LU, {"unpack_data": False}),
    *[
        (aten.linalg_lu_solve.default, (*LU, b), {"left": left, "adjoint": adjoint})
        for b, left in ((RIGHT, True), (RIGHT.mT, False))
        for adjoint in (True, False)
    ],
    (aten._linalg_solve_ex.default, (SQUARE, RIGHT), {}),
    (aten._linalg_solve_ex.default, (SQUARE, RIGHT[..., 0]), {}),
    (aten.linalg_inv_ex.default, (SQUARE,), {}),
    (aten._linalg_det.default, (SQUARE,), {}),
    (aten._linalg_slogdet.default, (SQUARE,), {}),
    *[(aten.linalg_cholesky_ex.default, (POSITIVE,), {"upper": u}) for u in (True, False)],
    # LAPACK's unfinished factor, where the third or the first pivot is not positive.
    (aten.linalg_cholesky_ex.default, (POSITIVE - 40 * torch.eye(5).tril(-2).mT.triu(2),), {}),
    (aten.linalg_cholesky_ex.default, (SQUARE,), {}),
    (aten.cholesky.default, (POSITIVE, True), {}),
    (aten.cholesky_solve.default, (RIGHT, torch.linalg.cholesky(POSITIVE)), {}),
    (aten.cholesky_solve.default, (RIGHT, torch.linalg.cholesky(POSITIVE).mT, True), {}),
    (aten.cholesky_inverse.default, (torch.linalg.cholesky(POSITIVE),), {}),
    *[
        (aten.linalg_solve_triangular.default, (a, b), {"upper": u, "left": left, **unit})
        for u, a in ((True, SQUARE.triu()), (False, SQUARE.tril()))
        for left, b in ((True, RIGHT), (False, RIGHT.mT))
        for unit in ({}, {"unitriangular": True})
    ],
    (aten.linalg_solve_triangular.default, (SQUARE.triu(), RIGHT[0]), {"upper": True}),
    (aten.linalg_solve_triangular.default, (SQUARE[0].triu(), RIGHT), {"upper": True}),
    (aten.linalg_solve_triangular.default, (SQUARE[:, :0, :0], RIGHT[0, :0]), {"upper": True}),
    (aten.triangular_solve.default, (RIGHT, SQUARE, False, True), {}),
    *[(aten.geqrf.default, (a,), {}) for a in (SQUARE, WIDE, TALL, torch.zeros(2, 3))],
    *[
        (aten.linalg_qr.default, (a, mode), {})
        for a in (SQUARE, WIDE, TALL)
        for mode in ("reduced", "complete", "r")
    ],
    *[(aten.linalg_householder_product.default, (a, TAU), {}) for a in (SQUARE, TALL)],
    *[
        (aten.ormqr.default, (TALL, TAU, c, left, transpose), {})
        for c, left in ((RIGHT, True), (RIGHT.mT, False))
        for transpose in (True, False)
    ],
    *[(aten.linalg_matrix_exp.default, (size * SQUARE,), {}) for size in (0, 0.01, 1, 50)],
    *[(aten._linalg_svd.default, (a, False, False), {}) for a in (SQUARE, WIDE, TALL)],
    *[(aten._linalg_eigh.default, (SQUARE, t, False), {}) for t in ("L", "U")],
    *[(aten.linalg_pinv.atol_rtol_tensor, (a,), {}) for a in (SQUARE, WIDE, TALL, LOW)],
    *[
        (aten.linalg_pinv.atol_rtol_tensor, (a,), {"hermitian": h, **limits})
        for a, h in ((TALL, False), (SQUARE, True), (LOW, True))
        for limits in (
            {"rtol": HALF}, {"atol": HALF}, {"atol": 0 * HALF}, {"atol": 3 * HALF, "rtol": HALF / 9}
        )
    ],
    *[(aten.linalg_ldl_factor_ex.default, (a,), {}) for a in (SQUARE, HOLLOW, x(3, 7, 7))],
    *[
        (aten.linalg_ldl_solve.default, (*torch.linalg.ldl_factor(a), RIGHT), {})
        for a in (SQUARE, HOLLOW)
    ],
    *[
        (aten.linalg_lstsq.default, (a, b, *limit), {"driver": driver})
        for driver, few, limit in (("gels", TALL, [0.4]), ("gelsy", LOW, []))
        for a, b in ((few, RIGHT), (few, RIGHT[..., 0]), (WIDE, WIDE), (SQUARE[0], RIGHT[0, :, 0]))
    ],
]  # fmt: skip

# Where only one result is a formula's: the values, without vectors.
VALUES = {aten._linalg_svd.default: 1, aten._linalg_eigh.default: 0}


@pytest.mark.parametrize("call", CALLS, ids=lambda c: str(c[0]))
def test_formulas_give_what_torch_gives(call: Any) -> None:
    target, args, kwargs = call
    found, want = FORMULAS[target](*args, **kwargs), target(*args, **kwargs)
    if target in VALUES:
        found, want = found[VALUES[target]], want[VALUES[target]]
    torch.testing.assert_close(found, want)


def test_the_exponential_of_very_large_matrices_is_not_a_number() -> None:
    found = FORMULAS[aten.linalg_matrix_exp.default](-(torch.tensor([[[2.0]], [[2.0]]]) ** 64))
    assert torch.equal(found, torch.zeros(2, 1, 1))
    assert FORMULAS[aten.linalg_matrix_exp.default](torch.tensor([[-(2.0**65)]])).isnan().all()


def test_a_zero_in_d_is_told() -> None:
    target = aten.linalg_ldl_factor_ex.default
    found, want = FORMULAS[target](torch.zeros(3, 3)), target(torch.zeros(3, 3))
    assert int(want[2]) > 0
    torch.testing.assert_close(found, want)


def test_a_pivot_of_zero_is_told() -> None:
    singular = torch.tensor([[1.0, 2.0, 3.0], [0.0, 0.0, 0.0], [0.0, 0.0, 2.0]])
    target = aten.linalg_lu_factor_ex.default
    found, want = FORMULAS[target](singular), target(singular)
    assert int(want[2]) == 2
    torch.testing.assert_close(found, want)


def spread(a: Tensor) -> Tensor:
    """Positive definite matrices from any."""
    return a @ a.mT + torch.eye(a.shape[-1], dtype=a.dtype)


IN_FILES: dict[str, Function] = {
    "solve": lambda a: torch.linalg.solve(a, a[..., :1] + 1),
    "solve from the right": lambda a: torch.linalg.solve(a, a[..., :1, :] + 1, left=False),
    "inv": torch.linalg.inv, "slogdet": torch.linalg.slogdet, "det": torch.linalg.det,
    "lu": torch.linalg.lu, "cholesky": lambda a: torch.linalg.cholesky(spread(a)),
    "cholesky_inverse": lambda a: torch.cholesky_inverse(torch.linalg.cholesky(spread(a))),
    "ldl": lambda a: torch.linalg.ldl_factor_ex(a),
    "ldl_solve": lambda a: torch.linalg.ldl_solve(*torch.linalg.ldl_factor(a), a),
    "qr": torch.linalg.qr, "matrix_exp": torch.linalg.matrix_exp,
}  # fmt: skip
FIXED: dict[str, Function] = {
    "svdvals": torch.linalg.svdvals, "svd": lambda a: torch.linalg.svd(a).S,
    "old svd": lambda a: torch.svd(a)[1], "cond": torch.linalg.cond, "pinv": torch.linalg.pinv,
    "rank": torch.linalg.matrix_rank, "eigvalsh": lambda a: torch.linalg.eigvalsh(a, "U"),
    "eigh": lambda a: torch.linalg.eigh(a)[0],
    "rank of symmetric": lambda a: torch.linalg.matrix_rank(a, hermitian=True),
    "pinv of symmetric": lambda a: torch.linalg.pinv(a, hermitian=True),
    "nuclear norm": lambda a: torch.linalg.matrix_norm(a, "nuc"),
}  # fmt: skip


def holds(function: Function, run: Any, *shapes: tuple[int, ...]) -> None:
    """Hold a file to torch on float64 matrices of several shapes."""
    for shape in shapes:
        values = x(*shape, seed=sum(shape)).double()
        found, want = run.run(None, {"a": values.numpy()}), function(values)
        wanted = want if isinstance(want, (tuple, list)) else [want]
        for a, b in zip(found, wanted, strict=True):
            torch.testing.assert_close(torch.from_numpy(a), b)


# An operator for each kind of loop; the others in the long run.
QUICK = {"solve", "cholesky", "ldl_solve", "qr", "svd", "pinv", "eigvalsh"}


def names(functions: dict[str, Function]) -> list[Any]:
    """Names of functions, as parameters of a test."""
    return [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in functions]


@pytest.mark.parametrize("name", names(IN_FILES))
def test_rows_and_batch_may_be_dynamic(name: str) -> None:
    axes = {"a": {0: "batch", 1: ("n", 1, 40), 2: ("n", 1, 40)}}
    run = session(lowered(IN_FILES[name], [x(3, 4, 4).double()], axes))
    holds(IN_FILES[name], run, (1, 1, 1), (2, 5, 5), (3, 17, 17))


@pytest.mark.parametrize("name", names(FIXED))
def test_batch_may_be_dynamic(name: str) -> None:
    run = session(lowered(FIXED[name], [x(3, 4, 4).double()], {"a": {0: "batch"}}))
    holds(FIXED[name], run, (1, 4, 4), (5, 4, 4))


@pytest.mark.parametrize(
    ("function", "dynamic"),
    [(torch.linalg.svdvals, (1, 2)), (torch.linalg.pinv, (1,)), (torch.linalg.pinv, (2,))],
)
def test_dynamic_rows_are_refused_by_name_where_vectors_are_turned_in_pairs(
    function: Function, dynamic: tuple[int, ...]
) -> None:
    axes = {"a": {axis: ("n", 2, 9) for axis in dynamic}}
    with pytest.raises(UnsupportedError, match="rows and columns are fixed") as caught:
        lowered(function, [x(3, 4, 4)], axes)
    assert caught.value.exit_code == 4


@pytest.mark.parametrize("function", [torch.linalg.svd, torch.svd, torch.linalg.eigh])
def test_vectors_whose_signs_are_free_are_refused_by_name(function: Function) -> None:
    with pytest.raises(UnsupportedError, match="the signs of its vectors are free"):
        lowered(lambda a: function(a)[0] @ function(a)[-1], [x(4, 4)], {})


@pytest.mark.parametrize("driver", [None, pytest.param("gels", marks=pytest.mark.slow)])
def test_least_squares_in_a_file(driver: str | None) -> None:
    def function(a: Tensor) -> Any:
        return torch.linalg.lstsq(a, a[..., :1] + 1, driver=driver)

    run = session(lowered(function, [x(2, 5, 3).double()], {"a": {0: "batch"}}))
    holds(function, run, (1, 5, 3), (4, 5, 3))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"driver": "gelsd"}, "driver 'gelsd' gives residuals only where"),
        ({"rcond": 0.1}, "driver 'gelsy' with its default rcond only"),
    ],
)
def test_least_squares_that_no_file_can_follow_are_refused_by_name(
    options: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(UnsupportedError, match=sentence):
        lowered(lambda a: torch.linalg.lstsq(a, a, **options)[0], [x(5, 3)], {})


@pytest.mark.parametrize("shape", [(2, 0, 3), (2, 3, 0), (0, 0)])
def test_factors_of_matrices_without_elements(shape: tuple[int, ...]) -> None:
    for function in (torch.linalg.svd, torch.svd, torch.linalg.pinv):
        holds(function, session(lowered(function, [x(*shape).double()], {})), shape)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["random", "graded", "Hilbert", "low rank", "equal"])
@pytest.mark.parametrize("n", [2, 3, 7, 16, 33, 64])
def test_the_sweeps_are_enough(n: int, kind: str) -> None:
    """Singular vectors are orthogonal to float64's last digits, however bad the matrix."""
    numbers = torch.arange(1, n + 1).double()
    hilbert = 1 / (numbers[:, None] + numbers - 1)
    random = x(8, n, n).double()
    matrices = {
        "random": random,
        "graded": random * 10 ** -(numbers * 12 / n),
        "Hilbert": hilbert,
        "low rank": random[..., : n // 2] @ random[..., : n // 2, :],
        "equal": torch.linalg.qr(random)[0],
    }
    tall = matrices[kind]
    vectors, lengths = right_vectors(tall)
    torch.testing.assert_close(vectors.mT @ vectors, torch.eye(n).double().expand_as(tall))
    want = torch.linalg.svdvals(tall)
    found = lengths.sort(-1, descending=True)[0]
    torch.testing.assert_close(found, want, rtol=1e-12, atol=float(want.max()) * 1e-14)
    columns = tall @ vectors
    products = columns.mT @ columns - torch.diag_embed(lengths**2)
    assert float(products.abs().max()) < 1e-13 * float(want.max()) ** 2


SMALLEST = ["inv", "slogdet", "cholesky", "lu", "qr", "matrix_exp", "ldl"]


@pytest.mark.parametrize("size", [0, 1])
@pytest.mark.parametrize(
    "name", ["inv", "slogdet", "cholesky", "lu", "det", "qr", "matrix_exp", "ldl"]
)
def test_the_smallest_matrices(name: str, size: int) -> None:
    run = session(lowered(IN_FILES[name], [x(2, size, size).double()], {}))
    holds(IN_FILES[name], run, (2, size, size))


@pytest.mark.parametrize("name", ["solve", "pinv"])
def test_a_loop_over_no_elements_is_left_out(name: str) -> None:
    functions: dict[str, tuple[Function, tuple[int, ...]]] = {
        "solve": (lambda a: torch.linalg.solve(a, a[:, :0]), (3, 3)),
        "pinv": (torch.linalg.pinv, (0, 4, 4)),
    }
    function, shape = functions[name]
    holds(function, session(lowered(function, [x(*shape).double()], {})), shape)


def test_a_file_stays_small() -> None:
    """The steps are a loop: their number does not count."""
    sizes = [len(list(lowered(IN_FILES["inv"], [x(n, n)], {}).graph.all_nodes())) for n in (5, 30)]
    assert sizes[0] == sizes[1] < 100


def added(k: Tensor, state: Sequence[Tensor], fixed: Sequence[Tensor]) -> list[Tensor]:
    """A step: the sum so far, and one more."""
    return [state[0] + k * fixed[0]]


def test_a_loop_that_nothing_reads_is_left_out_with_what_it_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def wasteful(a: Tensor) -> Tensor:
        repeat(added, 3, [a], [a.neg()])
        return repeat(added, 4, [a], [a.abs()])[0]

    monkeypatch.setitem(FORMULAS, aten.special_airy_ai.default, wasteful)
    model = lowered(torch.special.airy_ai, [x(4)], {})
    assert [n.op_type for n in model.graph] == ["Abs", "Squeeze", "Loop"]
    (found,) = session(model).run(None, {"a": x(4).numpy()})
    torch.testing.assert_close(torch.from_numpy(found), x(4) + 6 * x(4).abs())


@pytest.mark.parametrize(
    ("function", "bad", "sentence"),
    [
        (torch.linalg.inv, torch.zeros(3, 3), "where a matrix is singular"),
        (torch.linalg.cholesky, -torch.eye(3), "where a matrix is not positive definite"),
    ],
)
def test_where_torch_raises_the_file_gives_nan_and_the_build_says_so(
    function: Function, bad: Tensor, sentence: str, tmp_path: Path
) -> None:
    artifact = build(Model(Wrapped(function).eval(), {"a": spread(x(3, 3))}), tmp_path / "out")
    assert any(sentence in note for note in artifact.manifest["notes"])
    with pytest.raises(torch.linalg.LinAlgError):
        function(bad)
    run = session(lowered(function, [spread(x(3, 3))], {}))
    (found,) = run.run(None, {"a": bad.numpy()})
    assert not torch.from_numpy(found).isfinite().any()
