"""What an output is, by its name, and for models of transformers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers as tf
from program_tools import program_of
from torch import Tensor, nn
from torch.nn import functional as F

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.passes.distill.outputs import outputs_of


class Named(nn.Module):
    """A function of one tensor whose output has a name."""

    def __init__(self, name: str, function: Callable[[Tensor, nn.Linear], Tensor], gives: int = 6):
        super().__init__()
        self.name, self.function = name, function
        self.layer = nn.Linear(4, gives)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {self.name: self.function(x, self.layer)}


def kind_of(name: str, function: Callable[[Tensor, nn.Linear], Tensor], gives: int = 6) -> Any:
    (output,) = outputs_of(program_of(Named(name, function, gives), torch.randn(2, 3, 4)))
    return output.kind


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("y", "logits"), ("logits", "logits"), ("prediction_logits", "logits"),
        ("Logits_per_image", "logits"), ("prelogits", "logits"), ("image_embeds", "values"),
        ("sentence_embedding", "values"), ("pooler_output", "values"), ("Features", "values"),
        ("last_hidden_state", "values"), ("hidden", "values"),
    ],
)  # fmt: skip
def test_a_name_that_says_what_it_is_counts_before_the_layer(name: str, kind: str) -> None:
    assert kind_of(name, lambda x, layer: layer(x)) == kind


def test_a_name_makes_logits_of_what_no_layer_gives() -> None:
    assert kind_of("y", lambda x, layer: layer(x).split(3, -1)[0].tanh()) == "values"
    assert kind_of("start_logits", lambda x, layer: layer(x).split(3, -1)[0].tanh()) == "logits"


def test_what_a_softmax_gives_is_no_logits_whatever_its_name() -> None:
    assert kind_of("logits", lambda x, layer: layer(x).softmax(-1)) == "probabilities"
    assert kind_of("embeds", lambda x, layer: layer(x).log_softmax(-1)) == "logits"
    assert kind_of("logits", lambda x, layer: layer(x), gives=1) == "values"


def test_named_logits_of_an_image_need_an_axis_of_classes() -> None:
    def enlarged(x: Tensor, layer: nn.Linear) -> Tensor:
        return F.interpolate(layer(x)[None], scale_factor=2.0)

    assert kind_of("logits", enlarged) == "values"


SMALL: dict[str, Any] = {
    "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 24,
    "vocab_size": 40, "max_position_embeddings": 16,
}  # fmt: skip
VISION = SMALL | {"image_size": 8, "patch_size": 4}
IDS = {"input_ids": torch.arange(3, 15).reshape(2, 6)}
PIXELS = {"pixel_values": torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))}
GPT = {"n_embd": 16, "n_layer": 1, "n_head": 2, "vocab_size": 40, "n_positions": 16}
LLAMA = SMALL | {"num_key_value_heads": 1, "use_cache": False}
T5 = {"d_model": 16, "d_kv": 8, "d_ff": 24, "num_layers": 1, "num_heads": 2, "vocab_size": 40,
      "use_cache": False}  # fmt: skip
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Tensor], dict[str, str]]] = {
    "CLIP text": (
        "CLIPTextModelWithProjection", "CLIPTextConfig", SMALL | {"projection_dim": 16}, IDS,
        {"text_embeds": "values", "last_hidden_state": "values"},
    ),
    "CLIP vision": (
        "CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION | {"projection_dim": 12},
        PIXELS, {"image_embeds": "values", "last_hidden_state": "values"},
    ),
    "BERT": (
        "BertModel", "BertConfig", SMALL, IDS,
        {"last_hidden_state": "values", "pooler_output": "values"},
    ),
    "BERT classifier": (
        "BertForSequenceClassification", "BertConfig", SMALL | {"num_labels": 3}, IDS,
        {"logits": "logits"},
    ),
    "BERT answers": (
        "BertForQuestionAnswering", "BertConfig", SMALL, IDS,
        {"start_logits": "logits", "end_logits": "logits"},
    ),
    "BERT pretraining": (
        "BertForPreTraining", "BertConfig", SMALL, IDS,
        {"prediction_logits": "logits", "seq_relationship_logits": "logits"},
    ),
    "ViT classifier": (
        "ViTForImageClassification", "ViTConfig", VISION | {"num_labels": 5}, PIXELS,
        {"logits": "logits"},
    ),
    "GPT, tied": ("GPT2LMHeadModel", "GPT2Config", GPT | {"use_cache": False}, IDS,
                  {"logits": "logits"}),
    "Llama, untied": ("LlamaForCausalLM", "LlamaConfig", LLAMA | {"tie_word_embeddings": False},
                      IDS, {"logits": "logits"}),
    "T5": (
        "T5ForConditionalGeneration", "T5Config", T5, IDS | {"decoder_input_ids": IDS["input_ids"]},
        {"logits": "logits", "encoder_last_hidden_state": "values"},
    ),
}  # fmt: skip


class Unnamed(nn.Module):
    """A model whose outputs are a tuple."""

    def __init__(self, inner: nn.Module, names: list[str]) -> None:
        super().__init__()
        self.inner, self.names = inner, names

    def forward(self, **inputs: Tensor) -> tuple[Tensor, ...]:
        found = self.inner(**inputs)
        return tuple(found[name] for name in self.names)


def program_by(module: nn.Module, inputs: dict[str, Tensor]) -> Program:
    signature, example, _ = read_inputs(Model(module.eval(), inputs))
    with torch.no_grad():
        return capture(module, signature, example)


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_outputs_of_transformers_are_what_they_are(name: str) -> None:
    kind, config, settings, inputs, wanted = MODELS[name]
    torch.manual_seed(0)
    model = getattr(tf, kind)(getattr(tf, config)(**settings)).eval()
    found = {o.name: o.kind for o in outputs_of(program_by(model, inputs))}
    assert wanted.items() <= found.items()
    # Without their names the operators tell, where a layer gives them.
    bare = outputs_of(program_by(Unnamed(model, list(wanted)), inputs))
    told = dict(zip(wanted, (o.kind for o in bare)))
    parts = {n for n in wanted if n.startswith(("start", "end"))}
    assert {n: k for n, k in told.items() if n not in parts} == {
        n: k for n, k in wanted.items() if n not in parts
    }
