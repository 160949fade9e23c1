"""Whether a program is called as its ``Generation`` says, by what was captured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from strop.compiler.frontend.generation import Generation
from strop.compiler.ir.contract import Contract, TensorSpec, size_at
from strop.compiler.util.errors import UsageError, did_you_mean

_FLOATS = ("f16", "bf16", "f32", "f64")
# The axis of a cache that grows.
_LENGTH = 2


def require_called(generation: Generation | None, contracts: Mapping[str, Contract]) -> None:
    """Check the names, dtypes and shapes of a decoder with caches.

    Args:
        generation: what the factory declares; nothing is checked where there are no caches.
        contracts: of all programs, by name.

    Raises:
        UsageError: an input or output is not there, or is not as a decoder's must be.
    """
    if generation is None or not generation.caches:
        return
    contract = _decoder(generation, contracts)
    inputs = {spec.name: spec for spec in contract.inputs}
    outputs = {spec.name: spec for spec in contract.outputs}
    for field in ("ids", "mask"):
        spec = _named(f"Generation.{field}", getattr(generation, field), inputs, "takes")
        if spec.dtype != "i64" or len(spec.shape) != 2:
            raise UsageError(
                f"Generation.{field}: '{spec.name}' is {_type(spec)}; it must be i64 of two axes"
            )
    _require_places(generation, inputs[generation.mask], contract)
    logits = _named("Generation.logits", generation.logits, outputs, "gives")
    if logits.dtype not in _FLOATS or len(logits.shape) != 3:
        raise UsageError(
            f"Generation.logits: '{logits.name}' is {_type(logits)}; it must be floats of three "
            "axes, [batch, 1, vocabulary]"
        )
    for past, present in generation.caches.items():
        _require_continued(inputs[past], _named("Generation.caches", present, outputs, "gives"))


def _require_places(generation: Generation, mask: TensorSpec, contract: Contract) -> None:
    """Check that a mask may be as long as the context.

    Raises:
        UsageError: its dims are declared up to less.
    """
    most = {dim.name: dim.max for dim in contract.dims if dim.max is not None}
    places = size_at(mask.shape[1], most)
    if places is not None and places < generation.context:
        raise UsageError(
            f"Generation.context is {generation.context}, but '{mask.name}' has {places} places at "
            f"most ({mask.shape[1]}): declare longer dims in `dynamic`, or a shorter context"
        )


def _decoder(generation: Generation, contracts: Mapping[str, Contract]) -> Contract:
    """The contract of the program that has all caches.

    Raises:
        UsageError: none has.
    """
    known = {name: [spec.name for spec in one.inputs] for name, one in contracts.items()}
    for name, inputs in known.items():
        if generation.caches.keys() <= set(inputs):
            return contracts[name]
    every = [one for inputs in known.values() for one in inputs]
    lost = next((one for one in generation.caches if one not in every), None)
    if lost is None:
        raise UsageError("Generation.caches: no program takes all of these inputs together")
    raise UsageError(f"Generation.caches: no program takes '{lost}'{did_you_mean(lost, every)}")


def _named(field: str, name: str, known: Mapping[str, TensorSpec], does: str) -> TensorSpec:
    if name not in known:
        raise UsageError(f"{field}: no decoder {does} '{name}'{did_you_mean(name, list(known))}")
    return known[name]


def _require_continued(past: TensorSpec, present: TensorSpec) -> None:
    same = (past.dtype, _without_length(past.shape)) == (
        present.dtype,
        _without_length(present.shape),
    )
    if not same or len(past.shape) != 4:
        raise UsageError(
            f"Generation.caches: '{past.name}' is {_type(past)}, and '{present.name}', which "
            f"continues it, {_type(present)}; both must have four axes and one dtype, and differ "
            f"in axis {_LENGTH} only"
        )


def _without_length(shape: Iterable[int | str]) -> list[int | str]:
    return [size for axis, size in enumerate(shape) if axis != _LENGTH]


def _type(spec: TensorSpec) -> str:
    return f"{spec.dtype}[{', '.join(map(str, spec.shape))}]"
