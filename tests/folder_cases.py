"""Tiny random checkpoints, one row a case: every task, in several architectures of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf
from folder_inputs import (
    Feeds,
    both,
    detection_processor,
    encoded,
    extractor,
    image,
    image_tower,
    sound,
    text,
    text_tower,
    tokenizer,
)
from folder_settings import (
    AST,
    BART,
    CLIP,
    CLIP_TEXT,
    DISTIL,
    DPT,
    GPT2,
    GROUPED,
    IMAGE,
    LAYERED,
    LAYOUT,
    LILT,
    MODERN,
    OPT,
    PYRAMID,
    RESNET,
    SIGLIP,
    SPEECH,
    STAGES,
    SWIN,
    T5,
    T5_CLASSIFIER,
    TEXT,
    WHISPER,
    YOLOS,
    detr,
    maskformer,
    upernet,
)  # fmt: skip

TYPES = ("token_type_ids",)
PLAIN, PAIRED, PAGE = text(), text(*TYPES), text(*TYPES, "bbox")
SQUARE, PHOTO = image((32, 32)), image((64, 64), (96, 64), (70, 93))
WAVES = (2, 4000), (1, 5317)
MEL = sound("input_features", (2, 80, 100))
DETECTOR = detr()
ENCODER: dict[str, Any] = {"task": "encoder", "expected": encoded}


@dataclass(frozen=True)
class FolderCase:
    """A checkpoint, and what to compare.

    Attributes:
        name: of the class, and the task where the user names one.
        make: the module, with random weights.
        feeds: inputs that the original takes, by a number that varies sizes and values.
        task: what the user writes after ``#``.
        expected: the original's outputs; what ``forward`` gives by default.
        files: written beside the weights: a tokenizer, a processor.
    """

    name: str
    make: Callable[[], Any]
    feeds: Callable[[int], Feeds]
    task: str = ""
    expected: Callable[[Any, Feeds], Mapping[str, torch.Tensor]] | None = None
    files: tuple[Callable[[Path], object], ...] = ()


def cases() -> list[FolderCase]:
    """Every case; making them makes no module."""
    return [*_bodies(), *_texts(), *_images(), *_sounds(), *_parts()]


def _case(
    kind: str,
    settings: Mapping[str, Any],
    feeds: Callable[[int], Feeds],
    *files: Callable[[Path], object],
    config: str = "",
    **more: Any,
) -> FolderCase:
    """A case of a class of transformers; its config class has the matching name."""

    def make() -> Any:
        prefix = kind.partition("For")[0].removesuffix("LMHeadModel").removesuffix("Model")
        settled = getattr(hf, config or f"{prefix}Config")(**settings)
        return getattr(hf, kind)(settled)

    task = more.get("task", "")
    return FolderCase(f"{kind}#{task}" if task else kind, make, feeds, files=files, **more)


def _bodies() -> list[FolderCase]:
    """Models without a head."""
    return [
        _case("BertModel", TEXT, PAIRED, tokenizer),
        _case("RobertaModel", TEXT | {"type_vocab_size": 1}, PLAIN, tokenizer),
        _case("DebertaV2Model", TEXT, PLAIN, tokenizer),
        _case("GPT2Model", GPT2, PLAIN, tokenizer),
        _case("T5EncoderModel", T5, PLAIN, tokenizer, config="T5Config"),
        _case("ViTModel", IMAGE, SQUARE),
        _case("Dinov2Model", IMAGE, SQUARE),
        _case("Wav2Vec2Model", SPEECH, sound("input_values", *WAVES)),
    ]


def _texts() -> list[FolderCase]:
    """Heads on texts and pairs of texts."""
    return [
        _case("BertForSequenceClassification", TEXT | {"num_labels": 3}, PAIRED, tokenizer),
        _case("ElectraForSequenceClassification", TEXT, PAIRED, tokenizer),
        _case("DistilBertForSequenceClassification", DISTIL, PLAIN, tokenizer),
        _case("GPT2ForSequenceClassification", GPT2, PLAIN, tokenizer),
        _case("BartForSequenceClassification", BART, PLAIN, tokenizer),
        _case("T5ForSequenceClassification", T5_CLASSIFIER, PLAIN, tokenizer),
        _case("BertForTokenClassification", TEXT | {"num_labels": 5}, PAIRED, tokenizer),
        _case("DebertaV2ForTokenClassification", TEXT, PLAIN, tokenizer),
        _case("LayoutLMForTokenClassification", LAYOUT, PAGE, tokenizer),
        _case("LiltForTokenClassification", LILT, PAGE, tokenizer),
        _case("BertForQuestionAnswering", TEXT, PAIRED, tokenizer),
        _case("DistilBertForQuestionAnswering", DISTIL, PLAIN, tokenizer),
        _case("BartForQuestionAnswering", BART, PLAIN, tokenizer),
        _case("BertForMultipleChoice", TEXT, text(*TYPES, choices=2), tokenizer),
        _case("DistilBertForMultipleChoice", DISTIL, text(choices=3), tokenizer),
        _case("BertForMaskedLM", TEXT, PAIRED, tokenizer),
        _case("RobertaForMaskedLM", TEXT | {"type_vocab_size": 1}, PLAIN, tokenizer),
        _case("ModernBertForMaskedLM", MODERN, PLAIN, tokenizer),
        _case("GPT2LMHeadModel", GPT2, PLAIN, tokenizer),
        _case("LlamaForCausalLM", GROUPED, PLAIN, tokenizer),
        _case("Qwen2ForCausalLM", GROUPED, PLAIN, tokenizer),
        _case("OPTForCausalLM", OPT, PLAIN, tokenizer),
        _case("BertForNextSentencePrediction", TEXT, PAIRED, tokenizer),
    ]


def _images() -> list[FolderCase]:
    """Heads on images."""
    return [
        _case("ViTForImageClassification", IMAGE | {"num_labels": 5}, SQUARE),
        _case("SwinForImageClassification", SWIN, SQUARE),
        _case("ResNetForImageClassification", RESNET, PHOTO),
        _case("ConvNextForImageClassification", STAGES, PHOTO),
        _case("MobileNetV2ForImageClassification", {"depth_multiplier": 0.35}, image((224, 224))),
        _case("SegformerForImageClassification", PYRAMID, PHOTO),
        _case("DetrForObjectDetection", DETECTOR, PHOTO),
        _case("DetrForObjectDetection", DETECTOR, image((64, 80), mask=True), detection_processor),
        _case("YolosForObjectDetection", YOLOS, image((32, 48))),
        _case("SegformerForSemanticSegmentation", PYRAMID, PHOTO),
        _case("UperNetForSemanticSegmentation", upernet(), image((64, 64))),
        _case(
            "MaskFormerForInstanceSegmentation",
            maskformer(),
            image((64, 64)),
            config="MaskFormerConfig",
        ),
        _case("GLPNForDepthEstimation", PYRAMID, image((224, 224))),
        _case("DPTForDepthEstimation", DPT, SQUARE),
    ]


def _sounds() -> list[FolderCase]:
    """Heads on sounds."""
    return [
        _case("Wav2Vec2ForCTC", SPEECH, sound("input_values", *WAVES)),
        _case("Wav2Vec2ForCTC", LAYERED, sound("input_values", *WAVES, mask=True), extractor),
        _case("HubertForSequenceClassification", SPEECH, sound("input_values", *WAVES)),
        _case("WhisperForAudioClassification", WHISPER, MEL),
        _case("ASTForAudioClassification", AST, sound("input_values", (2, 64, 32))),
    ]


def _parts() -> list[FolderCase]:
    """Models of texts and images, and parts of models."""
    return [
        _case("CLIPModel", CLIP, both, tokenizer),
        _case("SiglipModel", SIGLIP, both, tokenizer),
        _case("CLIPModel", CLIP, PLAIN, tokenizer, task="text-embedding", expected=text_tower),
        _case("CLIPModel", CLIP, SQUARE, tokenizer, task="image-embedding", expected=image_tower),
        _case("SiglipModel", SIGLIP, PLAIN, tokenizer, task="text-embedding", expected=text_tower),
        _case("CLIPTextModelWithProjection", CLIP_TEXT, PLAIN, tokenizer, config="CLIPTextConfig"),
        _case("CLIPVisionModelWithProjection", IMAGE, SQUARE, config="CLIPVisionConfig"),
        _case("SiglipVisionModel", IMAGE, SQUARE),
        _case("T5ForConditionalGeneration", T5, PLAIN, tokenizer, **ENCODER),
        _case(
            "BartForConditionalGeneration",
            BART,
            PLAIN,
            tokenizer,
            **ENCODER,
        ),
        _case(
            "WhisperForConditionalGeneration",
            WHISPER,
            MEL,
            **ENCODER,
        ),
    ]
