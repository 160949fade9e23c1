"""Tensors in safetensors files: each weight once, under the hash of its content."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from strop.compiler.ir.contract import DTYPE_NAMES
from strop.compiler.util.arrays import raw_bytes
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.reading import opened

_DIGEST = re.compile(r"[0-9a-f]{32}")


class WeightStore:
    """Tensors in a folder, each written once under the hash of its content."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._known: dict[int, tuple[torch.Tensor, str]] = {}
        self._read: dict[str, torch.Tensor] = {}

    def put(self, tensor: torch.Tensor) -> str:
        """Write a tensor if its content is new; returns its hash."""
        if id(tensor) not in self._known:
            # The tensor is kept with its hash: an id belongs to a living object only.
            self._known[id(tensor)] = (tensor, self._write(tensor.detach().contiguous()))
        return self._known[id(tensor)][1]

    def get(self, digest: str) -> torch.Tensor:
        """Read a tensor; one that was read before is shared.

        Raises:
            UsageError: it is not there, leads out of the folder, or is not what its name says.
        """
        if digest not in self._read:
            if not _DIGEST.fullmatch(digest):
                raise UsageError(f"{digest!r} is not the name of a weight")
            path = self._path(digest)
            held = read_tensors(path, "the weight", within=self.folder.parent)
            if set(held) != {"weight"} or _digest(held["weight"]) != digest:
                raise UsageError(f"the weight {path} has changed since it was written")
            self._read[digest] = held["weight"]
        return self._read[digest]

    def _write(self, tensor: torch.Tensor) -> str:
        digest = _digest(tensor)
        path = self._path(digest)
        if not path.exists():
            self.folder.mkdir(parents=True, exist_ok=True)
            write_tensors({"weight": tensor}, path)
        return digest

    def _path(self, digest: str) -> Path:
        return self.folder / f"{digest}.safetensors"


def write_tensors(
    tensors: Mapping[str, torch.Tensor], path: Path, header: dict[str, str] | None = None
) -> None:
    """Write tensors, and text beside them, into a file.

    Raises:
        OSError: it cannot be written, as on a full disk.
    """
    try:
        save_file(dict(tensors), path, header)
    except SafetensorError as error:
        raise OSError(str(error)) from error


def read_tensors(path: Path, what: str, *, within: Path) -> dict[str, torch.Tensor]:
    """The tensors of a file, by name.

    Args:
        path: of the file.
        what: it is, for messages.
        within: the folder that it came with, which no link may lead out of.

    Raises:
        UsageError: it is not there or no regular file, is damaged, or holds a dtype that no
            program has.
    """
    with opened(path, what, within=within):
        pass  # safetensors maps the file by itself; here it is only looked at
    try:
        found: dict[str, torch.Tensor] = load_file(path)
    except (SafetensorError, OSError, LookupError, ValueError, TypeError, RuntimeError) as error:
        raise UsageError(f"{what} {path} is damaged: {error}") from error
    for name, tensor in found.items():
        if tensor.dtype not in DTYPE_NAMES:
            raise UsageError(f"{what} {path} holds {name!r} of {tensor.dtype}, which is not read")
    return found


def _digest(tensor: torch.Tensor) -> str:
    kind = f"{DTYPE_NAMES[tensor.dtype]}{list(tensor.shape)}".encode()
    digest = hashlib.sha256(kind)
    digest.update(raw_bytes(tensor))
    return digest.hexdigest()[:32]
