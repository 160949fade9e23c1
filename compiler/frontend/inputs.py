"""Named inputs: from what the user wrote to what the compiler uses."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from strop.compiler.frontend.dims import Extent, read_dims
from strop.compiler.frontend.model import InputsAt, Model
from strop.compiler.frontend.streams import stream
from strop.compiler.ir.contract import Dim
from strop.compiler.ir.running import Inputs
from strop.compiler.util.errors import UsageError
from strop.compiler.util.user_code import blame, file_of


@dataclass(frozen=True)
class Signature:
    """How the module is called.

    Attributes:
        names: input names, in order.
        positional: whether they are passed by position.
        axes: per input, the dim of each dynamic axis, or the dims whose sum its size is.
        dims: the dims, by name.
        inputs_at: the user's inputs at given sizes; None where the example is resized.
        sums: the most that a sum of dims may be, where that is less than its parts allow.
    """

    names: tuple[str, ...]
    positional: bool
    axes: dict[str, dict[int, Extent]]
    dims: dict[str, Dim]
    inputs_at: InputsAt | None = None
    sums: dict[Extent, int] = field(default_factory=dict)

    def call(self, module: torch.nn.Module, inputs: Inputs) -> Any:
        """Call the module the way the user does."""
        if self.positional:
            return module(*(inputs[n] for n in self.names))
        return module(**inputs)

    def sizes(self, inputs: Inputs) -> dict[str, int]:
        """The sizes of the dynamic dims in one set of inputs, by name."""
        return {
            extent[0]: int(inputs[name].shape[axis])
            for name, axis, extent in self.extents()
            if len(extent) == 1
        }

    def extents(self) -> Iterator[tuple[str, int, Extent]]:
        """Every dynamic axis: its input, its number, and the dims whose sum is its size."""
        for name, axes in self.axes.items():
            for axis, extent in axes.items():
                yield name, axis, extent

    def allows(self, sizes: Mapping[str, int]) -> bool:
        """Whether sums of dims are within their own ranges at sizes of all dims."""
        return all(sum(sizes[d] for d in extent) <= most for extent, most in self.sums.items())


def read_inputs(model: Model) -> tuple[Signature, Inputs, list[Inputs]]:
    """Name the inputs and dims of a model: how it is called, the example, the calibration.

    Raises:
        UsageError: an input is no tensor, ``dynamic`` names an input or axis that is not there,
            or calibration inputs are not like the example.
    """
    names = input_names(model)
    example = _named(model.example_inputs, names, "example_inputs")
    dims = read_dims(model.dynamic, example)
    positional = not isinstance(model.example_inputs, Mapping)
    signature = Signature(names, positional, dims.axes, dims.named, model.inputs_at, dims.sums)
    _check_sizes(example, signature, "example_inputs")
    batches = stream(model.calibration, names, "calibration") or ()
    calibration = [{name: batch[name] for name in names} for batch in batches]
    for i, inputs in enumerate(calibration):
        _check_like(inputs, example, signature, f"calibration[{i}]")
        _check_sizes(inputs, signature, f"calibration[{i}]")
    return signature, example, calibration


def input_names(model: Model) -> tuple[str, ...]:
    """The names of the inputs, in order; positional ones are named after parameters.

    Raises:
        UsageError: there are no example inputs.
    """
    given = model.example_inputs
    if isinstance(given, Mapping):
        return tuple(given)
    if not isinstance(given, (tuple, list)) or not given:
        raise UsageError(
            f"example_inputs is {type(given).__name__}; give tensors by name, {{'x': x}}, "
            "or by position, (x,)"
        )
    parameters = inspect.signature(model.module.forward).parameters
    plain = [n for n, p in parameters.items() if p.kind is not p.VAR_POSITIONAL]
    if len(plain) >= len(given):
        return tuple(plain[: len(given)])
    return tuple(f"input_{i}" for i in range(len(given)))


def _named(given: Any, names: Sequence[str], what: str) -> Inputs:
    """One set of inputs by name, in the order of ``names``; all of them tensors."""
    if isinstance(given, Mapping):
        inputs = dict(given)
    elif isinstance(given, (tuple, list)) and len(given) == len(names):
        inputs = dict(zip(names, given))
    else:
        raise UsageError(f"{what} must give {len(names)} tensors: {', '.join(names)}")
    if set(inputs) != set(names):
        raise UsageError(f"{what} has {sorted(inputs)}, example_inputs has {sorted(names)}")
    for name, tensor in inputs.items():
        if not isinstance(tensor, torch.Tensor):
            raise UsageError(
                f"{what}['{name}'] is {type(tensor).__name__}; strop takes tensors: "
                "bind other arguments in a wrapper module"
            )
    return {n: inputs[n] for n in names}


def _check_like(inputs: Inputs, example: Inputs, signature: Signature, what: str) -> None:
    """Check that inputs have the example's dtypes, ranks and fixed sizes."""
    for name, tensor in inputs.items():
        like = example[name]
        moving = signature.axes.get(name, {})
        same = tensor.dtype == like.dtype and tensor.dim() == like.dim()
        if not same or any(
            a != b for i, (a, b) in enumerate(zip(tensor.shape, like.shape)) if i not in moving
        ):
            raise UsageError(
                f"{what}['{name}'] is {tensor.dtype} {tuple(tensor.shape)}, the example is "
                f"{like.dtype} {tuple(like.shape)}; only axes named in `dynamic` may differ"
            )


