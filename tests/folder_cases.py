"""Tiny random checkpoints, one row a case: every task, in several architectures of transformers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import transformers as hf

Feeds = dict[str, torch.Tensor]
WORDS = 99
SMALL = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
TEXT = SMALL | {"vocab_size": WORDS}
IMAGE = SMALL | {"image_size": 32, "patch_size": 8}
BART = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "vocab_size": WORDS,
    "max_position_embeddings": 64,
    "eos_token_id": 3,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "decoder_start_token_id": 3,
}
T5 = {"vocab_size": WORDS, "d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4}
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "vocab_size": WORDS, "pad_token_id": 0}
STAGES = {"hidden_sizes": [8, 16, 24, 32], "depths": [1, 1, 1, 1]}
PYRAMID = STAGES | {"num_attention_heads": [1, 2, 2, 4], "decoder_hidden_size": 16}
OUT = {"out_features": ["stage1", "stage2", "stage3", "stage4"]}
DETR = {
    "d_model": 32,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "encoder_attention_heads": 2,
    "decoder_attention_heads": 2,
    "encoder_ffn_dim": 32,
    "decoder_ffn_dim": 32,
    "num_queries": 6,
}
SPEECH = SMALL | {
    "vocab_size": 30,
    "conv_dim": (16, 16),
    "conv_stride": (5, 4),
    "conv_kernel": (10, 8),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 2,
    "pad_token_id": 0,
}
WHISPER = {k: v for k, v in BART.items() if k != "max_position_embeddings"} | {
    "num_mel_bins": 80,
    "max_source_positions": 50,
    "suppress_tokens": None,
    "begin_suppress_tokens": None,
}
CLIP_TEXT = TEXT | {"max_position_embeddings": 32, "bos_token_id": 2, "eos_token_id": 3}


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


def _row(
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


_TYPES = ("token_type_ids",)
_PAIRED = text(*_TYPES)
_PLAIN = text()
_DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": WORDS}
_LAYOUT = TEXT | {"max_2d_position_embeddings": 128, "num_labels": 4}
_PAGE = text(*_TYPES, "bbox")
_KV = TEXT | {"num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
_RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 5}
_SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "window_size": 4} | {
    "depths": [1, 1],
    "num_heads": [2, 2],
}
_CLIP = {"text_config": CLIP_TEXT, "vision_config": IMAGE, "projection_dim": 16}
_SIGLIP = {"text_config": CLIP_TEXT, "vision_config": IMAGE}
_WAVES = (2, 4000), (1, 5317)
_AST = SMALL | {"max_length": 64, "num_mel_bins": 32}
_DPT = IMAGE | {
    "num_hidden_layers": 4,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [8, 8, 16, 16],
    "fusion_hidden_size": 16,
    "is_hybrid": False,
}


_MODERN = TEXT | {
    "global_attn_every_n_layers": 2,
    "local_attention": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "max_position_embeddings": 64,
}
_T5_CLASSIFIER = T5 | {"eos_token_id": 3, "decoder_start_token_id": 0}
_OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 64,
    "vocab_size": WORDS,
    "word_embed_proj_dim": 32,
    "max_position_embeddings": 64,
}
_LILT = _LAYOUT | {"hidden_size": 48}
_YOLOS = IMAGE | {"image_size": [32, 48], "num_detection_tokens": 5}
_MEL = sound("input_features", (2, 80, 100))
_ENCODER: dict[str, Any] = {"task": "encoder", "expected": encoded}
_LAYERED = SPEECH | {"feat_extract_norm": "layer"}


def _detr() -> dict[str, Any]:
    backbone = hf.ResNetConfig(embedding_size=8, **STAGES, out_features=["stage4"])
    own = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return DETR | own | {"backbone_config": backbone}


def cases() -> list[FolderCase]:
    """Every case; making them makes no module."""
    detr, square = _detr(), image((32, 32))
    photo = image((64, 64), (96, 64), (70, 93))
    return [
        # Bodies.
        _row("BertModel", TEXT, _PAIRED, tokenizer),
        _row("RobertaModel", TEXT | {"type_vocab_size": 1}, _PLAIN, tokenizer),
        _row("DebertaV2Model", TEXT, _PLAIN, tokenizer),
        _row("GPT2Model", GPT2, _PLAIN, tokenizer),
        _row("T5EncoderModel", T5, _PLAIN, tokenizer, config="T5Config"),
        _row("ViTModel", IMAGE, square),
        _row("Dinov2Model", IMAGE, square),
        _row("Wav2Vec2Model", SPEECH, sound("input_values", *_WAVES)),
        # Texts and pairs of texts.
        _row("BertForSequenceClassification", TEXT | {"num_labels": 3}, _PAIRED, tokenizer),
        _row("ElectraForSequenceClassification", TEXT, _PAIRED, tokenizer),
        _row("DistilBertForSequenceClassification", _DISTIL, _PLAIN, tokenizer),
        _row("GPT2ForSequenceClassification", GPT2, _PLAIN, tokenizer),
        _row("BartForSequenceClassification", BART, _PLAIN, tokenizer),
        _row("T5ForSequenceClassification", _T5_CLASSIFIER, _PLAIN, tokenizer),
        _row("BertForTokenClassification", TEXT | {"num_labels": 5}, _PAIRED, tokenizer),
        _row("DebertaV2ForTokenClassification", TEXT, _PLAIN, tokenizer),
        _row("LayoutLMForTokenClassification", _LAYOUT, _PAGE, tokenizer),
        _row("LiltForTokenClassification", _LILT, _PAGE, tokenizer),
        _row("BertForQuestionAnswering", TEXT, _PAIRED, tokenizer),
        _row("DistilBertForQuestionAnswering", _DISTIL, _PLAIN, tokenizer),
        _row("BartForQuestionAnswering", BART, _PLAIN, tokenizer),
        _row("BertForMultipleChoice", TEXT, text(*_TYPES, choices=2), tokenizer),
        _row("DistilBertForMultipleChoice", _DISTIL, text(choices=3), tokenizer),
        _row("BertForMaskedLM", TEXT, _PAIRED, tokenizer),
        _row("RobertaForMaskedLM", TEXT | {"type_vocab_size": 1}, _PLAIN, tokenizer),
        _row("ModernBertForMaskedLM", _MODERN, _PLAIN, tokenizer),
        _row("GPT2LMHeadModel", GPT2, _PLAIN, tokenizer),
        _row("LlamaForCausalLM", _KV, _PLAIN, tokenizer),
        _row("Qwen2ForCausalLM", _KV, _PLAIN, tokenizer),
        _row("OPTForCausalLM", _OPT, _PLAIN, tokenizer),
        _row("BertForNextSentencePrediction", TEXT, _PAIRED, tokenizer),
        # Images.
        _row("ViTForImageClassification", IMAGE | {"num_labels": 5}, square),
        _row("SwinForImageClassification", _SWIN, square),
        _row("ResNetForImageClassification", _RESNET, photo),
        _row("ConvNextForImageClassification", STAGES, photo),
        _row("MobileNetV2ForImageClassification", {"depth_multiplier": 0.35}, image((224, 224))),
        _row("SegformerForImageClassification", PYRAMID, photo),
        _row("DetrForObjectDetection", detr, photo),
        _row("DetrForObjectDetection", detr, image((64, 80), mask=True), detection_processor),
        _row("YolosForObjectDetection", _YOLOS, image((32, 48))),
        _row("SegformerForSemanticSegmentation", PYRAMID, photo),
        _row("UperNetForSemanticSegmentation", _upernet(), image((64, 64))),
        _row(
            "MaskFormerForInstanceSegmentation",
            _maskformer(),
            image((64, 64)),
            config="MaskFormerConfig",
        ),
        _row("GLPNForDepthEstimation", PYRAMID, image((224, 224))),
        _row("DPTForDepthEstimation", _DPT, square),
        # Sounds.
        _row("Wav2Vec2ForCTC", SPEECH, sound("input_values", *_WAVES)),
        _row("Wav2Vec2ForCTC", _LAYERED, sound("input_values", *_WAVES, mask=True), extractor),
        _row("HubertForSequenceClassification", SPEECH, sound("input_values", *_WAVES)),
        _row("WhisperForAudioClassification", WHISPER, _MEL),
        _row("ASTForAudioClassification", _AST, sound("input_values", (2, 64, 32))),
        # Both, towers, encoders.
        _row("CLIPModel", _CLIP, both, tokenizer),
        _row("SiglipModel", _SIGLIP, both, tokenizer),
        _row("CLIPModel", _CLIP, _PLAIN, tokenizer, task="text-embedding", expected=text_tower),
        _row("CLIPModel", _CLIP, square, tokenizer, task="image-embedding", expected=image_tower),
        _row("SiglipModel", _SIGLIP, _PLAIN, tokenizer, task="text-embedding", expected=text_tower),
        _row("CLIPTextModelWithProjection", CLIP_TEXT, _PLAIN, tokenizer, config="CLIPTextConfig"),
        _row("CLIPVisionModelWithProjection", IMAGE, square, config="CLIPVisionConfig"),
        _row("SiglipVisionModel", IMAGE, square),
        _row("T5ForConditionalGeneration", T5, _PLAIN, tokenizer, **_ENCODER),
        _row(
            "BartForConditionalGeneration",
            BART,
            _PLAIN,
            tokenizer,
            task="encoder",
            expected=encoded,
        ),
        _row(
            "WhisperForConditionalGeneration",
            WHISPER,
            sound("input_features", (2, 80, 100)),
            task="encoder",
            expected=encoded,
        ),
    ]


def _upernet() -> dict[str, Any]:
    backbone = hf.ConvNextConfig(**STAGES, **OUT)
    return {
        "backbone_config": backbone,
        "hidden_size": 16,
        "auxiliary_in_channels": 24,
        "auxiliary_channels": 8,
    }


def _maskformer() -> dict[str, Any]:
    return {
        "backbone_config": hf.ResNetConfig(embedding_size=8, **STAGES, **OUT),
        "decoder_config": hf.DetrConfig(**DETR),
        "fpn_feature_size": 32,
        "mask_feature_size": 32,
    }
