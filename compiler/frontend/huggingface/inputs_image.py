"""Example images: of the processor's size, and of others where the model takes them."""

from __future__ import annotations

from typing import Any

import torch

from strop.compiler.frontend.huggingface.checkpoint import Checkpoint
from strop.compiler.frontend.huggingface.examples import (
    Examples,
    at_sizes,
    failure,
    keeps_sizes,
    smallest,
)
from strop.compiler.frontend.huggingface.library import loaded
from strop.compiler.frontend.huggingface.settings import number, pair, vision_config
from strop.compiler.util.errors import UsageError

PROCESSOR_FILES = ("preprocessor_config.json", "processor_config.json")
# Where neither processor nor config names a size.
_USUAL = 224
_LEAST = (1, 2, 4, 8, 16, 32, 64, 128, 256)
_KNOWN = {"pixel_values", "pixel_mask"}


def image_examples(checkpoint: Checkpoint, beside_texts: bool) -> Examples:
    """Batches of random images, with the mask of padding where the processor gives one.

    Raises:
        UsageError: the processor fails, or gives inputs that cannot be made here.
    """
    processor = load_processor(checkpoint)
    given = list(getattr(processor, "model_input_names", ["pixel_values"]))
    names = [n for n in given if n in checkpoint.takes]
    strange = sorted(set(names) - _KNOWN)
    if strange or "pixel_values" not in names:
        raise UsageError(
            f"hf:{checkpoint.path}: no examples are known here for {', '.join(strange or names)} "
            f"of {type(checkpoint.module).__name__}; write a factory and give them"
        )
    height, width = _size(checkpoint.module.config, processor)
    batches = [_batch(names, checkpoint, height, width, seed) for seed in range(4)]
    # These models compare each text with each image; in others a text belongs to one image.
    batch_name = "images" if checkpoint.task.name.startswith("zero-shot") else "batch"
    examples = Examples(batches, {n: {0: batch_name} for n in names})
    if beside_texts:
        return examples
    examples.batches = batches[:2]
    return _with_sizes(checkpoint, examples, height, width)


def load_processor(checkpoint: Checkpoint) -> Any:
    """The folder's image processor; None if it has none."""
    if not any((checkpoint.path / name).exists() for name in PROCESSOR_FILES):
        return None
    from transformers import AutoImageProcessor

    return loaded("the image processor", checkpoint.path, AutoImageProcessor.from_pretrained)


def _size(config: Any, processor: Any) -> tuple[int, int]:
    """Height and width: what the processor makes, else what the config says."""
    config = vision_config(config)
    candidates = [
        getattr(processor, "crop_size", None) if getattr(processor, "do_center_crop", 0) else None,
        getattr(config, "image_size", None),
        getattr(config, "input_size", None),
        getattr(processor, "size", None),
    ]
    found = (pair(size) for size in candidates if size is not None)
    return next((size for size in found if size), (_USUAL, _USUAL))


def _batch(
    names: list[str], checkpoint: Checkpoint, height: int, width: int, seed: int
) -> dict[str, torch.Tensor]:
    channels = number(vision_config(checkpoint.module.config), "num_channels") or 3
    random = torch.Generator().manual_seed(seed)
    batch = {"pixel_values": torch.randn(2, channels, height, width, generator=random)}
    if "pixel_mask" in names:
        mask = torch.ones(2, height, width, dtype=torch.int64)
        # The last image is smaller than the others, and padded.
        mask[-1, height - height // 4 :], mask[-1, :, width - width // 8 :] = 0, 0
        batch["pixel_mask"] = mask
    return batch


def _has_windows(module: Any) -> bool:
    """Whether attention goes by windows, to whose multiples the image is padded at every stage.

    torch.export takes hours over such sizes where they are not fixed.
    """
    return any(
        "window" in type(part).__name__.lower() or hasattr(part, "window_size")
        for part in module.modules()
    )


def _square(side: int) -> dict[str, int]:
    return {"height": side, "width": side}


def _with_sizes(checkpoint: Checkpoint, examples: Examples, height: int, width: int) -> Examples:
    """Height and width as dims, if the model takes others than the processor's."""
    axes: Any = {
        "pixel_values": {0: "batch", 2: "height", 3: "width"},
        "pixel_mask": {0: "batch", 1: "height", 2: "width"},
    }
    if _has_windows(checkpoint.module):
        return examples
    one = at_sizes(examples.batches[0], axes, {"batch": 1})

    def takes(high: int, wide: int) -> bool:
        sizes = {"height": high, "width": wide}
        return failure(checkpoint.module, at_sizes(one, axes, sizes)) is None

    if not (takes(height + 1, width) and takes(height, width - 3) and takes(height + 6, width + 9)):
        return examples
    least = smallest(lambda size: takes(size, size), [n for n in _LEAST if n <= height])
    if least is None or keeps_sizes(checkpoint.module, one, [at_sizes(one, axes, _square(least))]):
        return examples
    ranges = {
        "height": ("height", least, 2 * height),
        "width": ("width", least, 2 * width),
    }
    examples.axes = {
        name: {axis: ranges.get(dim, dim) for axis, dim in axes[name].items()}
        for name in examples.axes
    }
    examples.tried = ("height", "width")
    return examples
