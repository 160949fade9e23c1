"""Settings of tiny checkpoints, by family of models."""

from __future__ import annotations

from typing import Any

import transformers as hf
from folder_inputs import WORDS

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
DISTIL = {"dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64, "vocab_size": WORDS}
LAYOUT = TEXT | {"max_2d_position_embeddings": 128, "num_labels": 4}
LILT = LAYOUT | {"hidden_size": 48}
GROUPED = TEXT | {"num_key_value_heads": 2, "max_position_embeddings": 64, "pad_token_id": 0}
MODERN = TEXT | {
    "global_attn_every_n_layers": 2,
    "local_attention": 8,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
    "cls_token_id": 2,
    "sep_token_id": 3,
    "max_position_embeddings": 64,
}
T5_CLASSIFIER = T5 | {"eos_token_id": 3, "decoder_start_token_id": 0}
OPT = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 64,
    "vocab_size": WORDS,
    "word_embed_proj_dim": 32,
    "max_position_embeddings": 64,
}
RESNET = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "num_labels": 5}
SWIN = {"image_size": 32, "patch_size": 4, "embed_dim": 16, "window_size": 4} | {
    "depths": [1, 1],
    "num_heads": [2, 2],
}
YOLOS = IMAGE | {"image_size": [32, 48], "num_detection_tokens": 5}
DPT = IMAGE | {
    "num_hidden_layers": 4,
    "backbone_out_indices": [0, 1, 2, 3],
    "neck_hidden_sizes": [8, 8, 16, 16],
    "fusion_hidden_size": 16,
    "is_hybrid": False,
}
LAYERED = SPEECH | {"feat_extract_norm": "layer"}
AST = SMALL | {"max_length": 64, "num_mel_bins": 32}
CLIP = {"text_config": CLIP_TEXT, "vision_config": IMAGE, "projection_dim": 16}
SIGLIP = {"text_config": CLIP_TEXT, "vision_config": IMAGE}


def detr() -> dict[str, Any]:
    """A detector on a ResNet of transformers' own."""
    backbone = hf.ResNetConfig(embedding_size=8, **STAGES, out_features=["stage4"])
    own = {"use_timm_backbone": False, "use_pretrained_backbone": False, "backbone": None}
    return DETR | own | {"backbone_config": backbone}


def upernet() -> dict[str, Any]:
    """A segmenter on a ConvNext."""
    return {
        "backbone_config": hf.ConvNextConfig(**STAGES, **OUT),
        "hidden_size": 16,
        "auxiliary_in_channels": 24,
        "auxiliary_channels": 8,
    }


def maskformer() -> dict[str, Any]:
    """A segmenter on a ResNet, with a decoder of a detector's kind."""
    return {
        "backbone_config": hf.ResNetConfig(embedding_size=8, **STAGES, **OUT),
        "decoder_config": hf.DetrConfig(**DETR),
        "fpn_feature_size": 32,
        "mask_feature_size": 32,
    }
