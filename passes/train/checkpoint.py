"""Where training stands, on disk: a killed run goes on from here with the same result.

Two safetensors files, each put in place in one step: the state of the last checkpoint, and the best
weights so far under the number of their update. What is no tensor is JSON in the file's header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pydantic
import torch
from safetensors import safe_open

from strop.compiler.ir.snapshots.weight_store import read_tensors, write_tensors
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import validated_json
from strop.passes.train.history import Entry, Means

STATE, BEST = "state.safetensors", "best-{}.safetensors"
_VALUES = "values"


@dataclass
class Progress:
    """How far training has come.

    Attributes:
        updates: of the weights, so far.
        epoch: the pass over the data that is under way, from 0.
        taken: batches of this epoch that were used.
        lr: the learning rate of the last update.
        seconds: wall time so far, over all runs.
        best: the best validation loss; None before there is one.
        best_at: the update after which it was measured.
        worse: validations since then.
        means: of the losses since the last entry.
        history: what was measured so far.
    """

    updates: int = 0
    epoch: int = 0
    taken: int = 0
    lr: float = 0.0
    seconds: float = 0.0
    best: float | None = None
    best_at: int = 0
    worse: int = 0
    means: Means = field(default_factory=Means)
    history: list[Entry] = field(default_factory=list)


_Progress = pydantic.RootModel[Progress]
Tensors = Mapping[str, torch.Tensor]


class Checkpoints:
    """The checkpoint of one training, in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def save(self, progress: Progress, state: Tensors, best: Tensors) -> None:
        """Put a checkpoint in place of the one before.

        Args:
            progress: how far it has come.
            state: weights and what the optimizer knows.
            best: the weights with the best validation loss.

        Raises:
            OSError: it cannot be written; the one before is still there.
        """
        kept = self.folder / BEST.format(progress.best_at)
        if not kept.exists():
            _write(best, kept, {})
        _write(state, self.folder / STATE, {_VALUES: json.dumps(asdict(progress))})
        for old in self.folder.glob(BEST.format("*")):
            if old != kept:
                old.unlink()

    def load(self) -> tuple[Progress, dict[str, torch.Tensor], dict[str, torch.Tensor]] | None:
        """The last checkpoint: progress, state and best weights; None if there is none.

        Raises:
            UsageError: it is damaged.
        """
        path = self.folder / STATE
        if not path.exists():
            return None
        state = read_tensors(path, "the checkpoint", within=self.folder)
        progress = validated_json(_Progress, _header(path), f"the checkpoint {path}").root
        best = read_tensors(
            self.folder / BEST.format(progress.best_at), "the checkpoint", within=self.folder
        )
        return progress, state, best


def _write(tensors: Tensors, path: Path, header: dict[str, str]) -> None:
    """A whole file, or the one that was there before."""
    work = path.with_suffix(".new")
    try:
        write_tensors({n: t.detach().contiguous() for n, t in tensors.items()}, work, header)
        work.replace(path)
    except OSError:
        work.unlink(missing_ok=True)
        raise


def _header(path: Path) -> str:
    with safe_open(path, "pt") as file:
        values: dict[str, Any] = file.metadata() or {}
    if _VALUES not in values:
        raise UsageError(f"the checkpoint {path} is damaged: it does not say how far it came")
    return str(values[_VALUES])
