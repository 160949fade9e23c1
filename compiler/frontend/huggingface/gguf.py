"""A GGUF file as a causal language model, through transformers' own reader.

Weights are widened to float32. The file is data: transformers and ``gguf`` read it, nothing runs.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from strop.compiler.frontend.huggingface.checkpoint import Checkpoint, for_inference
from strop.compiler.frontend.huggingface.library import asked, library, loaded
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.huggingface.tasks import TASKS
from strop.compiler.util.errors import UsageError, did_you_mean
from strop.compiler.util.files.reading import opened
from strop.compiler.util.quiet import quiet_torch

_MAGIC = b"GGUF"
_NEEDED = ("gguf", "accelerate")
_TASKED = ("text-generation", "text-scoring")
# Config and tokenizer as transformers writes them, beside the artifact until the process ends.
_written: list[TemporaryDirectory[str]] = []


def is_gguf(path: Path) -> bool:
    """Whether a source is such a file, by its name."""
    return path.suffix == ".gguf" and not path.is_dir()


def open_gguf(request: Request) -> tuple[Checkpoint, Any, list[Path]]:
    """The checkpoint, its tokenizer, and the files that a server needs beside the artifact.

    Raises:
        UsageError: a package is missing, the file is damaged or of an architecture that is not
            known, its weights do not fit, or it is asked for another task.
    """
    task = _task(request)
    with opened(request.path, "the GGUF file") as stream:
        if stream.read(len(_MAGIC)) != _MAGIC:
            raise UsageError(f"{request}: that is no GGUF file: it does not begin with 'GGUF'")
    transformers = library()
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        raise UsageError(
            f"{request}: GGUF files are read with {' and '.join(_NEEDED)}; "
            f"{' and '.join(missing)} is missing: pip install 'strop[gguf]'"
        )
    module = for_inference(_module(transformers, request))
    tokenizer = _read("the tokenizer", transformers.AutoTokenizer, request)
    notes = ["the weights of the GGUF file were widened to float32 before anything else"]
    return (
        Checkpoint(request.path, TASKS[task], module, notes),
        tokenizer,
        _files(module, tokenizer),
    )


def _task(request: Request) -> str:
    task = request.task or _TASKED[0]
    if task not in _TASKED:
        raise UsageError(
            f"{request}: a GGUF file is built for {' or '.join(_TASKED)}"
            f"{did_you_mean(task, list(_TASKED))}"
        )
    return task


def _read(what: str, kind: Any, request: Request, **options: Any) -> Any:
    with quiet_torch():  # the reader draws progress bars whatever it is told
        return loaded(
            f"{what} of {request.path.name}",
            request.path.absolute().parent,
            kind.from_pretrained,
            gguf_file=request.path.name,
            **options,
        )


def _module(transformers: Any, request: Request) -> Any:
    """A fresh module with the weights of the file: the one that was read keeps what reads GGUF."""
    read, info = _read(
        "the weights", transformers.AutoModelForCausalLM, request, output_loading_info=True
    )
    lost = sorted(info["missing_keys"])
    if lost:
        raise UsageError(
            f"{request}: the file lacks weights that a {type(read).__name__} has: "
            f"{', '.join(lost[:5])}; they would be random"
        )
    values = read.config.to_dict()
    values.pop("quantization_config", None)
    config = type(read.config).from_dict(values | {"dtype": "float32"})
    module = type(read)(config)
    weights = {name: tensor.to(torch.float32) for name, tensor in read.state_dict().items()}
    asked(f"{request}: its weights do not fit", module.load_state_dict, weights)
    module.tie_weights()
    module.generation_config = read.generation_config
    return module.float()


def _files(module: Any, tokenizer: Any) -> list[Path]:
    """Config and tokenizer, written as transformers writes them."""
    folder = TemporaryDirectory(prefix="strop-gguf-")
    _written.append(folder)
    for part in (module.config, module.generation_config, tokenizer):
        part.save_pretrained(folder.name)
    return sorted(path for path in Path(folder.name).iterdir() if path.is_file())
