"""A local Hugging Face folder as a ``Model``: nothing is downloaded."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from strop.compiler.errors import UsageError, did_you_mean
from strop.compiler.model import DimSpec, Model

# Task -> the Auto class that loads it, and the suffix of the architectures that do it.
TASKS: dict[str, tuple[str, str]] = {
    "text-classification": ("AutoModelForSequenceClassification", "ForSequenceClassification"),
    "token-classification": ("AutoModelForTokenClassification", "ForTokenClassification"),
    "question-answering": ("AutoModelForQuestionAnswering", "ForQuestionAnswering"),
    "fill-mask": ("AutoModelForMaskedLM", "ForMaskedLM"),
    "text-generation": ("AutoModelForCausalLM", "ForCausalLM"),
    "image-classification": ("AutoModelForImageClassification", "ForImageClassification"),
    "feature-extraction": ("AutoModel", "Model"),
}
SENTENCES = (
    "The ferry leaves at nine and takes cars as well as passengers.",
    "Store the seeds in a cool, dry place until spring.",
    "He read the letter twice before he understood what it asked of him.",
    "Snow fell overnight.",
    "Which of the two bridges was built first, and who paid for it?",
    "Turn the dial to the left until it clicks, then pull.",
    "The committee postponed its decision because the figures for March were not yet known.",
    "A good knife is sharpened often and little.",
)


def load_folder(path: Path, task: str | None) -> Model:
    """Load a checkpoint with its config, and make example inputs and dynamic dims for it.

    Raises:
        UsageError: no config in the folder, an unknown task, or an input kind not known here.
    """
    if not (path / "config.json").is_file():
        raise UsageError(f"hf:{path}: there is no config.json in that folder")
    transformers = _transformers()
    config = _loaded(path, transformers.AutoConfig.from_pretrained)
    task = task or guess_task(config)
    if task not in TASKS:
        raise UsageError(f"hf:{path}#{task}: unknown task{did_you_mean(task, list(TASKS))}")
    if config.is_encoder_decoder:
        raise UsageError(
            f"hf:{path}: {config.model_type} is an encoder-decoder, which generates step by step; "
            "write a factory that wraps the part to build and gives its example inputs"
        )
    module = _module(path, getattr(transformers, TASKS[task][0]))
    if module.main_input_name == "pixel_values":
        return _image_model(module)
    if module.main_input_name == "input_ids":
        return _text_model(module, path)
    raise UsageError(
        f"hf:{path}: no example inputs are known for a {config.model_type} "
        f"({module.main_input_name}); write a factory and give them"
    )


def _transformers() -> Any:
    # Both must be set before the import; nothing is looked up beyond the folder, and the command
    # line has a progress display of its own.
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    try:
        import transformers
    except ImportError as error:
        raise UsageError("hf: sources need transformers: pip install 'strop[hf]'") from error
    transformers.utils.logging.disable_progress_bar()
    # Weights that are missing are an error here, not a report.
    transformers.utils.logging.set_verbosity_error()
    return transformers


def _module(path: Path, auto: Any) -> Any:
    """The model in eval mode, every weight from the checkpoint."""
    module, info = _loaded(path, auto.from_pretrained, output_loading_info=True)
    missing = sorted(info["missing_keys"])
    if missing and all(name.startswith("pooler.") for name in missing):
        # Encoders trained without a pooler are common; what it would return is random.
        module, info = _loaded(
            path, auto.from_pretrained, output_loading_info=True, add_pooling_layer=False
        )
        missing = sorted(info["missing_keys"])
    if missing:
        raise UsageError(
            f"hf:{path}: the checkpoint lacks weights that a {type(module).__name__} has: "
            f"{', '.join(missing[:5])}; they would be random. Is it another task's?"
        )
    if hasattr(module.config, "use_cache"):
        module.config.use_cache = False
    return module.eval()


def _loaded(path: Path, load: Callable[..., Any], **options: Any) -> Any:
    """Call one of transformers' loaders on the folder, and on nothing else.

    Raises:
        UsageError: it refuses the folder.
    """
    try:
        return load(path, local_files_only=True, trust_remote_code=False, **options)
    except Exception as error:
        reason = str(error).strip().splitlines()
        raise UsageError(
            f"hf:{path}: transformers could not load it: {type(error).__name__}: "
            f"{reason[0] if reason else ''}"
        ) from error


def guess_task(config: Any) -> str:
    """The task of the first architecture in a config; feature extraction if none says."""
    for architecture in config.architectures or []:
        for task, (_, suffix) in TASKS.items():
            if architecture.endswith(suffix):
                return task
    return "feature-extraction"


def _text_model(module: Any, path: Path) -> Model:
    limit = getattr(module.config, "max_position_embeddings", None) or 512
    # RoBERTa-like models count positions from padding_idx + 1.
    offset = (module.config.pad_token_id or 0) + 1 if "roberta" in module.config.model_type else 0
    longest = min(int(limit) - offset, 512)
    calibration = _sentences(module, path)
    axes: dict[int, DimSpec] = {0: "batch", 1: ("seq", 1, longest)}
    return Model(
        module,
        example_inputs=calibration[0],
        dynamic={"input_ids": axes, "attention_mask": axes},
        calibration=calibration,
    )


def _sentences(module: Any, path: Path) -> list[dict[str, Any]]:
    import torch
    import transformers

    if not any((path / name).exists() for name in ("tokenizer.json", "vocab.txt", "vocab.json")):
        ids = torch.randint(
            5, module.config.vocab_size, (4, 24), generator=torch.Generator().manual_seed(0)
        )
        return [{"input_ids": ids, "attention_mask": torch.ones_like(ids)}]
    tokenizer = _loaded(path, transformers.AutoTokenizer.from_pretrained)
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    batches = []
    for i in range(0, len(SENTENCES), 4):
        batch = tokenizer(
            list(SENTENCES[i : i + 4]), padding=True, padding_side="right", return_tensors="pt"
        )
        batches.append({n: batch[n] for n in ("input_ids", "attention_mask")})
    return batches


def _image_model(module: Any) -> Model:
    import torch

    config = module.config
    size = getattr(config, "image_size", 224)
    height, width = (size, size) if isinstance(size, int) else size
    pixels = torch.randn(
        2, config.num_channels, height, width, generator=torch.Generator().manual_seed(0)
    )
    return Model(module, {"pixel_values": pixels}, dynamic={"pixel_values": {0: "batch"}})
