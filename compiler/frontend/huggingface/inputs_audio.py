"""Example recordings: what the folder's feature extractor gives and the model takes."""

from __future__ import annotations

import inspect
from typing import Any

import torch

from strop.compiler.frontend.huggingface.checkpoint import Checkpoint
from strop.compiler.frontend.huggingface.examples import (
    Batch,
    Examples,
    at_sizes,
    failure,
    generator,
    smallest,
)
from strop.compiler.frontend.huggingface.inputs_image import PROCESSOR_FILES
from strop.compiler.frontend.huggingface.library import asked, loaded
from strop.compiler.frontend.huggingface.settings import number
from strop.compiler.util.errors import UsageError

_RATE = 16_000
_SECONDS = (1.0, 0.6)
# Half a minute, and as many steps as models of speech make of it: attention over more of them
# does not fit into memory in the check.
_LONGEST_SECONDS = 30
_MOST_STEPS = 1500
_LEAST_SAMPLES = tuple(1 << n for n in range(4, 15))


def audio_examples(checkpoint: Checkpoint, name: str) -> Examples:
    """Batches of two recordings, the second shorter and padded where a mask says so.

    Raises:
        UsageError: the extractor fails, or the model's input cannot be known without one.
    """
    extractor = _extractor(checkpoint)
    if extractor is not None:
        batch = _extracted(checkpoint, extractor, _SECONDS)
    elif name == "input_values" and not hasattr(checkpoint.module.config, "num_mel_bins"):
        batch = {name: torch.randn(2, _RATE, generator=generator())}
    else:
        batch = {name: _features(checkpoint)}
    axes: dict[str, dict[int, Any]] = {n: {0: "batch"} for n in batch}
    examples = Examples([batch], axes)
    axis = _time_axis(checkpoint, extractor, batch, name)
    return examples if axis is None else _with_time(checkpoint, examples, name, axis)


def _extractor(checkpoint: Checkpoint) -> Any:
    if not any((checkpoint.path / name).exists() for name in PROCESSOR_FILES):
        return None
    from transformers import AutoFeatureExtractor

    return loaded("the feature extractor", checkpoint.path, AutoFeatureExtractor.from_pretrained)


def _extracted(checkpoint: Checkpoint, extractor: Any, seconds: tuple[float, ...]) -> Batch:
    """What the extractor makes of noise, as far as the model takes it."""
    rate = number(extractor, "sampling_rate") or _RATE
    random = generator()
    waves = [torch.randn(int(s * rate), generator=random).numpy() for s in seconds]
    options: dict[str, Any] = {"sampling_rate": rate, "return_tensors": "pt"}
    # Recordings of two lengths do not fit into one tensor; some extractors pad them.
    padding = inspect.signature(type(extractor).__call__).parameters.get("padding")
    if padding is not None and padding.default in (False, None):
        options["padding"] = True
    problem = f"hf:{checkpoint.path}: its feature extractor fails on noise"
    made = asked(problem, extractor, waves, **options)
    return {n: made[n] for n in made if n in checkpoint.takes}


def _features(checkpoint: Checkpoint) -> torch.Tensor:
    """Features of a folder without extractor, by the config's names for their sizes.

    Raises:
        UsageError: the config has none of these names.
    """
    config, random = checkpoint.module.config, generator()
    bins, positions = number(config, "num_mel_bins"), number(config, "max_source_positions")
    if bins and positions:  # Whisper: two frames a position
        return torch.randn(2, bins, 2 * positions, generator=random)
    length = number(config, "max_length")
    if bins and length and hasattr(config, "time_stride"):  # AST
        return torch.randn(2, length, bins, generator=random)
    size = number(config, "feature_projection_input_dim")
    if size:  # Wav2Vec2-BERT
        return torch.randn(2, 100, size, generator=random)
    raise UsageError(
        f"hf:{checkpoint.path}: there is no feature extractor in that folder, and the config does "
        "not say what input the model takes; write a factory and give the inputs"
    )


def _time_axis(checkpoint: Checkpoint, extractor: Any, batch: Batch, name: str) -> int | None:
    """The axis of time; None if its size never changes."""
    shape = batch[name].shape
    if len(shape) == 2:
        return 1
    if extractor is None:
        return 1 if hasattr(checkpoint.module.config, "feature_projection_input_dim") else None
    longer = _extracted(checkpoint, extractor, (1.5, 0.6))[name].shape
    moved = [i for i, (a, b) in enumerate(zip(shape, longer)) if a != b]
    return moved[0] if moved else None


def _with_time(checkpoint: Checkpoint, examples: Examples, name: str, axis: int) -> Examples:
    """Time as a dim, if the model takes other lengths than the example's."""
    dim = "samples" if examples.batches[0][name].dim() == 2 else "frames"
    length = examples.batches[0][name].shape[axis]
    # A mask has one axis beside the batch: time.
    axes = {n: {0: "batch", (axis if n == name else 1): dim} for n in examples.axes}
    one = at_sizes(examples.batches[0], axes, {"batch": 1})

    def takes(size: int) -> bool:
        return failure(checkpoint.module, at_sizes(one, axes, {dim: size})) is None

    least = smallest(takes, [n for n in (1, 2, 4, 8, *_LEAST_SAMPLES) if n < length])
    if least is None or not takes(length - 7):
        return examples
    most = max(length, min(_LONGEST_SECONDS * length, _most(checkpoint, one, length)))
    spec = (dim, least, most)
    examples.axes = {
        n: {a: spec if d == dim else d for a, d in each.items()} for n, each in axes.items()
    }
    return examples


def _most(checkpoint: Checkpoint, one: Batch, length: int) -> int:
    """The length that gives as many steps as the check can hold."""
    with torch.no_grad():
        result = checkpoint.module(**one)
    steps = max((t.shape[1] for t in result.values() if t.dim() == 3), default=0)
    return _MOST_STEPS * length // steps if steps else _MOST_STEPS * length
