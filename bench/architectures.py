"""``python -m strop.bench.architectures [--peer] [MODEL_TYPE ...]``: tiny models of transformers.

Each architecture is made from its config class with random weights, with dynamic batch and
sequence, and built and compared with the original, or, with ``--peer``, exported by ``torch.onnx``
and run. One line each, and the total.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import nn

from strop.bench.tiny import tiny_config
from strop.bench.zoo import BATCH, TARGET_TEXT, TEXT, Axes, ids, mask, randomize
from strop.compiler import Model, build
from strop.compiler.errors import StropError
from strop.compiler.terminal import Console

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
    "funnel",
    "splinter",
    "layoutlm",
    "luke",
    "canine",
    "xlnet",
    "longformer",
    "big_bird",
    "nomic_bert",
    "eurobert",
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
]
SOUNDS = ["wav2vec2", "hubert", "wavlm", "unispeech", "sew", "data2vec-audio", "wav2vec2-conformer"]
BOTH = ["clip", "siglip", "altclip", "blip", "flava", "groupvit", "vilt", "git"]


def _noise(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(2))


def _text(module: nn.Module) -> Model:
    inputs = {"input_ids": ids(), "attention_mask": mask()}
    return Model(module, inputs, dynamic=dict.fromkeys(inputs, TEXT))


def _two_texts(module: nn.Module) -> Model:
    inputs = {"input_ids": ids(), "attention_mask": mask(), "decoder_input_ids": ids(6)}
    axes = {"input_ids": TEXT, "attention_mask": TEXT, "decoder_input_ids": TARGET_TEXT}
    return Model(module, inputs, dynamic=axes)


def _image(module: nn.Module) -> Model:
    return Model(module, {"pixel_values": _noise(2, 3, 32, 32)}, dynamic={"pixel_values": BATCH})


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
        (DECODERS, _text),
        (TWO_TEXTS, _two_texts),
        (IMAGES, _image),
        (SOUNDS, _sound),
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


def build_it(model: Model) -> None:
    """Build with strop: the file is compared with the original at several sizes."""
    with tempfile.TemporaryDirectory() as folder:
        build(model, Path(folder) / "out", recipe="cpu-fp32")


def convert_with_peer(model: Model) -> None:
    """Export by ``torch.onnx`` with the same dims, and run the file on the example."""
    import onnxruntime as ort

    dims: dict[str, torch.export.Dim] = {}
    shapes: dict[str, dict[int, torch.export.Dim]] = {}
    for input_name, axes in (model.dynamic or {}).items():
        shapes[input_name] = {}
        for axis, of in axes.items():
            assert isinstance(of, tuple), "every dim of the list has a range"
            dim, low, high = of
            made = torch.export.Dim(str(dim), min=int(low), max=int(high))
            shapes[input_name][axis] = dims.setdefault(str(dim), made)
    assert isinstance(model.example_inputs, Mapping)
    inputs = dict(model.example_inputs)
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        path = Path(folder) / "model.onnx"
        exported = torch.onnx.export(
            model.module, (), kwargs=inputs, dynamic_shapes=shapes, dynamo=True, verbose=False
        )
        assert exported is not None
        exported.save(str(path))
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        session.run(None, {i.name: inputs[i.name].numpy() for i in session.get_inputs()})


def outcome(name: str, peer: bool) -> str:
    """``ok``, or why not, in one line."""
    try:
        (convert_with_peer if peer else build_it)(model_of(name))
    except StropError as error:
        return f"refused: {' '.join(str(error).split())}"
    except Exception as error:  # of the peer, or a fault of strop's: told in the line
        return f"{type(error).__name__}: {' '.join(str(error).split())}"
    return "ok"


def main() -> None:
    """Try every architecture, or those named."""
    parser = argparse.ArgumentParser(prog="python -m strop.bench.architectures")
    parser.add_argument("names", nargs="*", choices=[[], *ARCHITECTURES], metavar="MODEL_TYPE")
    parser.add_argument("--peer", action="store_true", help="convert with torch.onnx instead")
    given = parser.parse_args()
    console = Console()
    done, names = 0, given.names or list(ARCHITECTURES)
    for name in names:
        start = time.perf_counter()
        result = outcome(name, given.peer)
        done += result == "ok"
        seconds = time.perf_counter() - start
        console.say(f"{name}: {result[:300]} ({seconds:.0f} s)")
    console.say(f"{done} of {len(names)} architectures")


if __name__ == "__main__":
    main()
