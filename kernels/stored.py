"""Compiled kernels kept from one build to the next, with what was read of them.

The same variant gives the same bytes, so what is kept is what would be compiled again. A key holds
all that these depend on: the sources of the kernel and of what compiles and reads it, the variant,
the architecture, the version of Triton and its tools.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from functools import cache
from importlib.metadata import version
from typing import Protocol

from strop.kernels.architecture import Architecture
from strop.kernels.binary import Binary
from strop.kernels.inspect import Reading, tool
from strop.kernels.registry import module_of
from strop.kernels.sources import hash_with_imports
from strop.kernels.variant import Variant


class Store(Protocol):
    """Where bytes are kept by key, and from where they may vanish at any time."""

    def get(self, key: str) -> bytes | None:
        """What was put there, or None."""
        ...

    def put(self, key: str, content: bytes) -> None:
        """Keep it."""
        ...


def key_of(variant: Variant, architecture: Architecture) -> str:
    """Under what a variant is kept: a SHA-256 in hexadecimal digits."""
    sources = hash_with_imports(module_of(variant.kernel), "compiler", "compiling", "stored")
    parts = [sources, _tools(), architecture.capability, variant.to_json()]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@cache
def _tools() -> list[str]:
    hashes = []
    for name in ("ptxas", "cuobjdump"):
        with tool(name).open("rb") as file:
            hashes.append(hashlib.file_digest(file, "sha256").hexdigest())
    return [version("triton"), *hashes]


def recall(
    store: Store, variant: Variant, architecture: Architecture
) -> tuple[Binary, Reading] | None:
    """What is kept of a variant; None where nothing is, or where it was damaged."""
    content = store.get(key_of(variant, architecture))
    if content is None:
        return None
    digest, _, values = content.partition(b"\n")
    if digest != _digest(values):
        return None
    found = json.loads(values)
    return Binary.from_json(found["binary"]), Reading.from_json(found["reading"])


def keep(
    store: Store, variant: Variant, architecture: Architecture, binary: Binary, reading: Reading
) -> None:
    """Keep a variant."""
    values = json.dumps({"binary": binary.to_json(), "reading": asdict(reading)}).encode()
    store.put(key_of(variant, architecture), _digest(values) + b"\n" + values)


def _digest(content: bytes) -> bytes:
    return hashlib.sha256(content).hexdigest().encode()
