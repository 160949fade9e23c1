"""The files of a folder that a server needs beside the model, and the names of its classes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from strop.compiler.frontend.huggingface.checkpoint import Checkpoint
from strop.compiler.frontend.huggingface.inspection import home
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.reading import opened

# Settings, tokenizers and processors by the names that transformers gives them.
_NAMES = frozenset(
    {
        "config.json",
        "generation_config.json",
        "preprocessor_config.json",
        "processor_config.json",
        "feature_extractor_config.json",
        "image_processor_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "special_tokens_map.json",
        "added_tokens.json",
        "chat_template.json",
        "chat_template.jinja",
        "config_sentence_transformers.json",
        "sentence_bert_config.json",
        "vocab.txt",
        "vocab.json",
        "merges.txt",
    }
)
# Vocabularies, which have a name of their own with some tokenizers.
_VOCABULARIES = frozenset({".txt", ".json", ".model", ".bpe", ".tiktoken", ".spm"})


def assets(folders: list[Path], tokenizer: Any) -> list[Path]:
    """Tokenizer, processor and config files; never weights, code, or what lies elsewhere.

    Raises:
        UsageError: one of them is a link that leads out of the folder.
    """
    files: dict[str, Path] = {}
    own = getattr(tokenizer, "vocab_files_names", {}).values()
    wanted = _NAMES | {n for n in own if Path(n).suffix in _VOCABULARIES and Path(n).name == n}
    for folder in folders:
        for path in sorted(folder.iterdir()):
            if path.name in wanted and path.name not in files:
                with opened(path, "the file", within=home(folder)):
                    files[path.name] = path
    return list(files.values())


def labels(checkpoint: Checkpoint) -> dict[int, str] | None:
    """The names of the classes, where the task has classes.

    Raises:
        UsageError: ``id2label`` holds something else.
    """
    if not checkpoint.task.labels:
        return None
    found = getattr(checkpoint.module.config, "id2label", None) or {}
    whole = isinstance(found, dict) and all(
        type(i) is int and isinstance(n, str) for i, n in found.items()
    )
    if not whole:
        raise UsageError(f"hf:{checkpoint.path}: id2label in the config is not a table of names")
    return dict(found)