def _check_sizes(inputs: Inputs, signature: Signature, what: str) -> None:
    """Check that dynamic axes are in their ranges, and that axes of one name have one size."""
    sizes: dict[str, int] = {}
    for name, axis, extent in signature.extents():
        if len(extent) > 1:
            continue
        label, size = extent[0], inputs[name].shape[axis]
        dim = signature.dims[label]
        if size < dim.min or (dim.max is not None and size > dim.max):
            raise UsageError(
                f"{what}['{name}'] has size {size} on axis {axis}, outside the range "
                f"{dim.min} to {dim.max or 'any'} of dim '{label}'"
            )
        if sizes.setdefault(label, size) != size:
            raise UsageError(
                f"{what}['{name}'] has size {size} on axis {axis}, but dim '{label}' is "
                f"{sizes[label]} elsewhere; axes that share a name are equal"
            )
    _check_sums(inputs, signature, what)


def _check_sums(inputs: Inputs, signature: Signature, what: str) -> None:
    """Check that axes declared as sums of dims have that size, and that it is in its range."""
    sizes = signature.sizes(inputs)
    for name, axis, extent in signature.extents():
        size, parts = inputs[name].shape[axis], [sizes[dim] for dim in extent]
        label, most = " + ".join(extent), signature.sums.get(extent)
        if size != sum(parts):
            raise UsageError(
                f"{what}['{name}'] has size {size} on axis {axis}, but {label} is "
                f"{' + '.join(map(str, parts))} = {sum(parts)} elsewhere"
            )
        if most is not None and size > most:
            raise UsageError(
                f"{what}['{name}'] has size {size} on axis {axis}, but {label} is at most {most}"
            )


def resize(inputs: Inputs, signature: Signature, sizes: Mapping[str, int]) -> Inputs:
    """Inputs at the given sizes of dynamic dims; other dims keep the sizes they have.

    They are the user's where the model has ``inputs_at``, else the inputs cropped, or repeated
    from their start.

    Raises:
        UsageError: ``inputs_at`` raised, or gave inputs of other names, dtypes or sizes.
    """
    present = signature.sizes(inputs)
    wanted = present | {dim: size for dim, size in sizes.items() if dim in present}
    if wanted == present:
        return inputs
    if signature.inputs_at is not None:
        return _given_at(signature.inputs_at, wanted, signature, inputs)
    return {
        name: _resized(
            tensor,
            {a: sum(wanted[d] for d in e) for a, e in signature.axes.get(name, {}).items()},
        )
        for name, tensor in inputs.items()
    }


def _resized(tensor: torch.Tensor, sizes: Mapping[int, int]) -> torch.Tensor:
    for axis, size in sizes.items():
        if tensor.shape[axis] == 0 and size > 0:  # there is nothing to repeat
            tensor = tensor.new_zeros([*tensor.shape[:axis], 1, *tensor.shape[axis + 1 :]])
        tensor = tensor.index_select(axis, torch.arange(size) % max(tensor.shape[axis], 1))
    return tensor


def _given_at(
    inputs_at: InputsAt, sizes: dict[str, int], signature: Signature, like: Inputs
) -> Inputs:
    what = f"inputs_at({sizes})"
    try:
        given = inputs_at(dict(sizes))
    except Exception as error:  # the user's code may raise anything
        raise UsageError(f"{what} raised {blame(error, file_of(inputs_at))}") from error
    inputs = _named(given, signature.names, what)
    _check_like(inputs, like, signature, what)
    if signature.sizes(inputs) != sizes:
        raise UsageError(f"{what} gave inputs of the sizes {signature.sizes(inputs)}")
    _check_sums(inputs, signature, what)
    return inputs
