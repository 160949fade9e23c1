"""Tiny random models of ``transformers``, by model type: the config with every size made small."""

from __future__ import annotations

from typing import Any

WIDTH = dict.fromkeys(
    ("hidden_size", "d_model", "n_embd", "dim", "embed_dim", "embedding_size", "emb_dim",
     "encoder_hidden_dim", "projection_dim", "encoder_hidden_size", "output_dim",
     "fusion_hidden_size", "vision_hidden_size", "text_embed_dim", "hidden_dim_size"),
    32,
)  # fmt: skip
LAYERS = dict.fromkeys(
    ("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers",
     "num_decoder_layers", "num_encoder_layers", "num_block_layers"),
    2,
)  # fmt: skip
HEADS = dict.fromkeys(
    ("num_attention_heads", "n_head", "n_heads", "num_heads", "encoder_attention_heads",
     "decoder_attention_heads", "num_encoder_attention_heads"),
    4,
) | {"num_key_value_heads": 2, "num_kv_heads": 2}  # fmt: skip
INNER = dict.fromkeys(
    ("intermediate_size", "hidden_dim", "encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "n_inner",
     "ffn_hidden_size", "dim_ff"),
    64,
)  # fmt: skip
LENGTHS = dict.fromkeys(
    ("max_position_embeddings", "n_positions", "n_ctx", "max_seq_len", "max_source_positions",
     "max_target_positions"),
    64,
)  # fmt: skip
EXPERTS = {
    "num_experts": 4,
    "num_local_experts": 4,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 32,
    "shared_expert_intermediate_size": 32,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
OTHERS = {
    "vocab_size": 61,
    "vocabulary_size": 61,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "use_cache": False,
    "head_dim": 8,
    "d_kv": 8,
    "image_size": 32,
    "patch_size": 8,
    "num_queries": 5,
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "qk_nope_head_dim": 8,
    "qk_rope_head_dim": 8,
    "v_head_dim": 8,
    "sliding_window": 6,
    "rotary_dim": 4,
    "num_frames": 4,
    "attention_types": [[["global", "local"], 1]],
}
SMALL: dict[str, Any] = WIDTH | LAYERS | HEADS | INNER | LENGTHS | EXPERTS | OTHERS


def tiny_config(kind: type[Any]) -> Any:
    """A config of a class with every size that it knows made small, those of its parts as well."""
    default = kind()
    known = default.to_dict()
    settings = {
        name: value
        for name, value in SMALL.items()
        if name in known
        and (type(known[name]) is type(value) or (known[name] is None and name in EXPERTS))
    }
    if isinstance(known.get("depths"), list):  # blocks of each stage
        settings["depths"] = [1] * len(known["depths"])
    if isinstance(known.get("num_heads"), list):  # one number for each stage, which divides them
        settings.pop("embed_dim", None)
        settings["patch_size"] = 2  # or the last stage is smaller than a window
    if "kv_lora_rank" in known:  # every head has keys of its own, from one compressed vector
        settings["num_key_value_heads"] = SMALL["num_attention_heads"]
    for name in kind.sub_configs:
        part = getattr(default, name, None)
        if part is not None:
            settings[name] = tiny_config(type(part))
    return kind(**settings)
