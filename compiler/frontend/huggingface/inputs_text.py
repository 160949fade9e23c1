"""Example texts: what the folder's tokenizer gives and the model takes."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from strop.compiler.frontend.huggingface.checkpoint import Checkpoint
from strop.compiler.frontend.huggingface.examples import Axes, Batch, Examples, generator
from strop.compiler.frontend.huggingface.library import asked, loaded
from strop.compiler.frontend.huggingface.limits import checked_limit, own_limit
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.huggingface.settings import number, text_config
from strop.compiler.util.errors import UsageError

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
# With one of these, or a sentencepiece model, a folder has a tokenizer.
TOKENIZER_FILES = ("tokenizer.json", "vocab.txt", "vocab.json")
_CHARACTERS = 0x110000
ROWS = 2
CHOICES = 2
TokenRow = dict[str, list[Any]]


def text_examples(checkpoint: Checkpoint, tokenizer: Any, request: Request) -> Examples:
    """Batches of two texts each, padded at the end, with every input that the tokenizer gives.

    Raises:
        UsageError: the tokenizer fails, or gives tokens that the model does not have.
    """
    limit, notes = _limit(checkpoint, tokenizer, request)
    notes += _settle_padding(checkpoint, tokenizer)
    names = _names(checkpoint, tokenizer)
    rows = _rows(checkpoint, tokenizer, min(limit or 64, 64), names)
    _vary(rows, checkpoint, tokenizer)
    _add_boxes(rows, checkpoint)
    group = ROWS * (CHOICES if checkpoint.task.name == "multiple-choice" else 1)
    padding = _padding(checkpoint, tokenizer)
    batches = [_batch(rows[i : i + group], padding) for i in range(0, len(rows), group)]
    if checkpoint.task.name == "multiple-choice":
        batches = [{n: t.unflatten(0, (ROWS, CHOICES)) for n, t in b.items()} for b in batches]
    return Examples(batches, _axes(batches[0], limit), notes=notes)


def load_tokenizer(checkpoint: Checkpoint) -> Any:
    """The folder's tokenizer; None if it has none."""
    named = any((checkpoint.path / name).exists() for name in TOKENIZER_FILES)
    if not named and not any(checkpoint.path.glob("*.model")):
        return None
    from transformers import AutoTokenizer

    return loaded("the tokenizer", checkpoint.path, AutoTokenizer.from_pretrained)


def _limit(
    checkpoint: Checkpoint, tokenizer: Any, request: Request
) -> tuple[int | None, list[str]]:
    """The largest length to declare, and a note where it is less than the model's own."""
    limit = own_limit(checkpoint.module, tokenizer)
    if request.longest is not None:
        return asked_length(request, limit), []
    if limit is None:
        return None, []
    choices = CHOICES if checkpoint.task.name == "multiple-choice" else 1
    rows = (2 * ROWS + 1) * choices * (2 if choices > 1 else 1)
    vocabulary = number(text_config(checkpoint.module.config), "vocab_size") or 1
    outputs = vocabulary if checkpoint.task.name in ("fill-mask", "text-scoring") else 1
    checked = checked_limit(checkpoint.module, rows, outputs, limit)
    if checked == limit:
        return limit, []
    return checked, [
        f"the model takes sequences of up to {limit} tokens; it was built for up to {checked}, "
        f"which the check can hold in memory ({request},max-length=N asks for another length)"
    ]


def asked_length(request: Request, limit: int | None) -> int | None:
    """The length that the user asks for, or the model's own limit.

    Raises:
        UsageError: the model does not take so much.
    """
    if request.longest is not None and limit is not None and request.longest > limit:
        raise UsageError(
            f"{request}: max-length is {request.longest}, but the model takes {limit} at most"
        )
    return limit if request.longest is None else request.longest


def token_rows(checkpoint: Checkpoint, tokenizer: Any, longest: int) -> list[list[int]]:
    """The ids of several example texts.

    Raises:
        UsageError: the tokenizer fails, or gives tokens that the model does not have.
    """
    rows = _rows(checkpoint, tokenizer, longest, ["input_ids"])
    _vary(rows, checkpoint, tokenizer)
    return [row["input_ids"] for row in rows]


