"""Random models by NNSmith (doi:10.1145/3575693.3575707), and inputs for them.

NNSmith draws operators, types and shapes that fit together by a constraint solver. It is the extra
``fuzz``: ``pip install -e '.[fuzz]'``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from strop.bench.sweeps.operators.differences import TOLERANCES
from strop.bench.sweeps.operators.samples import Sample, seed

# NNSmith's own defaults (config/main.yaml).
OPERATORS, ELEMENTS, MILLISECONDS = 5, 2**16, 10_000


class Graph(nn.Module):
    """The operators that NNSmith drew, called one after another.

    Its own module looks for NaN in the inputs at every call, which ``torch.export`` cannot follow.
    """

    def __init__(self, drawn: Any) -> None:
        super().__init__()
        self.parts = drawn.mlist
        self.steps = [
            (call, list(takes), list(gives)) for call, takes, gives, _ in drawn.instructions
        ]
        self.takes, self.gives = list(drawn.input_map), list(drawn.output_map)

    def forward(self, *values: Tensor) -> tuple[Tensor, ...]:
        """The graph's leaves."""
        known = dict(zip(self.takes, values))
        for call, takes, gives in self.steps:
            made = call(*(known[name] for name in takes))
            known.update(zip(gives, made if isinstance(made, (list, tuple)) else [made]))
        return tuple(known[name] for name in self.gives)


def operators() -> list[Any]:
    """NNSmith's operators for torch, each narrowed to the types that torch takes; none complex.

    Without complex numbers, as in NNSmith's models for ONNX: no runtime has kernels for them.
    """
    from nnsmith.abstract.dtype import DTYPE_GEN_COMPLEX
    from nnsmith.error import InternalError
    from nnsmith.materialize.torch import TorchModelCPU
    from nnsmith.narrow_spec import infer_topset_from_scratch

    found = []
    for kind in TorchModelCPU.operators():
        try:
            known = infer_topset_from_scratch(TorchModelCPU, None, [kind]).get(kind.name())
        except InternalError:  # its solver drew an example that NNSmith itself does not take
            continue
        if known is None or kind.limit_domain:
            continue
        real = [
            [types for types in of if not set(types) & set(DTYPE_GEN_COMPLEX)]
            for of in (known.in_dtypes, known.out_dtypes)
        ]
        if all(real):
            kind.in_dtypes, kind.out_dtypes = real
            found.append(kind)
    return found


def draw(kinds: list[Any], number: int) -> Sample:
    """The graph of a seed, with inputs that NNSmith found to give finite numbers if it could.

    NNSmith seeds what it draws the operators with, and neither the weights nor the inputs.
    """
    from nnsmith.graph_gen import model_gen
    from nnsmith.materialize.torch import TorchModelCPU

    seed(number)
    drawn = model_gen(
        kinds, seed=number, method="symbolic-cinit", max_nodes=OPERATORS,
        max_elem_per_tensor=ELEMENTS, timeout_ms=MILLISECONDS,
    )  # fmt: skip
    model = TorchModelCPU.from_gir(drawn.make_concrete())
    model.refine_weights()
    values = model.make_oracle().input
    net = model.native_model.eval()
    inputs = tuple(torch.from_numpy(values[name]) for name in net.input_map)
    dtypes = {v.dtype.torch() for v in net.ir.vars.values()}
    coarsest = max(dtypes & set(TOLERANCES), key=lambda d: TOLERANCES[d], default=torch.float32)
    return Sample("graph", number, coarsest, Graph(net).eval(), inputs, ())
