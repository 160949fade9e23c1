"""What a factory returns: a module, and how to call, calibrate, judge and train it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    import torch

    from strop.compiler.frontend.generation import Generation

DimSpec = str | tuple[str, int, int]
InputsAt = Callable[[Mapping[str, int]], "Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...]"]
Batches = Iterable[Any] | Callable[[], Iterable[Any]]
Loss = Callable[[Mapping[str, "torch.Tensor"], Mapping[str, "torch.Tensor"]], "torch.Tensor"]
Evaluate = Callable[[Callable[..., tuple[Any, ...]]], Mapping[str, float]]


@dataclass
class Model:
    """A trained model, as the user describes it.

    Attributes:
        module: the ``nn.Module``, in eval mode.
        example_inputs: keyword tensors by name, or a tuple of positional tensors.
        dynamic: per input, which axes vary: ``{axis: "name"}`` or ``{axis: ("name", min, max)}``;
            axes that share a name are equal, and ``"past + seq"`` is an axis as long as two dims
            of other axes together. Positional inputs are named after the parameters of
            ``forward``.
        calibration: batches like ``example_inputs``; what quantization and the checks see. A list,
            another iterable that can be passed over again, or a function that returns an iterator.
        evaluate: called with ``run(**inputs) -> tuple of arrays``; returns metrics by name, which
            are numbers. A recipe may set a budget for them: ``[budget.metrics]``.
        inputs_at: called with a size for every dynamic dim, ``{"seq": 7}``; returns inputs of these
            sizes. Needed where values depend on sizes (positions, lengths, indices): without it
            the example is cropped, or repeated, to the sizes that the checks try.
        train: batches for passes that train, given as ``calibration`` is. A batch is a mapping
            with the inputs and, beside them, what ``loss`` wants, such as labels.
        loss: ``loss(outputs, batch)``: outputs by name, and a batch of ``train``; returns a scalar
            tensor. Without it, passes that train compare with the original's outputs.
        generation: how the module is called token by token, where it is a decoder with caches.
        files: copied beside the model under their own names, hashed in the manifest: a tokenizer,
            a processor's settings.
        labels: names of the classes by index, for the manifest.
        optional_dims: names of dims in ``dynamic`` that are fixed at the example's sizes where the
            model cannot be built with them; a note says so.
        notes: what whoever builds the model should know, in sentences; told and recorded.
    """

    module: torch.nn.Module
    example_inputs: Mapping[str, torch.Tensor] | tuple[torch.Tensor, ...]
    dynamic: Mapping[str, Mapping[int, DimSpec]] | None = None
    calibration: Batches | None = None
    evaluate: Evaluate | None = None
    train: Batches | None = None
    inputs_at: InputsAt | None = None
    files: Sequence[Path] = ()
    labels: Mapping[int, str] | None = None
    optional_dims: Sequence[str] = ()
    notes: Sequence[str] = ()
    loss: Loss | None = None
    generation: Generation | None = None

    def without_optional_dims(self, why: str) -> Model:
        """The same with these dims fixed, and a note that says why."""
        named = ", ".join(self.optional_dims)
        kept = {
            name: {axis: d for axis, d in axes.items() if _name(d) not in self.optional_dims}
            for name, axes in (self.dynamic or {}).items()
        }
        note = (
            f"{named}: fixed at the example's sizes, since the model could not be built otherwise: "
            f"{why}"
        )
        notes = (*self.notes, note)
        return replace(self, dynamic=kept, optional_dims=(), notes=notes)


def _name(spec: DimSpec) -> str:
    return spec if isinstance(spec, str) else spec[0]
