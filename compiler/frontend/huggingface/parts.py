"""Parts of a model that are built alone: an encoder, a tower, a classifier without branches."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.util.errors import UsageError


class TextTower(nn.Module):
    """What a model of texts and images makes of texts alone, projected, not normalized."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole, self.config = whole, whole.config
        self.takes = [
            name
            for name in inspect.signature(whole.get_text_features).parameters
            if name in ("input_ids", "attention_mask", "token_type_ids")
        ]

    def forward(
        self,
        input_ids: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        token_type_ids: torch.Tensor | None = None,
    ) -> dict[str, torch.Tensor]:
        """Args: integers (texts, tokens). Returns: ``text_embeds`` (texts, size)."""
        given = {"attention_mask": attention_mask, "token_type_ids": token_type_ids}
        more = {name: value for name, value in given.items() if value is not None}
        return {"text_embeds": _pooled(self.whole.get_text_features(input_ids, **more))}


class ImageTower(nn.Module):
    """What a model of texts and images makes of images alone, projected, not normalized."""

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.whole, self.config = whole, whole.config
        self.takes = ["pixel_values"]

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Args: floats (images, channels, height, width). Returns: ``image_embeds``."""
        return {"image_embeds": _pooled(self.whole.get_image_features(pixel_values))}


def _pooled(features: Any) -> torch.Tensor:
    """Releases of transformers return the vector itself, or hold it beside the hidden states."""
    found = features if isinstance(features, torch.Tensor) else features.pooler_output
    assert isinstance(found, torch.Tensor)
    return found


class LastEndClassifier(nn.Module):
    """An encoder-decoder that classifies a text by the decoder's state at its last end token.

    Where examples are made for it, each text ends in one such token (``ends``).
    The original selects that state by a boolean index, whose size only the data know; this takes
    the same state by its position, which gives the same numbers.
    """

    ends = True

    def __init__(self, whole: Any) -> None:
        super().__init__()
        self.body = getattr(whole, whole.base_model_prefix)
        self.head = whole.classification_head
        self.config, self.takes = whole.config, ["input_ids", "attention_mask"]
        self.shift = getattr(whole, "_shift_right", None)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> dict[str, torch.Tensor]:
        """Args: integers (batch, tokens). Returns: ``logits`` (batch, classes)."""
        shifted = {"decoder_input_ids": self.shift(input_ids)} if self.shift else {}
        states = self.body(input_ids, attention_mask=attention_mask, **shifted).last_hidden_state
        positions = torch.arange(input_ids.shape[1], device=input_ids.device, dtype=torch.int32)
        ends = input_ids.eq(self.config.eos_token_id).to(torch.int32) * positions
        last = ends.argmax(1)[:, None, None].expand(-1, 1, states.shape[-1])
        return {"logits": self.head(states.gather(1, last).squeeze(1))}


def encoder_of(whole: Any, request: Request) -> Any:
    """The encoder of an encoder-decoder.

    Raises:
        UsageError: the model is none.
    """
    if not getattr(whole.config, "is_encoder_decoder", False):
        raise UsageError(
            f"{request}: {type(whole).__name__} is not an encoder-decoder; '#feature-extraction' "
            "gives its hidden states"
        )
    return whole.get_encoder()


def tower_of(whole: Any, request: Request) -> Any:
    """The tower for texts or for images; the model itself if it is one already.

    Raises:
        UsageError: the model has no such tower.
    """
    wanted = "text" if request.task == "text-embedding" else "image"
    if hasattr(whole, f"get_{wanted}_features"):
        return TextTower(whole) if wanted == "text" else ImageTower(whole)
    # A tower saved alone: CLIPTextModelWithProjection, SiglipVisionModel.
    if f"{'Text' if wanted == 'text' else 'Vision'}Model" in type(whole).__name__:
        return whole
    raise UsageError(f"{request}: {type(whole).__name__} has no encoder of its own for {wanted}s")


def keep_outputs(module: nn.Module, names: tuple[str, ...]) -> None:
    """Let a module return these of its outputs only, where it has them."""

    def only(_: nn.Module, inputs: Any, result: Any) -> Any:
        kept = {n: result[n] for n in names if isinstance(result, dict) and n in result}
        return kept or result

    module.register_forward_hook(only)