def _settle_padding(checkpoint: Checkpoint, tokenizer: Any) -> list[str]:
    """Tell a classifier that looks for the last token which tokens are padding.

    Raises:
        UsageError: neither config nor tokenizer says, so that it takes one text at a time.
    """
    config = text_config(checkpoint.module.config)
    decoder = "past_key_values" in checkpoint.takes
    decides = decoder and checkpoint.task.name == "text-classification"
    if not decides or number(config, "pad_token_id") is not None:
        return []
    pad = number(tokenizer, "pad_token_id")
    if pad is None:
        kind = type(checkpoint.module).__name__
        raise UsageError(
            f"hf:{checkpoint.path}: neither config.json nor a tokenizer names the token that pads "
            f"(pad_token_id), without which {kind} takes one text at a time; name it in config.json"
        )
    config.pad_token_id = pad
    return [f"padding is token {pad}, as the tokenizer says; config.json does not name it"]


def _rows(
    checkpoint: Checkpoint, tokenizer: Any, longest: int, names: Sequence[str]
) -> list[TokenRow]:
    """One encoded text, or pair of texts, each, with these inputs."""
    if tokenizer is None:
        return [_random_row(names, checkpoint, length) for length in (12, 9, 7, 12)]
    paired = checkpoint.task.pairs and _paired(checkpoint)
    rows = []
    for i, text in enumerate(SENTENCES):
        texts = [text, SENTENCES[i - 1]] if paired else [text]
        encoded = asked(
            f"hf:{checkpoint.path}: its tokenizer fails on a text",
            _encode,
            tokenizer,
            texts,
            longest,
        )
        row = {n: list(encoded[n]) for n in names if n in encoded}
        if not row.get("input_ids"):
            raise UsageError(f"hf:{checkpoint.path}: its tokenizer gives no input_ids for a text")
        rows.append(row)
    return rows


def _encode(tokenizer: Any, texts: list[str], longest: int) -> Mapping[str, Any]:
    options: dict[str, Any] = {"truncation": True, "max_length": longest}
    if "boxes" not in inspect.signature(type(tokenizer).__call__).parameters:
        result = tokenizer(*texts, **options)
    else:
        words = texts[-1].split()
        boxes = [_box(i) for i in range(len(words))]
        first = [texts[0]] if len(texts) > 1 else []
        result = tokenizer(*first, words, boxes=boxes, **options)
    assert isinstance(result, Mapping)
    return result


def _names(checkpoint: Checkpoint, tokenizer: Any) -> list[str]:
    """The inputs: what forward takes and the tokenizer gives, and what forward needs."""
    takes = checkpoint.takes
    given = ["input_ids", "attention_mask", "token_type_ids"]
    if tokenizer is not None:
        given = [n for n in tokenizer.model_input_names if n in takes]
        given = ["input_ids", *(n for n in given if n != "input_ids")]
    if not _has_types(checkpoint.module):
        given = [n for n in given if n != "token_type_ids"]
    needed = ["attention_mask"] if "attention_mask" in checkpoint.required else []
    return [n for n in dict.fromkeys([*given, *needed]) if n in takes]


def _has_types(module: Any) -> bool:
    """Whether the model has an embedding for segments; GPT-2 and others use that of words."""
    return any(
        ("token_type" in name or "seg_embed" in name) and parameter.shape[0] > 1
        for name, parameter in module.named_parameters()
    )


def _paired(checkpoint: Checkpoint) -> bool:
    name = checkpoint.task.name
    return name != "text-classification" or _has_types(checkpoint.module)


