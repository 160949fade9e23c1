"""Inputs of tiny checkpoints, and the files beside them: tokenizers and processors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
import transformers as hf

Feeds = dict[str, torch.Tensor]
WORDS = 99


def tokenizer(folder: Path) -> None:
    """A BERT-like tokenizer of 99 words, which tells segments apart."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"w{i}" for i in range(WORDS - 5))]
    path = folder / "vocab.txt"
    path.write_text("\n".join(words))
    hf.BertTokenizerFast(str(path)).save_pretrained(folder)


def detection_processor(folder: Path) -> None:
    """It resizes to 64 pixels or more, and says which of them are padding."""
    edges = {"shortest_edge": 64, "longest_edge": 96}
    hf.DetrImageProcessorPil(size=edges).save_pretrained(folder)


def extractor(folder: Path) -> None:
    """It says which samples are padding."""
    hf.Wav2Vec2FeatureExtractor(return_attention_mask=True).save_pretrained(folder)


def text(*more: str, choices: int = 0) -> Callable[[int], Feeds]:
    """Texts of several lengths, the first row padded, with ``more`` inputs."""

    def feeds(number: int) -> Feeds:
        random = torch.Generator().manual_seed(number)
        batch, length = ((2, 9), (3, 17), (1, 5))[number % 3]
        shape = (batch, choices, length) if choices else (batch, length)
        ids = torch.randint(5, WORDS, shape, generator=random)
        ids[..., 0], ids[..., -1] = 2, 3
        mask = torch.ones_like(ids)
        if batch > 1:
            mask[0, ..., length - 2 :] = 0
            ids[0, ..., length - 3], ids[0, ..., length - 2 :] = 3, 0
        corner = torch.randint(0, 60, (*shape, 2), generator=random)
        types = (torch.arange(length) > length // 2).long().expand(shape).contiguous()
        every = {
            "input_ids": ids,
            "attention_mask": mask,
            "token_type_ids": types,
            "bbox": torch.cat([corner, corner + torch.tensor([20, 30])], -1),
        }
        return {n: every[n] for n in ("input_ids", "attention_mask", *more)}

    return feeds


def image(*sizes: tuple[int, int], mask: bool = False) -> Callable[[int], Feeds]:
    """Images of these sizes, in turn, with a mask of padding."""

    def feeds(number: int) -> Feeds:
        random = torch.Generator().manual_seed(number)
        height, width = sizes[number % len(sizes)]
        batch = 1 + number % 2
        made = {"pixel_values": torch.randn(batch, 3, height, width, generator=random)}
        if mask:
            made["pixel_mask"] = torch.ones(batch, height, width, dtype=torch.long)
            made["pixel_mask"][0, height - 20 :] = 0
        return made

    return feeds


def sound(name: str, *shapes: tuple[int, ...], mask: bool = False) -> Callable[[int], Feeds]:
    """Recordings, or features, of these shapes, in turn."""

    def feeds(number: int) -> Feeds:
        random = torch.Generator().manual_seed(number)
        made = {name: torch.randn(shapes[number % len(shapes)], generator=random)}
        if mask:
            # As feature extractors of sounds give it.
            made["attention_mask"] = torch.ones(made[name].shape[:2], dtype=torch.int32)
            made["attention_mask"][0, made[name].shape[1] * 3 // 4 :] = 0
        return made

    return feeds


def both(number: int) -> Feeds:
    """Texts and images, of different counts."""
    return text()(number) | image((32, 32))(number + 1)


def encoded(module: Any, feeds: Feeds) -> Mapping[str, torch.Tensor]:
    """What the encoder gives."""
    return {"last_hidden_state": module.get_encoder()(**feeds).last_hidden_state}


def text_tower(module: Any, feeds: Feeds) -> Mapping[str, torch.Tensor]:
    """What the text tower gives."""
    return {"text_embeds": module.get_text_features(**feeds).pooler_output}


def image_tower(module: Any, feeds: Feeds) -> Mapping[str, torch.Tensor]:
    """What the image tower gives."""
    return {"image_embeds": module.get_image_features(**feeds).pooler_output}
