"""Models of ``transformers``, made from their config classes."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn

from strop.bench.models.inputs import (
    BATCH,
    TARGET_TEXT,
    TEXT,
    VOCABULARY,
    Axes,
    ids,
    image,
    mask,
    noise,
    randomize,
    text,
    two_texts,
)
from strop.bench.models.zoo.entry import ZooModel
from strop.compiler import Model

SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
SMALL = SIZES | {"vocab_size": VOCABULARY, "max_position_embeddings": 32}
DECODER = SMALL | {"use_cache": False, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
GROUPED = DECODER | {"num_key_value_heads": 2}
IMAGE = SIZES | {"image_size": 32, "patch_size": 8}
TWO_STACKS = {
    "vocab_size": VOCABULARY,
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 64,
    "decoder_ffn_dim": 64,
    "use_cache": False,
}
TRANSLATOR = TWO_STACKS | {
    "max_position_embeddings": 32,
    "pad_token_id": 1,
    "decoder_start_token_id": 2,
}


def _made(kind: str, config: str, options: dict[str, Any], given: Callable[..., Model]) -> Model:
    """A randomized model of a class of ``transformers``, with the inputs of ``given``."""
    import transformers

    settings = getattr(transformers, config)(**options)
    return given(randomize(getattr(transformers, kind)(settings)))


def _entry(
    kind: str,
    config: str,
    attention: int = 2,
    given: Callable[[nn.Module], Model] = text,
    **options: Any,
) -> ZooModel:
    return ZooModel(partial(_made, kind, config, options, given), attention)


def _text_and_images(module: nn.Module) -> Model:
    """Texts and images, of different counts."""
    inputs = {"input_ids": ids(), "pixel_values": noise(2, 3, 32, 32), "attention_mask": mask()}
    images: Axes = {0: ("images", 1, 3)}
    dynamic = {"input_ids": TEXT, "pixel_values": images, "attention_mask": TEXT}
    return Model(module, inputs, dynamic=dynamic)


def _speech_and_text(module: nn.Module) -> Model:
    """Spectra of as many frames as the encoder takes: twice its positions."""
    inputs = {"input_features": noise(2, 16, 40), "decoder_input_ids": ids(6)}
    axes = {"input_features": BATCH, "decoder_input_ids": TARGET_TEXT}
    return Model(module, inputs, dynamic=axes)


def _sound(module: nn.Module) -> Model:
    samples: Axes = BATCH | {1: ("samples", 200, 800)}
    return Model(module, {"input_values": noise(2, 500)}, dynamic={"input_values": samples})


ENCODERS = {
    "bert": _entry("BertModel", "BertConfig", **SMALL),
    "distilbert": _entry(
        "DistilBertModel",
        "DistilBertConfig",
        vocab_size=VOCABULARY,
        dim=32,
        n_layers=2,
        n_heads=4,
        hidden_dim=64,
        max_position_embeddings=32,
    ),
    "roberta": _entry("RobertaForSequenceClassification", "RobertaConfig", **SMALL),
    "electra": _entry("ElectraForTokenClassification", "ElectraConfig", embedding_size=16, **SMALL),
    "deberta-v2": _entry(
        "DebertaV2Model",
        "DebertaV2Config",
        relative_attention=True,
        pos_att_type=["c2p", "p2c"],
        position_buckets=8,
        norm_rel_ebd="layer_norm",
        share_att_key=True,
        position_biased_input=False,
        **SMALL,
    ),
}
DECODERS = {
    "gpt2": _entry(
        "GPT2LMHeadModel",
        "GPT2Config",
        vocab_size=VOCABULARY,
        n_embd=32,
        n_layer=2,
        n_head=4,
        n_positions=32,
        use_cache=False,
        bos_token_id=1,
        eos_token_id=2,
    ),
    "gpt-neox": _entry("GPTNeoXForCausalLM", "GPTNeoXConfig", **DECODER),
    "llama": _entry(
        "LlamaForCausalLM", "LlamaConfig", attention=3, **GROUPED | {"num_hidden_layers": 3}
    ),
    "mistral": _entry("MistralForCausalLM", "MistralConfig", sliding_window=6, **GROUPED),
    "qwen2": _entry("Qwen2ForCausalLM", "Qwen2Config", **GROUPED),
    "qwen3": _entry("Qwen3ForCausalLM", "Qwen3Config", head_dim=16, **GROUPED),
    "gemma": _entry(
        "GemmaForCausalLM", "GemmaConfig", head_dim=8, **GROUPED | {"num_key_value_heads": 1}
    ),
    "phi": _entry("PhiForCausalLM", "PhiConfig", **DECODER),
}
ENCODER_DECODERS = {
    "t5": _entry(
        "T5ForConditionalGeneration",
        "T5Config",
        attention=6,
        given=two_texts,
        vocab_size=VOCABULARY,
        d_model=32,
        d_kv=8,
        d_ff=64,
        num_layers=2,
        num_heads=4,
        relative_attention_num_buckets=8,
        relative_attention_max_distance=16,
        use_cache=False,
        decoder_start_token_id=0,
    ),
    "bart": _entry(
        "BartForConditionalGeneration", "BartConfig", attention=6, given=two_texts, **TRANSLATOR
    ),
    "marian": _entry("MarianMTModel", "MarianConfig", attention=6, given=two_texts, **TRANSLATOR),
}
VISION = {
    "vit": _entry("ViTForImageClassification", "ViTConfig", given=image, **IMAGE),
    "clip": _entry(
        "CLIPModel",
        "CLIPConfig",
        attention=4,
        given=_text_and_images,
        text_config=SMALL | {"eos_token_id": 2},
        vision_config=IMAGE,
        projection_dim=16,
    ),
    # Windows of 4 on a 16x16 grid: the second block of the first stage shifts them.
    "swin": _entry(
        "SwinForImageClassification",
        "SwinConfig",
        attention=4,
        given=image,
        image_size=32,
        patch_size=2,
        embed_dim=16,
        depths=[2, 2],
        num_heads=[2, 4],
        window_size=4,
    ),
    "convnext": _entry(
        "ConvNextForImageClassification",
        "ConvNextConfig",
        attention=0,
        given=image,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        num_stages=2,
        image_size=32,
    ),
    "resnet": _entry(
        "ResNetForImageClassification",
        "ResNetConfig",
        attention=0,
        given=image,
        embedding_size=16,
        hidden_sizes=[16, 32],
        depths=[1, 2],
        layer_type="basic",
    ),
    "mobilenet-v2": _entry(
        "MobileNetV2ForImageClassification",
        "MobileNetV2Config",
        attention=0,
        given=image,
        depth_multiplier=0.25,
        image_size=32,
        min_depth=8,
    ),
}
SPEECH = {
    "whisper": _entry(
        "WhisperForConditionalGeneration",
        "WhisperConfig",
        attention=6,
        given=_speech_and_text,
        num_mel_bins=16,
        max_source_positions=20,
        max_target_positions=32,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        suppress_tokens=None,
        begin_suppress_tokens=None,
        **TWO_STACKS,
    ),
    "wav2vec2": _entry(
        "Wav2Vec2ForCTC",
        "Wav2Vec2Config",
        given=_sound,
        conv_dim=[16, 16],
        conv_stride=[5, 2],
        conv_kernel=[10, 3],
        num_feat_extract_layers=2,
        num_conv_pos_embeddings=16,
        num_conv_pos_embedding_groups=4,
        vocab_size=VOCABULARY,
        **SIZES,
    ),
}
LIBRARY: dict[str, ZooModel] = ENCODERS | DECODERS | ENCODER_DECODERS | VISION | SPEECH
