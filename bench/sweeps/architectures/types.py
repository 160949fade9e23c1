"""Types of models in ``transformers``, each as a tiny random model with dynamic sizes.

A type is made from its config class. ``types.toml`` lists the types by what they take.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch
from torch import nn

from strop.bench.models.inputs import (
    BATCH,
    TARGET_TEXT,
    TEXT,
    Axes,
    ids,
    image,
    mask,
    noise,
    randomize,
    text,
    two_texts,
)
from strop.bench.models.tiny import tiny_config
from strop.compiler import Model

TYPES: dict[str, list[str]] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text())


def _long_text(module: nn.Module) -> Model:
    inputs = {"input_ids": ids(), "attention_mask": mask()}
    return Model(module, inputs, dynamic=dict.fromkeys(inputs, BATCH | {1: ("seq", 5, 24)}))


def _video(module: nn.Module) -> Model:
    frames = noise(2, 4, 3, 32, 32)
    return Model(module, {"pixel_values": frames}, dynamic={"pixel_values": BATCH})


def _sound(module: nn.Module, least: int = 400) -> Model:
    samples: Axes = BATCH | {1: ("samples", least, 1600)}
    return Model(module, {"input_values": noise(2, 800)}, dynamic={"input_values": samples})


def _spectra_and_text(module: nn.Module) -> Model:
    inputs = {"input_features": noise(2, 80, 128), "decoder_input_ids": ids(6)}
    axes = {"input_features": BATCH, "decoder_input_ids": TARGET_TEXT}
    return Model(module, inputs, dynamic=axes)


def _text_and_image(module: nn.Module) -> Model:
    inputs = {
        "input_ids": ids(),
        "pixel_values": noise(2, 3, 32, 32),
        "attention_mask": mask(),
    }
    axes = {"input_ids": TEXT, "attention_mask": TEXT, "pixel_values": BATCH}
    return Model(module, inputs, dynamic=axes)


GIVEN: dict[str, Callable[[nn.Module], Model]] = {
    "texts": text,
    "pooled_texts": _long_text,
    "causal_texts": text,
    "two_texts": two_texts,
    "images": image,
    "large_images": partial(image, size=64),
    "videos": _video,
    "sounds": _sound,
    "pooled_sounds": partial(_sound, least=720),
    "spectra_and_texts": _spectra_and_text,
    "texts_and_images": _text_and_image,
}
ARCHITECTURES = {name: given for kind, given in GIVEN.items() for name in TYPES[kind]}
"""By type: what makes a ``Model`` of its module."""


def model_of(name: str) -> Model:
    """A tiny random model of one type, with the head of its kind."""
    import transformers
    from transformers.models.auto import modeling_auto as auto
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    heads = [auto.MODEL_MAPPING_NAMES]
    if name in TYPES["causal_texts"]:
        heads.insert(0, auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES)
    if name in TYPES["two_texts"]:
        heads.insert(0, auto.MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING_NAMES)
    found = next(mapping[name] for mapping in heads if name in mapping)
    kind = found if isinstance(found, str) else found[0]
    torch.manual_seed(0)
    config = tiny_config(CONFIG_MAPPING[name])
    return ARCHITECTURES[name](randomize(getattr(transformers, kind)(config)))
