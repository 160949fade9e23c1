"""What a pass can read besides the program that it rewrites."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch

from strop.compiler.ir.program import Program
from strop.compiler.targets.target import CPU, Target
from strop.compiler.util.arrays import raw_bytes
from strop.compiler.util.cache import Cache

Batch = Mapping[str, torch.Tensor]
"""The inputs by name and, beside them, what the loss wants."""
Batches = Iterable[Batch]
"""Can be iterated any number of times; gives the same batches each time."""
Loss = Callable[[Mapping[str, torch.Tensor], Batch], torch.Tensor]
"""``loss(outputs, batch)``: outputs by name, a scalar to be made small."""
Measure = Callable[[Program], Mapping[str, float]]
"""The user's metrics of a program, by name."""
Clock = Callable[[Program], AbstractContextManager[Callable[[Program], float]]]
"""``with clock(program) as relative: relative(other)``: how long one run of ``other`` takes on the
target, as a share of what ``program`` takes."""
Capture = Callable[[str], Program]
"""The program of another model of the user's, ``FILE.py:make`` or ``hf:PATH``."""
Need = Literal["calibration", "train", "loss", "evaluate"]
NEEDS: tuple[Need, ...] = get_args(Need)
Needs = tuple[Need | tuple[Need, ...], ...]
"""What is needed, all of it; of several in a tuple, at least one."""


def named(needs: Needs) -> list[Need]:
    """Everything that is named among needs."""
    return [one for need in needs for one in ([need] if isinstance(need, str) else need)]


@dataclass(frozen=True)
class Context:
    """What a pass sees beside its program.

    Attributes:
        target: where the program will run, and what can be done there.
        teacher: the program as captured, which behaves as the original does; None outside a build.
        calibration: batches like the example inputs.
        train: batches to learn from.
        loss: the user's loss on a batch of ``train``.
        evaluate: the user's metrics.
        seed: for whatever is drawn at random.
        scratch: an empty folder while a pass learns, removed afterwards; None at other times.
        kept: a folder that stays if learning is interrupted, and is found again by the same pass on
            the same program and data; removed when what was learned is kept. None without a cache.
        cache: what passes learned before; None keeps nothing.
        clock: times programs in their target's runtime, at the sizes of the model's first data, as
            the steps behind the pass leave them; None where there is no such runtime, as outside a
            build.
        capture: captures another model with the inputs of this one; None outside a build.
        progress: told what is being done, in a few words.
        say: told what the user should know of this run alone, in sentences; it is not recorded in
            the manifest, which is the same for every run.
    """

    target: Target = CPU
    teacher: Program | None = None
    calibration: Batches | None = None
    train: Batches | None = None
    loss: Loss | None = None
    evaluate: Measure | None = None
    seed: int = 0
    scratch: Path | None = None
    kept: Path | None = None
    cache: Cache | None = None
    clock: Clock | None = None
    capture: Capture | None = None
    progress: Callable[[str], None] = lambda what: None
    say: Callable[[str], None] = lambda sentence: None

    def lacks(self, need: Need | tuple[Need, ...]) -> bool:
        """Whether a need, or each of several, is not met."""
        return all(getattr(self, one) is None for one in named((need,)))


def seed_all(seed: int) -> None:
    """Let the random numbers of Python, NumPy and torch depend on the seed alone from here on."""
    random.seed(seed)
    np.random.seed(seed)
    # torch.manual_seed looks for accelerators each time, which costs milliseconds.
    torch.default_generator.manual_seed(seed)


def mixed(*parts: int | str) -> int:
    """One seed of several numbers and words, in 32 bits."""
    return int.from_bytes(hashlib.sha256(repr(parts).encode()).digest()[:4])


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Random numbers of Python, NumPy and torch that depend on the seed alone; restored after."""
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        seed_all(seed)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def digest_of(values: Any, digest: Any) -> None:
    """Feed tensors, and containers of them, into a hash of ``hashlib``."""
    if isinstance(values, torch.Tensor):
        digest.update(f"{values.dtype}{tuple(values.shape)}".encode())
        digest.update(raw_bytes(values))
    elif isinstance(values, Mapping):
        for name in sorted(values, key=str):
            digest.update(f"{name}=".encode())
            digest_of(values[name], digest)
    elif isinstance(values, (list, tuple)):
        for value in values:
            digest_of(value, digest)
    else:
        digest.update(repr(values).encode())
