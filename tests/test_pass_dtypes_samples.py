"""Pass ``dtypes`` over torch's own samples of its operators: the same integers in every type."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from program_tools import program_of
from torch import Tensor, nn
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as pytree

from strop.compiler.ir.stale import verify_types
from strop.compiler.util.errors import StropError
from strop.passes.legalize.dtypes import LegalizeDtypes

# One operator of several steps, of which an earlier one wraps: the check refuses such a build.
WRAP_INSIDE = ("margin_ranking_loss", "triplet_margin")

pytestmark = pytest.mark.slow
DTYPES = (torch.uint8, torch.int8, torch.int16)
SAMPLES = 2
# Their results are random, or memory that nobody wrote, or read beyond a tensor's own elements.
UNCERTAIN = (
    "as_strided", "bernoulli", "cauchy", "dropout", "empty", "exponential", "geometric",
    "log_normal", "multinomial", "normal", "rand", "rrelu", "svd_lowrank", "pca_lowrank", "uniform",
)  # fmt: skip


class Sampled(nn.Module):
    """Calls an operator on a sample whose tensors are inputs."""

    def __init__(self, op: Any, sample: Any) -> None:
        super().__init__()
        self.op = op.op
        leaves, self.structure = pytree.tree_flatten((sample.input, sample.args, sample.kwargs))
        self.places = [i for i, v in enumerate(leaves) if isinstance(v, Tensor)]
        self.leaves = [None if i in self.places else v for i, v in enumerate(leaves)]
        self.tensors = [leaves[i] for i in self.places]

    def forward(self, *tensors: Tensor) -> Any:
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors):
            leaves[place] = tensor
        first, args, kwargs = pytree.tree_unflatten(leaves, self.structure)
        result = self.op(first, *args, **kwargs)
        return [r for r in pytree.tree_leaves(result) if isinstance(r, Tensor)]


def samples(op: Any, dtype: torch.dtype) -> list[Any]:
    if dtype not in op.supported_dtypes("cpu") or any(
        word in op.name for word in (*UNCERTAIN, *WRAP_INSIDE)
    ):
        return []
    made = op.sample_inputs("cpu", dtype, requires_grad=False)
    return [sample for _, sample in zip(range(SAMPLES), made)]


def _is_odd(tensor: Tensor) -> bool:
    return tensor.layout != torch.strided or tensor.is_complex()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("op", op_db, ids=lambda op: op.formatted_name)
def test_an_operator_gives_the_same_numbers(op: Any, dtype: torch.dtype) -> None:
    found = samples(op, dtype)
    if not found:
        pytest.skip("the operator takes no such type, is uncertain, or wraps inside")
    for sample in found:
        module = Sampled(op, sample)
        if not module.tensors or any(_is_odd(t) for t in module.tensors):
            pytest.skip("no dense real tensor goes in")
        try:
            program = program_of(module, *module.tensors)
        except StropError as error:
            pytest.skip(f"not captured: {str(error).splitlines()[0]}")
        after = LegalizeDtypes().run(program).program
        verify_types(after)
        feeds = {f"input_{i}": t for i, t in enumerate(module.tensors)}
        with torch.no_grad():
            for got, want in zip(after.run(**feeds), program.run(**feeds), strict=True):
                # What integers give as floats is off by the rounding of float32.
                torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-5, equal_nan=True)
