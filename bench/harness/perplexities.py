"""Perplexity on given text: of a module, of a decoder with caches, and of a file without them."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from strop.compiler.generate.forced import perplexity, surprise
from strop.compiler.util.numerics import Array

# Rows that a file is given at once: it scores the whole vocabulary at every place.
ROWS = 2


def of_module(folder: Path, ids: Array) -> float:
    """Of a checkpoint in eager torch; ids: [rows, seq] int64."""
    import torch
    import transformers

    transformers.utils.logging.disable_progress_bar()
    module = transformers.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True)
    with torch.inference_mode():
        return _perplexity(
            _losses(module(torch.from_numpy(part)).logits.numpy(), part) for part in _parts(ids)
        )


def of_artifact(folder: Path, ids: Array) -> float:
    """Of a decoder of strop's, token by token; ids: [rows, seq] int64."""
    from strop.compiler import load
    from strop.compiler.artifact.generating import opened_for_texts

    loaded = load(folder)
    sessions = {name: program.session for name, program in loaded.programs.items()}
    return perplexity(opened_for_texts(loaded.artifact, sessions).decoder({}), ids)


def of_genai(folder: Path, ids: Array) -> float:
    """Of a folder of onnxruntime-genai's builder, whose decoder scores every place.

    It is run in ONNX Runtime itself, with empty caches; ids: [rows, seq] int64.
    """
    import onnxruntime as ort

    decoder = json.loads((folder / "genai_config.json").read_text())["model"]["decoder"]
    heads, size = decoder["num_key_value_heads"], decoder["head_size"]
    path = str(folder / decoder["filename"])
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    caches = [i.name for i in session.get_inputs() if len(i.shape) == 4]

    def logits(part: Array) -> Array:
        none = np.zeros((len(part), heads, 0, size), np.float32)
        feeds = {"input_ids": part, "attention_mask": np.ones_like(part)}
        found: Array = session.run(["logits"], feeds | dict.fromkeys(caches, none))[0]
        return found

    return _perplexity(_losses(logits(part), part) for part in _parts(ids))


def _parts(ids: Array) -> Iterator[Array]:
    for start in range(0, len(ids), ROWS):
        yield ids[start : start + ROWS]


def _losses(logits: Array, ids: Array) -> Array:
    """Cross entropy of each token after the first under the scores of the place before."""
    return surprise(logits[:, :-1].reshape(-1, logits.shape[-1]), ids[:, 1:].ravel())


def _perplexity(losses: Iterable[Array]) -> float:
    return math.exp(np.concatenate(list(losses)).mean())
