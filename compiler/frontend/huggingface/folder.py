"""A checkpoint folder as a ``Model``: the class it names, examples, and what servers need."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from strop.compiler.frontend.huggingface.assets import assets, labels
from strop.compiler.frontend.huggingface.checkpoint import Checkpoint, load_checkpoint
from strop.compiler.frontend.huggingface.examples import (
    Batch,
    Examples,
    as_model,
    at_sizes,
    failure,
)
from strop.compiler.frontend.huggingface.gguf import is_gguf, open_gguf
from strop.compiler.frontend.huggingface.inputs_audio import audio_examples
from strop.compiler.frontend.huggingface.inputs_image import image_examples
from strop.compiler.frontend.huggingface.inputs_text import load_tokenizer, text_examples
from strop.compiler.frontend.huggingface.parts import (
    LastEndClassifier,
    encoder_of,
    keep_outputs,
    tower_of,
)
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.huggingface.sentence import (
    describes_embedding,
    embedder,
    transformer_folder,
)
from strop.compiler.frontend.huggingface.sequence_to_sequence import sequence_to_sequence
from strop.compiler.frontend.huggingface.tasks import SEQUENCE_TO_SEQUENCE
from strop.compiler.frontend.huggingface.text_generation import text_generation
from strop.compiler.frontend.model import Model
from strop.compiler.frontend.programs import Programs
from strop.compiler.util.errors import UsageError

# Encoder-decoders that give one answer for the whole input, and need no generation.
_ONE_STEP = ("text-classification", "token-classification", "question-answering")


def load(request: Request) -> Model | Programs:
    """Load a folder.

    Raises:
        UsageError: the folder, its weights or the task are not as they must be, or the module
            does not take the inputs that can be made for it.
    """
    checkpoint, whole, tokenizer, files = _opened(request)
    keep_outputs(checkpoint.module, checkpoint.task.outputs)
    if checkpoint.task.name == "text-generation":
        return replace(text_generation(checkpoint, tokenizer, request), files=files)
    examples = _examples(checkpoint, tokenizer, request)
    if checkpoint.task.name in SEQUENCE_TO_SEQUENCE:
        programs = sequence_to_sequence(checkpoint, tokenizer, examples, request)
        return replace(programs, files=files)
    _require_taken(checkpoint, examples)
    if isinstance(checkpoint.module, LastEndClassifier):
        _require_equal(whole, checkpoint.module, examples.batches)
    return as_model(
        checkpoint.module,
        examples,
        files=files,
        labels=labels(checkpoint),
        notes=[*checkpoint.notes, *examples.notes],
    )


def _opened(request: Request) -> tuple[Checkpoint, Any, Any, list[Path]]:
    """What is to be built, the whole module that was loaded, its tokenizer, and files to ship."""
    if is_gguf(request.path):
        checkpoint, tokenizer, files = open_gguf(request)
        return checkpoint, checkpoint.module, tokenizer, files
    checkpoint, whole = _loaded(request)
    writes = checkpoint.task.name in SEQUENCE_TO_SEQUENCE
    tokenizer = load_tokenizer(checkpoint) if writes or "input_ids" in checkpoint.takes else None
    files = assets(list(dict.fromkeys([checkpoint.path, request.path])), tokenizer)
    return checkpoint, whole, tokenizer, files


def _loaded(request: Request) -> tuple[Checkpoint, Any]:
    """The checkpoint of what is to be built, and the whole module that was loaded."""
    embeds = request.task is None and describes_embedding(request.path)
    if embeds or request.task == "sentence-embedding":
        inner = replace(request, path=transformer_folder(request.path), task="sentence-embedding")
        checkpoint = load_checkpoint(inner)
        return replace(checkpoint, module=embedder(request.path, checkpoint.module)), None
    checkpoint = load_checkpoint(request)
    part = _part(checkpoint, request).eval()
    return replace(checkpoint, module=part), checkpoint.module


def _part(checkpoint: Checkpoint, request: Request) -> Any:
    """The part of the loaded module that is built.

    Raises:
        UsageError: it generates step by step, or lacks the part that the user names.
    """
    module, task = checkpoint.module, checkpoint.task
    if task.name in SEQUENCE_TO_SEQUENCE:
        return module
    if task.name == "encoder":
        return encoder_of(module, request)
    if task.name in ("text-embedding", "image-embedding"):
        return tower_of(module, request)
    if "decoder_input_ids" not in checkpoint.takes or not module.config.is_encoder_decoder:
        return module
    if task.name == "text-classification" and hasattr(module, "classification_head"):
        return LastEndClassifier(module)
    if task.name in _ONE_STEP:
        return module
    raise UsageError(
        f"{request}: {type(module).__name__} is an encoder-decoder, which writes its answer step "
        f"by step; hf:{request.path}#encoder builds its encoder, and a factory can wrap one step"
    )


def _examples(checkpoint: Checkpoint, tokenizer: Any, request: Request) -> Examples:
    """Inputs of every kind that the module takes.

    Raises:
        UsageError: it takes none that is known here.
    """
    takes = checkpoint.takes
    texts = "input_ids" in takes
    if texts:
        examples = text_examples(checkpoint, tokenizer, request)
        if "pixel_values" in takes:
            return examples.beside(image_examples(checkpoint, beside_texts=True))
        return examples
    if "pixel_values" in takes:
        return image_examples(checkpoint, beside_texts=False)
    for name in ("input_values", "input_features"):
        if name in takes:
            return audio_examples(checkpoint, name)
    raise UsageError(
        f"{request}: no example inputs are known for a {type(checkpoint.module).__name__}, which "
        f"takes {', '.join(takes[:5])}; write a factory and give them"
    )


def _require_taken(checkpoint: Checkpoint, examples: Examples) -> None:
    """Run the module on every batch, and at the ends of the ranges of its dims.

    Raises:
        UsageError: it fails there. A later message would name a factory, and the user wrote none.
    """
    batches = list(examples.batches)
    ranges = {spec for axes in examples.axes.values() for spec in axes.values()}
    bounded = [spec for spec in ranges if not isinstance(spec, str)]
    for end in (1, 2):
        sizes = {"batch": 1} | {str(spec[0]): int(spec[end]) for spec in bounded}
        batches.append(at_sizes(examples.batches[0], examples.axes, sizes))
    for batch in batches if bounded else examples.batches:
        problem = failure(checkpoint.module, batch)
        if problem:
            shapes = ", ".join(f"{name} {tuple(t.shape)}" for name, t in batch.items())
            raise UsageError(
                f"hf:{checkpoint.path}: {type(checkpoint.module).__name__} does not take the "
                f"inputs that were made for it from the folder ({shapes}): {problem}. If the "
                "checkpoint is in order, write a factory and give its inputs"
            )


def _require_equal(whole: Any, part: Any, batches: list[Batch]) -> None:
    """Check that a rewritten classifier gives the numbers of the original.

    Raises:
        UsageError: they differ.
    """
    for batch in batches:
        with torch.no_grad():
            expected, got = whole(**batch).logits, part(**batch)["logits"]
        if not torch.allclose(expected, got, rtol=1e-4, atol=1e-5):
            raise UsageError(
                f"{type(whole).__name__} does not pool at the last end token as its kind does; "
                "write a factory"
            )
