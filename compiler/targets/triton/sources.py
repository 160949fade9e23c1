"""Which kernels they are: a hash of the source of all of them."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files


@cache
def kernels_hash() -> str:
    """SHA-256 over the modules of ``strop.kernels``, by name."""
    digest = hashlib.sha256()
    modules = (f for f in files("strop.kernels").iterdir() if f.name.endswith(".py"))
    for module in sorted(modules, key=lambda f: f.name):
        content = module.read_bytes()
        digest.update(f"{module.name} {len(content)}\n".encode() + content)
    return digest.hexdigest()
