"""Check a folder before transformers reads it: it may open regular files inside the folder only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.reading import MEBIBYTE, opened, read_json, require_inside

CONFIG = "config.json"
# What transformers and tokenizers open in a folder; other files are never touched.
_OPENED = frozenset({".json", ".txt", ".model", ".jinja", ".safetensors", ".bin", ".tiktoken"})
_MOST_CONFIG = 16 * MEBIBYTE
_MOST_LAYERS = 10_000


def inspected(folder: Path) -> dict[str, Any]:
    """The values of ``config.json``, of a folder in which every file may be opened.

    Raises:
        UsageError: there is no such folder or config; a file is a pipe, a device or leads out of
            the folder; or the config is damaged or of impossible size.
    """
    if not (folder / CONFIG).is_file():
        raise UsageError(f"hf:{folder}: there is no {CONFIG} in that folder")
    root = home(folder)
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"hf:{folder}: cannot be read: {error.strerror}") from error
    for path in entries:
        if path.suffix in _OPENED:
            with opened(path, "the file", within=root):
                pass
        if path.name.endswith(".index.json"):
            _require_plain_shards(path, root)
    return _config(folder / CONFIG, root)


def home(folder: Path) -> Path:
    """The folder that links may not leave: itself, or the model's in a cache of the hub.

    There ``models--NAME/snapshots/REVISION`` holds links into ``models--NAME/blobs``.
    """
    model = folder.absolute().parent.parent
    cached = folder.absolute().parent.name == "snapshots" and model.name.startswith("models--")
    return model if cached else folder


def _require_plain_shards(path: Path, root: Path) -> None:
    """Refuse an index that names weights elsewhere."""
    values = read_json(path, "the index of weights", within=root)
    shards = values.get("weight_map") if isinstance(values, dict) else None
    if not isinstance(shards, dict):
        raise UsageError(f"{path} has no 'weight_map' of weights to files")
    for name in shards.values():
        if not isinstance(name, str) or Path(name).name != name:
            raise UsageError(f"{path} names weights outside its folder: {str(name)[:80]!r}")
        require_inside(path.parent / name, "the weights", root)


def _config(path: Path, root: Path) -> dict[str, Any]:
    values = read_json(path, "the config", most_bytes=_MOST_CONFIG, within=root)
    if not isinstance(values, dict):
        raise UsageError(f"{path} is not a config: it holds {type(values).__name__}, not an object")
    for key, kind in (("model_type", str), ("architectures", list), ("auto_map", dict)):
        if values.get(key) is not None and not isinstance(values[key], kind):
            raise UsageError(f"{path}: '{key}' is {type(values[key]).__name__}")
    if not all(isinstance(name, str) for name in values.get("architectures") or []):
        raise UsageError(f"{path}: 'architectures' holds a value that is not a name")
    _require_possible_layers(path, values)
    return values


def _require_possible_layers(path: Path, values: dict[str, Any]) -> None:
    """Refuse counts of layers that would take hours to build before any weight is missed."""
    for key, value in values.items():
        if isinstance(value, dict):
            _require_possible_layers(path, value)
        elif "layers" in key and type(value) is int and value > _MOST_LAYERS:
            raise UsageError(f"{path}: '{key}' is {value}; no model has more than {_MOST_LAYERS}")
