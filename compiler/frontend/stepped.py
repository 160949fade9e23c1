"""The user's modules as a decoder, with its encoder where there is one: the reference for texts."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from strop.compiler.frontend.generation import Generation
from strop.compiler.frontend.inputs import input_names, read_inputs
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.original import run_original
from strop.compiler.frontend.programs import Programs
from strop.compiler.generate.prepared import ENCODER_MASK, Arrays, Encoder, roles
from strop.compiler.targets.decoding import FedDecoder, Start, names_of
from strop.compiler.util.arrays import to_array
from strop.compiler.util.errors import UsageError
from strop.compiler.util.numerics import Array


class Module:
    """A module that is called with arrays.

    Attributes:
        parameters: how many there are.
        data: the calibration inputs; the example where there are none.
    """

    def __init__(self, model: Model) -> None:
        self._module = model.module
        self._signature, self.example, self.calibration = read_inputs(model)
        self.data = self.calibration or [self.example]
        self.parameters = sum(weight.numel() for weight in model.module.parameters())

    def run(self, feeds: Arrays) -> dict[str, Array]:
        """One call; arrays become tensors of the example's dtypes.

        Raises:
            UsageError: the module fails.
        """
        given = {n: torch.as_tensor(feeds[n]).to(t.dtype) for n, t in self.example.items()}
        try:
            found = run_original(self._module, self._signature, given)
        except Exception as error:  # the user's module may raise anything
            shapes = ", ".join(f"{name} {list(tensor.shape)}" for name, tensor in given.items())
            raise UsageError(
                f"the module fails when it generates ({shapes}): {type(error).__name__}: {error}"
            ) from error
        return {name: to_array(tensor) for name, tensor in found.items()}

    def takes(self, sizes: Mapping[tuple[str, int], int]) -> bool:
        """Whether axes of inputs may have sizes: by name and number of the axis."""
        return all(self._may_be(name, axis, size) for (name, axis), size in sizes.items())

    def _may_be(self, name: str, axis: int, size: int) -> bool:
        extent = self._signature.axes.get(name, {}).get(axis)
        if extent is None:
            return int(self.example[name].shape[axis]) == size
        if len(extent) > 1:
            return size <= self._signature.sums.get(extent, size)
        dim = self._signature.dims[extent[0]]
        return dim.min <= size and (dim.max is None or size <= dim.max)


class Original:
    """The user's modules as a decoder, with its encoder where there is one."""

    def __init__(self, programs: Programs, called: Generation) -> None:
        """Read how the modules are called.

        Raises:
            UsageError: not as ``called`` says.
        """
        models = programs.models
        decoder, encoder = roles(called, {name: input_names(m) for name, m in models.items()})
        self.called, self.decoding = called, Module(models[decoder])
        self.encoding = None if encoder is None else Module(models[encoder])
        self._require_inputs()
        example = self.decoding.example
        self.empty = {name: to_array(example[name][:1, :, :0]) for name in called.caches}

    def _require_inputs(self) -> None:
        called, given = self.called, self.decoding.example
        known = {called.ids, called.mask, *called.caches, *called.cross, ENCODER_MASK}
        for name in (called.ids, *given):
            if name not in given or name not in known:
                raise UsageError(
                    f"the decoder has the inputs {', '.join(given)}, and its Generation names "
                    f"{', '.join(sorted(known))}: '{name}' is not in both"
                )

    def room(self, rows: int, prompt: int, most: int) -> int:
        """How many tokens behind prompts of these sizes the dims allow, at most ``most``."""
        called, new = self.called, 0
        for past in (0, *range(prompt, prompt + most - 1)):
            seq = 1 if past else prompt
            sizes = {(called.ids, 0): rows, (called.ids, 1): seq, (called.mask, 1): past + seq}
            caches = {(name, 2): past for name in called.caches}
            if past + seq > called.context or not self.decoding.takes({**sizes, **caches}):
                break
            new += 1
        return new

    def fixed(self, source: Arrays) -> Arrays:
        """The decoder's inputs that the encoder makes; none where there is no encoder."""
        if self.encoding is None:
            return {}
        encoder = Encoder(tuple(self.encoding.example), self.encoding.run)
        return encoder.fixed(self.called, source)

    def decoder(self, fixed: Arrays) -> FedDecoder:
        """With empty caches, beside inputs that are the same in every call."""
        return FedDecoder(self.decoding.run, names_of(self.called), Start(self.empty, fixed))
