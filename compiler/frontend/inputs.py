"""Named inputs: from what the user wrote to what the compiler uses."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from strop.compiler.frontend.model import InputsAt, Model
from strop.compiler.frontend.streams import stream
from strop.compiler.ir.contract import Dim
from strop.compiler.ir.running import Inputs
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.user_code import blame, file_of


@dataclass(frozen=True)
class Signature:
    """How the module is called.

    Attributes:
        names: input names, in order.
        positional: whether they are passed by position.
        axes: per input, the dim name of each dynamic axis.
        dims: the dims, by name.
        inputs_at: the user's inputs at given sizes; None where the example is resized.
    """

    names: tuple[str, ...]
    positional: bool
    axes: dict[str, dict[int, str]]
    dims: dict[str, Dim]
    inputs_at: InputsAt | None = None

    def call(self, module: torch.nn.Module, inputs: Inputs) -> Any:
        """Call the module the way the user does."""
        if self.positional:
            return module(*(inputs[n] for n in self.names))
        return module(**inputs)

    def sizes(self, inputs: Inputs) -> dict[str, int]:
        """The sizes of the dynamic dims in one set of inputs, by name."""
        return {
            dim: int(inputs[name].shape[axis])
            for name, axes in self.axes.items()
            for axis, dim in axes.items()
        }


def read_inputs(model: Model) -> tuple[Signature, Inputs, list[Inputs]]:
    """Name the inputs and dims of a model: how it is called, the example, the calibration.

    Raises:
        UsageError: an input is no tensor, ``dynamic`` names an input or axis that is not there,
            or calibration inputs are not like the example.
    """
    names = input_names(model)
    example = _named(model.example_inputs, names, "example_inputs")
    axes: dict[str, dict[int, str]] = {}
    dims: dict[str, Dim] = {}
    for name, spec in _mapping(model.dynamic or {}, "dynamic").items():
        if name not in example:
            raise UsageError(f"dynamic names the input '{name}'{did_you_mean(name, list(names))}")
        axes[name] = {}
        for axis, dim in _mapping(spec, f"dynamic['{name}']").items():
            axes[name][axis] = _add_dim(dims, name, axis, dim, example[name])
    positional = not isinstance(model.example_inputs, Mapping)
    signature = Signature(names, positional, axes, dims, model.inputs_at)
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


def _mapping(given: Any, what: str) -> Mapping[Any, Any]:
    if not isinstance(given, Mapping):
        raise UsageError(
            f"{what} is {type(given).__name__}; write dynamic={{'input': {{axis: 'dim name'}}}}"
        )
    return given


def _add_dim(dims: dict[str, Dim], name: str, axis: int, spec: Any, tensor: torch.Tensor) -> str:
    """Enter one dynamic axis; returns the name of its dim."""
    new = _dim(spec, f"dynamic['{name}'][{axis}]")
    if not isinstance(axis, int) or not 0 <= axis < tensor.dim():
        raise UsageError(f"dynamic['{name}'] names axis {axis}; the tensor has {tensor.dim()} axes")
    known = dims.setdefault(new.name, new)
    if isinstance(spec, str) or known == new:
        return new.name
    if known == Dim(new.name, 1, None):
        dims[new.name] = new
        return new.name
    raise UsageError(
        f"dim '{new.name}' has two ranges: {known.min} to {known.max} and {new.min} to {new.max}; "
        "axes that share a name are equal, so give the range once"
    )


def _dim(spec: Any, what: str) -> Dim:
    if isinstance(spec, str):
        return Dim(spec, 1, None)
    if not isinstance(spec, (tuple, list)) or [type(v) for v in spec] != [str, int, int]:
        raise UsageError(f"{what} is {spec!r}; write 'name' or ('name', min, max)")
    name, low, high = spec
    if not 0 <= low <= high:
        raise UsageError(f"{what}: dim '{name}' has the range {low} to {high}")
    return Dim(name, low, high)


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
    for name, axes in signature.axes.items():
        for axis, label in axes.items():
            size, dim = inputs[name].shape[axis], signature.dims[label]
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
            tensor, {axis: wanted[d] for axis, d in signature.axes.get(name, {}).items()}
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
    return inputs
