"""Fashion-MNIST as Debian's package ``dataset-fashion-mnist`` installs it.

Xiao, Rasul and Vollgraf, Fashion-MNIST (2017): 28×28 grey images of ten kinds of clothes, 60,000
to train on and 10,000 to test on.
"""

from __future__ import annotations

import gzip
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
import typer
from torch import Tensor
from torch.nn import functional as F

from strop.bench.records.figures import console
from strop.bench.trials.task import Task, outputs_of
from strop.compiler.ir.program import Program
from strop.compiler.rewriting.context import Batch
from strop.compiler.util.errors import UsageError

FOLDER = Path("/usr/share/datasets/fashion-mnist")
SOURCE = "Debian's package dataset-fashion-mnist"
ROWS = 100
_CLASSES = 10
_VALIDATED = 5000
# Mean and standard deviation of the training images, at 0 to 1.
_MEAN, _DEVIATION = 0.286, 0.353


def images(part: str, folder: Path) -> tuple[Tensor, Tensor]:
    """Images of mean 0 and variance 1, float32 [n, 1, 28, 28], and their classes, int64 [n].

    Args:
        part: "train" or "t10k", the test images.
        folder: with the four files.

    Raises:
        UsageError: a file is missing.
    """
    pixels = _read(folder / f"{part}-images-idx3-ubyte.gz", header=16)
    labels = _read(folder / f"{part}-labels-idx1-ubyte.gz", header=8)
    scaled = pixels.reshape(-1, 1, 28, 28).float() / 255
    return (scaled - _MEAN) / _DEVIATION, labels.long()


def task(trained: int) -> Task:
    """Classes of clothes: the first images train, the last 5,000 of the training set validate.

    Args:
        trained: how many images are learned from; at most 55,000.

    Raises:
        UsageError: the files are missing.
    """
    pixels, labels = images("train", FOLDER)
    return Task(
        train=_batches(pixels[:trained], labels[:trained]),
        validation=_batches(pixels[-_VALIDATED:], labels[-_VALIDATED:]),
        test=_batches(*images("t10k", FOLDER)),
        loss=loss,
        metric=accuracy,
        larger_is_better=True,
        dynamic={"pixels": {0: "batch"}},
    )


def task_or_exit(trained: int) -> Task:
    """The same for a command: without the files it says so, and ends.

    Raises:
        typer.Exit: the files are missing.
    """
    try:
        return task(trained)
    except UsageError as error:
        console.say(error)
        raise typer.Exit(error.exit_code) from None


def loss(outputs: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """Cross-entropy with the labels."""
    return F.cross_entropy(outputs["logits"], batch["label"])


def accuracy(program: Program, batches: Sequence[Batch]) -> float:
    """The share of images in the right class, in percent."""
    right = sum(
        int((outputs_of(program, {"pixels": b["pixels"]})["logits"].argmax(1) == b["label"]).sum())
        for b in batches
    )
    return 100 * right / sum(len(b["label"]) for b in batches)


def _batches(pixels: Tensor, labels: Tensor) -> list[Batch]:
    return [
        {"pixels": rows, "label": classes}
        for rows, classes in zip(pixels.split(ROWS), labels.split(ROWS))
    ]


def _read(path: Path, header: int) -> Tensor:
    """The bytes of a file after its header, uint8."""
    if not path.is_file():
        raise UsageError(f"{path} is missing: sudo apt-get install dataset-fashion-mnist")
    with gzip.open(path) as file:
        return torch.from_numpy(np.frombuffer(file.read(), np.uint8, offset=header).copy())
