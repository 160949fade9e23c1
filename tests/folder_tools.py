"""One checkpoint folder built and compared with the original: inputs, heads and numbers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from folder_cases import FolderCase
from folder_inputs import Feeds

from strop.compiler.artifact.loaded import Loaded, load
from strop.compiler.driver.driver import build
from strop.compiler.frontend.huggingface import load_folder
from strop.compiler.util.errors import StropError

_FEEDS = 3
# Of the largest number: float32 on both sides.
_TOLERANCE = 1e-3


@dataclass(frozen=True)
class FolderOutcome:
    """How a case ended.

    Attributes:
        stage: "ok", "refused" (a sentence of strop's), or "wrong".
        why: in words; of what is ok, the dims.
    """

    stage: str
    why: str


def saved(case: FolderCase, folder: Path) -> Any:
    """Write the checkpoint of a case; returns the original module."""
    torch.manual_seed(0)
    module = case.make().eval()
    folder.mkdir(parents=True)
    module.save_pretrained(folder)
    for put in case.files:
        put(folder)
    return module


def run_case(case: FolderCase, work: Path) -> FolderOutcome:
    """Build one folder, and compare the file with the original at several sizes."""
    original = saved(case, work / "checkpoint")
    task = f"#{case.task}" if case.task else ""
    try:
        artifact = build(load_folder(f"{work / 'checkpoint'}{task}"), work / "out")
    except StropError as error:
        return FolderOutcome("refused", f"exit {error.exit_code}: {error}")
    loaded = load(work / "out")
    for number in range(_FEEDS):
        wrong = _difference(case, original, loaded, case.feeds(number))
        if wrong:
            return FolderOutcome("wrong", wrong)
    dims = [
        f"{d['name']} {d['min']}..{d['max'] or ''}" for d in artifact.manifest["contract"]["dims"]
    ]
    return FolderOutcome("ok", ", ".join(dims))


def _difference(case: FolderCase, original: Any, loaded: Loaded, feeds: Feeds) -> str | None:
    if set(loaded.declared) != set(feeds):
        return f"inputs are {sorted(loaded.declared)}, not {sorted(feeds)}"
    with torch.no_grad():
        expected = case.expected(original, feeds) if case.expected else original(**feeds)
    got = loaded(**{name: tensor.numpy() for name, tensor in feeds.items()})
    names = [o["name"] for o in loaded.artifact.manifest["contract"]["outputs"]]
    for name, array in zip(names, got):
        want = expected[name].numpy()
        if array.shape != want.shape:
            return f"{name} has shape {array.shape}, not {want.shape}"
        error = float(np.abs(array - want).max()) / max(1.0, float(np.abs(want).max()))
        if not error <= _TOLERANCE:
            return f"{name} is off by {error:.2e} at {_shapes(feeds)}"
    return None


def _shapes(feeds: Feeds) -> str:
    return ", ".join(f"{name} {tuple(tensor.shape)}" for name, tensor in feeds.items())


def generated(original: Any, ids: torch.Tensor, mask: torch.Tensor, count: int) -> torch.Tensor:
    """Ids of ``count`` more tokens by ``generate``, greedily and without an end: [batch, count]."""
    with torch.no_grad():
        made = original.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=count,
            do_sample=False,
            num_beams=1,
            use_cache=True,
            eos_token_id=None,
            pad_token_id=0,
        )
    tokens: torch.Tensor = made[:, ids.shape[1] :]
    return tokens
