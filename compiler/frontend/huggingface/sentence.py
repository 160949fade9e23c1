"""Sentence embedding as ``modules.json`` describes it: pooling, dense, normalize in one module.

The formulas are those of the library sentence-transformers, whose files these are.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from strop.compiler.frontend.huggingface.inspection import home
from strop.compiler.frontend.huggingface.library import asked, library
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.reading import opened, read_json, require_inside

MODULES = "modules.json"
_LEGACY = {
    "pooling_mode_cls_token": "cls",
    "pooling_mode_max_tokens": "max",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_mean_sqrt_len_tokens": "mean_sqrt_len_tokens",
    "pooling_mode_weightedmean_tokens": "weightedmean",
    "pooling_mode_lasttoken": "lasttoken",
}
_ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    kind.__name__: kind
    for kind in (nn.ELU, nn.GELU, nn.Identity, nn.LeakyReLU, nn.Mish, nn.ReLU, nn.SiLU, nn.Sigmoid)
} | {"Tanh": nn.Tanh, "Softplus": nn.Softplus}
_Values = dict[str, Any]


def describes_embedding(folder: Path) -> bool:
    """Whether a folder holds a sentence encoder: its modules begin with hidden states."""
    if not (folder / MODULES).exists():
        return False
    settings = folder / "sentence_bert_config.json"
    values = read_json(settings, "the settings", within=home(folder)) if settings.exists() else {}
    task = values.get("transformer_task") if isinstance(values, dict) else None
    return task in (None, "feature-extraction")


def transformer_folder(folder: Path) -> Path:
    """Where the transformer itself lies: in the folder, or in one of its own inside it.

    Raises:
        UsageError: ``modules.json`` is damaged or begins with something else.
    """
    first = _modules(folder)[0]
    if _kind(first) != "Transformer":
        raise UsageError(f"{folder / MODULES} begins with {_kind(first)}, not with Transformer")
    return _place(folder, first)


def embedder(folder: Path, transformer: Any) -> nn.Module:
    """The whole sentence encoder.

    Raises:
        UsageError: a module or a setting that is not known here, or a damaged file.
    """
    stages = [_stage(folder, module) for module in _modules(folder)[1:]]
    if not stages or not isinstance(stages[0], Pooling):
        raise UsageError(f"{folder / MODULES}: no Pooling follows the transformer")
    return Embedder(transformer, stages).eval()


class Embedder(nn.Module):
    """A transformer, pooled, and what follows."""

    def __init__(self, transformer: Any, stages: list[nn.Module]) -> None:
        super().__init__()
        self.transformer, self.config = transformer, transformer.config
        self.pooling, *rest = stages
        self.rest = nn.Sequential(*rest)
        self.takes = ["input_ids", "attention_mask"]

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Args: integers (batch, tokens). Returns: ``sentence_embedding`` (batch, size)."""
        states = self.transformer(input_ids=input_ids, attention_mask=attention_mask)[0]
        return {"sentence_embedding": self.rest(self.pooling(states, attention_mask))}


class Pooling(nn.Module):
    """Token embeddings to one vector; several modes are concatenated."""

    def __init__(self, modes: list[str]) -> None:
        super().__init__()
        self.modes = modes

    def forward(self, states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Args: floats (batch, tokens, size); integers (batch, tokens), 1 for real tokens."""
        return torch.cat([_POOL[mode](states, mask) for mode in self.modes], -1)


def _first(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _at(states, mask.to(torch.int32).argmax(1))


def _last(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    positions = torch.arange(mask.shape[1], device=mask.device, dtype=torch.int32)
    return _at(
        states * mask[..., None].to(states.dtype), (mask.to(torch.int32) * positions).argmax(1)
    )


def _at(states: torch.Tensor, positions: torch.Tensor) -> torch.Tensor:
    index = positions[:, None, None].expand(-1, 1, states.shape[-1])
    return states.gather(1, index).squeeze(1)


def _largest(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return states.masked_fill(mask[..., None] == 0, float("-inf")).amax(1)


def _mean(states: torch.Tensor, mask: torch.Tensor, power: float = 1.0) -> torch.Tensor:
    weights = mask[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9) ** power


def _mean_sqrt(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    return _mean(states, mask, 0.5)


def _weighted(states: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Later tokens count more: weights 1, 2, ... from the first real one."""
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    padding = mask.to(torch.int32).argmax(1)[:, None]
    weights = (mask * (positions - padding))[..., None].to(states.dtype)
    return (states * weights).sum(1) / weights.sum(1).clamp(min=1e-9)


_POOL: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted,
    "lasttoken": _last,
}


