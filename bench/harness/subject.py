"""The original model of an artifact: its source, its inputs at given sizes, and its outputs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from strop.compiler.util.numerics import Array

if TYPE_CHECKING:
    import torch

    from strop.compiler.frontend.inputs import Signature
    from strop.compiler.ir.running import Inputs

Feeds = Mapping[str, Array]
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Original:
    """A model as it is measured: bfloat16 becomes float32, as in artifacts; all else is unchanged.

    Attributes:
        module: in eval mode.
        signature: how it is called.
        example: its example inputs.
        calibration: the inputs to calibrate on; the example where the user gives none.
    """

    module: torch.nn.Module
    signature: Signature
    example: Inputs
    calibration: list[Inputs]

    def at(self, sizes: Sizes) -> Inputs:
        """Inputs at the given sizes, cropped or repeated from the largest that there are."""
        from strop.compiler.frontend.inputs import resize

        largest = max(
            [self.example, *self.calibration], key=lambda i: sum(t.numel() for t in i.values())
        )
        return resize(largest, self.signature, sizes)

    def sizes(self) -> dict[str, int]:
        """The example's own sizes, by dim."""
        return self.signature.sizes(self.example)


def load_original(source: str, program: str = "") -> Original:
    """Make the model that a source names; where that makes several programs, one of them.

    Raises:
        UsageError: the source or the model is wrong.
    """
    from strop.compiler.frontend.inputs import read_inputs
    from strop.compiler.frontend.source import load_model

    model = load_model(source, program)
    signature, example, calibration = read_inputs(model)
    given = [
        {n: _without_bfloat16(t) for n, t in inputs.items()} for inputs in (example, *calibration)
    ]
    module = model.module._apply(_without_bfloat16)
    return Original(module, signature, given[0], given[1:] or given[:1])


def _without_bfloat16(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor in a dtype that NumPy has, too."""
    import torch

    return tensor.float() if tensor.dtype == torch.bfloat16 else tensor


@dataclass(frozen=True)
class Reference:
    """Inputs at given sizes, and the original's outputs for them.

    Attributes:
        sizes: by dim.
        feeds: the inputs, by name.
        outputs: what the original gives for them, by name; None where there is no original.
    """

    sizes: dict[str, int]
    feeds: dict[str, Array]
    outputs: dict[str, Array] | None


def references(source: str, wanted: Sequence[Sizes], program: str = "") -> list[Reference]:
    """Inputs and eager outputs at each of the sizes; at the example's own if none are given."""
    from strop.compiler.frontend.original import run_original

    original = load_original(source, program)
    found = []
    for given in wanted or [{}]:
        sizes = original.sizes() | dict(given)
        inputs = original.at(sizes)
        outputs = run_original(original.module, original.signature, inputs)
        found.append(
            Reference(
                sizes,
                {n: t.numpy() for n, t in inputs.items()},
                {n: t.numpy() for n, t in outputs.items()},
            )
        )
    return found


def made_up(contract: Mapping[str, Any], wanted: Sequence[Sizes]) -> list[Reference]:
    """Inputs for an artifact whose original is not known: normal floats, and ones elsewhere."""
    from strop.compiler.debug import feeds

    made = [feeds.made_up(contract, given) for given in wanted or [{}]]
    return [Reference(m.sizes, m.arrays, None) for m in made]