def _random_row(names: Sequence[str], checkpoint: Checkpoint, length: int) -> TokenRow:
    """A row for a folder without a tokenizer: ones, which ``_vary`` replaces."""
    types = [int(i > length // 2) for i in range(length)]
    rows = {
        "input_ids": [-1] * length,
        "attention_mask": [1] * length,
        "token_type_ids": types,
    }
    return {n: rows[n] for n in names if n in rows}


def _vary(rows: list[TokenRow], checkpoint: Checkpoint, tokenizer: Any) -> None:
    """Replace unknown words by random ones.

    A tokenizer with a small vocabulary knows no word of the example sentences. The model would
    give the same for all of them, and the check could not notice a mistake.

    Raises:
        UsageError: the tokenizer gives ids that the model has no vectors for.
    """
    # Models of characters have no table of words.
    words = number(text_config(checkpoint.module.config), "vocab_size") or _CHARACTERS
    largest = max(max(row["input_ids"]) for row in rows)
    if largest >= words:
        raise UsageError(
            f"hf:{checkpoint.path}: its tokenizer gives the token {largest}, but the model has "
            f"vectors for {words}: they are not of one model"
        )
    special = _special(checkpoint, tokenizer)
    unknown = getattr(tokenizer, "unk_token_id", None)
    ordinary = [i for i in range(min(words, 30_000)) if i not in special and i != unknown]
    random = generator()
    for row in rows:
        for i, token in enumerate(row["input_ids"]):
            if token in (-1, unknown) and ordinary:
                pick = int(torch.randint(len(ordinary), (1,), generator=random))
                row["input_ids"][i] = ordinary[pick]
    _end(rows, checkpoint)


def _special(checkpoint: Checkpoint, tokenizer: Any) -> set[int]:
    config = text_config(checkpoint.module.config)
    names = ("bos", "eos", "pad", "sep", "cls", "mask", "decoder_start")
    found = (number(config, f"{name}_token_id") for name in names)
    named = {token for token in found if token is not None}
    return named | set(getattr(tokenizer, "all_special_ids", None) or ())


def _end(rows: list[TokenRow], checkpoint: Checkpoint) -> None:
    """End every text with one end token; some classifiers read their result there."""
    end = number(checkpoint.module.config, "eos_token_id")
    if getattr(checkpoint.module, "ends", False) and end is not None:
        for row in rows:
            row["input_ids"][-1] = end


def _add_boxes(rows: list[TokenRow], checkpoint: Checkpoint) -> None:
    """Add the boxes of words on a page, which tokenizers of layout models do not give."""
    if "bbox" not in checkpoint.takes:
        return
    config = checkpoint.module.config
    # BROS takes shares of a page as floats, the others thousandths as integers.
    floats = hasattr(config, "dim_bbox")
    side = min(number(config, "max_2d_position_embeddings") or 1000, 1000)
    for row in rows:
        boxes = row.get("bbox") or [_box(i) for i in range(len(row["input_ids"]))]
        scaled = [[value * (side - 1) // 1000 for value in box] for box in boxes]
        row["bbox"] = [[v / side for v in box] for box in scaled] if floats else scaled


def _box(index: int) -> list[int]:
    """Left, top, right, bottom of a word, in thousandths of a page."""
    left, top = 97 * index % 800, 61 * index % 900
    return [left, top, left + 40 + 13 * index % 100, top + 30 + 7 * index % 50]


def _padding(checkpoint: Checkpoint, tokenizer: Any) -> dict[str, Any]:
    """The value that fills up shorter rows of a batch, by input."""
    config = text_config(checkpoint.module.config)
    pad = number(config, "pad_token_id")
    if pad is None:
        pad = number(tokenizer, "pad_token_id", "eos_token_id") or 0
    types = number(tokenizer, "pad_token_type_id") or 0
    return {"input_ids": pad, "token_type_ids": types, "bbox": [0, 0, 0, 0]}


def _batch(rows: list[TokenRow], padding: Mapping[str, Any]) -> Batch:
    longest = max(len(row["input_ids"]) for row in rows)
    return {
        name: torch.tensor(
            [row[name] + [padding.get(name, 0)] * (longest - len(row[name])) for row in rows]
        )
        for name in rows[0]
    }


def _axes(batch: Batch, limit: int | None) -> Axes:
    """Batch first, tokens after it (and after the choices)."""
    depth = batch["input_ids"].dim() - 1
    between = {1: "choices"} if depth == 2 else {}
    tokens = ("seq", 1, limit) if limit else "seq"
    return {name: {0: "batch", **between, depth: tokens} for name in batch}
