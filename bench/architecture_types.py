"""Types of models in ``transformers``, each as a tiny random model with dynamic sizes.

A type is made from its config class. What it takes follows from the list that it stands in: text,
two texts (of an encoder and a decoder), an image, sound, or text and an image.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from strop.bench.tiny import tiny_config
from strop.bench.zoo import BATCH, TARGET_TEXT, TEXT, Axes, ids, mask, randomize
from strop.compiler import Model

ENCODERS = [
    "bert",
    "albert",
    "roberta",
    "xlm-roberta",
    "camembert",
    "distilbert",
    "electra",
    "mpnet",
    "deberta",
    "deberta-v2",
    "modernbert",
    "ernie",
    "roformer",
    "rembert",
    "megatron-bert",
    "mobilebert",
    "squeezebert",
    "xlm",
    "flaubert",
    "convbert",
    "nystromformer",
    "fnet",
    "splinter",
    "layoutlm",
    "luke",
    "xlnet",
    "longformer",
    "big_bird",
    "nomic_bert",
    "eurobert",
    "data2vec-text",
    "dpr",
    "gte",
    "ibert",
    "jina_embeddings_v3",
    "markuplm",
    "tapas",
    "visual_bert",
    "yoso",
    "mra",
    "roberta-prelayernorm",
    "xlm-roberta-xl",
    "clip_text_model",
    "imagegpt",
]
DECODERS = [
    "gpt2",
    "gpt_neox",
    "openai-gpt",
    "bloom",
    "opt",
    "xglm",
    "biogpt",
    "ctrl",
    "llama",
    "mistral",
    "mixtral",
    "qwen2",
    "qwen2_moe",
    "qwen3",
    "qwen3_moe",
    "gemma",
    "gemma2",
    "gemma3_text",
    "phi",
    "phi3",
    "phimoe",
    "falcon",
    "mpt",
    "stablelm",
    "olmo",
    "olmo2",
    "olmoe",
    "starcoder2",
    "cohere",
    "cohere2",
    "granite",
    "granitemoe",
    "glm",
    "glm4",
    "persimmon",
    "deepseek_v2",
    "deepseek_v3",
    "smollm3",
    "helium",
    "exaone4",
    "jetmoe",
    "mamba",
    "gpt_bigcode",
    "gpt_oss",
    "apertus",
    "aria_text",
    "bert-generation",
    "cpmant",
    "diffllama",
    "doge",
    "ernie4_5",
    "gpt_neo",
    "gptj",
    "codegen",
    "gpt_neox_japanese",
    "granitemoeshared",
    "jamba",
    "lfm2",
    "llama4_text",
    "minicpm3",
    "minimax",
    "nanochat",
    "modernbert-decoder",
    "olmo3",
    "qwen3_next",
    "recurrent_gemma",
    "rwkv",
]
TWO_TEXTS = [
    "t5",
    "mt5",
    "umt5",
    "switch_transformers",
    "longt5",
    "bart",
    "mbart",
    "pegasus",
    "marian",
    "m2m_100",
    "blenderbot",
    "led",
    "prophetnet",
    "fsmt",
    "plbart",
    "bigbird_pegasus",
    "blenderbot-small",
    "mvp",
    "nllb-moe",
    "pegasus_x",
    "t5gemma",
]
IMAGES = [
    "vit",
    "deit",
    "beit",
    "dinov2",
    "dinov3_vit",
    "resnet",
    "regnet",
    "mobilenet_v1",
    "mobilenet_v2",
    "mobilevit",
    "poolformer",
    "bit",
    "focalnet",
    "vitdet",
    "siglip_vision_model",
    "swiftformer",
    "textnet",
    "hgnet_v2",
    "clip_vision_model",
    "data2vec-vision",
    "dinov2_with_registers",
    "dpt",
    "glpn",
    "ijepa",
    "pixio",
    "pvt_v2",
    "segformer",
    "swinv2",
    "vit_msn",
    "yolos",
]
SOUNDS = [
    "wav2vec2",
    "hubert",
    "wavlm",
    "unispeech",
    "data2vec-audio",
    "wav2vec2-conformer",
    "unispeech-sat",
]
BOTH = [
    "clip",
    "siglip",
    "altclip",
    "blip",
    "flava",
    "groupvit",
    "vilt",
    "git",
    "aimv2",
    "chinese_clip",
    "clipseg",
    "metaclip_2",
    "owlvit",
]


POOLED = ["funnel", "canine"]
POOLED_SOUNDS = ["sew", "sew-d"]
LARGE_IMAGES = ["convnext", "convnextv2"]
VIDEOS = ["videomae", "timesformer", "vivit"]


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def _text(module: nn.Module) -> Model:
    inputs = {"input_ids": ids(), "attention_mask": mask()}
    return Model(module, inputs, dynamic=dict.fromkeys(inputs, TEXT))


def _long_text(module: nn.Module) -> Model:
    """Of more positions than the pooling inside the module takes away."""
    inputs = {"input_ids": ids(), "attention_mask": mask()}
    return Model(module, inputs, dynamic=dict.fromkeys(inputs, BATCH | {1: ("seq", 5, 24)}))


def _two_texts(module: nn.Module) -> Model:
    inputs = {"input_ids": ids(), "attention_mask": mask(), "decoder_input_ids": ids(6)}
    axes = {"input_ids": TEXT, "attention_mask": TEXT, "decoder_input_ids": TARGET_TEXT}
    return Model(module, inputs, dynamic=axes)


def _image(module: nn.Module) -> Model:
    return Model(module, {"pixel_values": _noise(2, 3, 32, 32)}, dynamic={"pixel_values": BATCH})


def _large_image(module: nn.Module) -> Model:
    return Model(module, {"pixel_values": _noise(2, 3, 64, 64)}, dynamic={"pixel_values": BATCH})


def _video(module: nn.Module) -> Model:
    frames = _noise(2, 4, 3, 32, 32)
    return Model(module, {"pixel_values": frames}, dynamic={"pixel_values": BATCH})


def _long_sound(module: nn.Module) -> Model:
    """Of two frames at least, which the module makes one of."""
    samples: Axes = BATCH | {1: ("samples", 720, 1600)}
    return Model(module, {"input_values": _noise(2, 800)}, dynamic={"input_values": samples})


def _whisper(module: nn.Module) -> Model:
    inputs = {"input_features": _noise(2, 80, 128), "decoder_input_ids": ids(6)}
    axes = {"input_features": BATCH, "decoder_input_ids": TARGET_TEXT}
    return Model(module, inputs, dynamic=axes)


def _sound(module: nn.Module) -> Model:
    samples: Axes = BATCH | {1: ("samples", 400, 1600)}
    return Model(module, {"input_values": _noise(2, 800)}, dynamic={"input_values": samples})


def _both(module: nn.Module) -> Model:
    inputs = {
        "input_ids": ids(),
        "pixel_values": _noise(2, 3, 32, 32),
        "attention_mask": mask(),
    }
    axes = {"input_ids": TEXT, "attention_mask": TEXT, "pixel_values": BATCH}
    return Model(module, inputs, dynamic=axes)


Make = Callable[[nn.Module], Model]
ARCHITECTURES: dict[str, Make] = {
    name: make
    for names, make in (
        (ENCODERS, _text),
        (POOLED, _long_text),
        (DECODERS, _text),
        (TWO_TEXTS, _two_texts),
        (IMAGES, _image),
        (LARGE_IMAGES, _large_image),
        (VIDEOS, _video),
        (SOUNDS, _sound),
        (POOLED_SOUNDS, _long_sound),
        (["whisper"], _whisper),
        (BOTH, _both),
    )
    for name in names
}


def model_of(name: str) -> Model:
    """A tiny random model of one type, with the head of its kind."""
    import transformers
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    heads = [auto.MODEL_MAPPING_NAMES]
    if name in DECODERS:
        heads.insert(0, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if name in TWO_TEXTS:
        heads.insert(0, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    found = next(mapping[name] for mapping in heads if name in mapping)
    kind = found if isinstance(found, str) else found[0]
    torch.manual_seed(0)
    config = tiny_config(CONFIG_MAPPING[name])
    return ARCHITECTURES[name](randomize(getattr(transformers, kind)(config)))