class Dense(nn.Module):
    """A linear layer and its activation, around a residual where one is set."""

    def __init__(
        self, sizes: tuple[int, int], bias: bool, activation: nn.Module, add: bool
    ) -> None:
        super().__init__()
        self.linear, self.activation, self.add = nn.Linear(*sizes, bias=bias), activation, add
        if add and sizes[0] != sizes[1]:
            self.residual = nn.Linear(*sizes, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Args and returns: floats (batch, size)."""
        y: torch.Tensor = self.activation(self.linear(x))
        if not self.add:
            return y
        return y + (self.residual(x) if hasattr(self, "residual") else x)


class Normalize(nn.Module):
    """To length 1."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Args and returns: floats (batch, size)."""
        return nn.functional.normalize(x, p=2.0, dim=-1)


class Norm(nn.Module):
    """A layer norm."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Args and returns: floats (batch, size)."""
        y: torch.Tensor = self.norm(x)
        return y


def _modules(folder: Path) -> list[_Values]:
    path = folder / MODULES
    values = read_json(path, "the list of modules", within=home(folder))
    whole = isinstance(values, list) and all(
        isinstance(m, dict) and isinstance(m.get("type"), str) and isinstance(m.get("path"), str)
        for m in values
    )
    if not whole or not values:
        raise UsageError(f"{path} is not a list of modules with 'type' and 'path'")
    return list(values)


def _kind(module: _Values) -> str:
    package, _, _ = module["type"].partition(".")
    return str(module["type"]).rpartition(".")[2] if package == "sentence_transformers" else ""


def _place(folder: Path, module: _Values) -> Path:
    place = folder / str(module["path"])
    require_inside(place, f"the module {module['type']!r}", folder)
    return place


def _stage(folder: Path, module: _Values) -> nn.Module:
    place, kind = _place(folder, module), _kind(module)
    if kind == "Dropout":
        return nn.Identity()
    if kind not in _STAGES:
        raise UsageError(
            f"{folder / MODULES} names the module {module['type']!r}, which is not known here; "
            "write a factory that makes the whole encoder, and build that"
        )
    settings = place / "config.json"
    values = read_json(settings, "the settings", within=home(folder)) if settings.exists() else {}
    if not isinstance(values, dict):
        raise UsageError(f"{settings} is not a JSON object")
    made = _STAGES[kind](values, settings)
    if made.state_dict():
        _fill(made, place, home(folder))
    return made


def _pooling(values: _Values, path: Path) -> nn.Module:
    legacy = [mode for key, mode in _LEGACY.items() if values.get(key)]
    given = values.get("pooling_mode", legacy or ["mean"])
    modes = [given] if isinstance(given, str) else given
    if not isinstance(modes, list) or not modes or not all(m in _POOL for m in modes):
        raise UsageError(f"{path}: pooling_mode is {modes!r}; known: {', '.join(_POOL)}")
    if values.get("include_prompt") is False:
        raise UsageError(
            f"{path}: pooling leaves out the prompt, whose length a graph does not know; write a "
            "factory that takes a mask of its own for pooling"
        )
    return Pooling(modes)


def _dense(values: _Values, path: Path) -> nn.Module:
    sizes = values.get("in_features"), values.get("out_features")
    name = values.get("activation_function", "torch.nn.modules.activation.Tanh")
    activation = str(name or "Identity").rpartition(".")[2]
    if any(type(size) is not int or not 0 < size < 1 << 20 for size in sizes):
        raise UsageError(f"{path}: in_features and out_features are {sizes}")
    if activation not in _ACTIVATIONS or not str(name or "torch.").startswith("torch."):
        raise UsageError(f"{path}: the activation {name!r} is not known here; write a factory")
    made = _ACTIVATIONS[activation]()
    add = values.get("use_residual") is True
    return Dense((sizes[0], sizes[1]), values.get("bias", True) is True, made, add)  # type: ignore[arg-type]


def _norm(values: _Values, path: Path) -> nn.Module:
    size = values.get("dimension")
    if type(size) is not int or not 0 < size < 1 << 20:
        raise UsageError(f"{path}: dimension is {size!r}")
    return Norm(size)


def _normalize(values: _Values, path: Path) -> nn.Module:
    return Normalize()


_STAGES: dict[str, Callable[[_Values, Path], nn.Module]] = {
    "Pooling": _pooling,
    "Dense": _dense,
    "LayerNorm": _norm,
    "Normalize": _normalize,
}


def _fill(stage: nn.Module, place: Path, root: Path) -> None:
    """Load a stage's weights: all of them, and no others."""
    names = ("model.safetensors", "pytorch_model.bin")
    file = next((place / n for n in names if (place / n).exists()), place / names[0])
    with opened(file, "the weights", within=root):
        pass
    read = library().modeling_utils.load_state_dict
    weights = asked(f"hf:{place}: its weights could not be read", read, str(file))
    asked(f"hf:{place}: its weights do not fit", stage.load_state_dict, weights)
