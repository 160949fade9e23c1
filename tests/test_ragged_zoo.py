"""Ragged batches of the zoo and its relatives: proved, with equal numbers, or refused."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
from program_tools import assert_left_alone, session
from torch import Tensor

from strop.bench.models.inputs import TEXT, ids, mask, randomize, text
from strop.bench.models.zoo import ZOO
from strop.bench.models.zoo.library import SMALL
from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.recipes.loading import load_recipe
from strop.passes.ragged.ragged import Ragged

T5 = {
    "vocab_size": 61,
    "d_model": 32,
    "d_kv": 8,
    "d_ff": 64,
    "num_layers": 2,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "relative_attention_max_distance": 16,
}


def _of(kind: str, config: str, **options: Any) -> Callable[[], Model]:
    def make() -> Model:
        import transformers

        return text(
            randomize(getattr(transformers, kind)(getattr(transformers, config)(**options)))
        )

    return make


def sentences() -> Model:
    """A BERT with the pooling of sentence encoders: the mean of real tokens, of length 1."""

    class Pooled(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bert = ZOO["bert"].make().module

        def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
            hidden = self.bert(input_ids, attention_mask).last_hidden_state
            weights = attention_mask.unsqueeze(-1).expand(hidden.size()).float()
            mean = (hidden * weights).sum(1) / weights.sum(1).clamp(min=1e-9)
            return torch.nn.functional.normalize(mean, p=2, dim=1)

    inputs = {"input_ids": ids(), "attention_mask": mask()}
    return Model(Pooled().eval(), inputs, dynamic=dict.fromkeys(inputs, TEXT))


QUICK = {
    "mpnet": _of("MPNetModel", "MPNetConfig", **SMALL),
    "sentences": sentences,
}
SLOW = {
    "t5-encoder": _of("T5EncoderModel", "T5Config", **T5),
    "llama": ZOO["llama"].make,
    "albert": _of("AlbertModel", "AlbertConfig", embedding_size=16, **SMALL),
    "xlm-roberta": _of("XLMRobertaModel", "XLMRobertaConfig", **SMALL),
    **{
        name: ZOO[name].make
        for name in (
            "bert",
            "distilbert",
            "roberta",
            "electra",
            "gpt2",
            "gpt-neox",
            "mistral",
            "qwen2",
            "qwen3",
            "gemma",
            "phi",
            "t5",
            "bart",
            "marian",
        )
    },
}
PROVED = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in SLOW)]


@cache
def captured(name: str) -> tuple[Program, Mapping[str, Tensor]]:
    """A model as the recipe for floats leaves it, and its example."""
    model = ({**QUICK, **SLOW}.get(name) or ZOO[name].make)()
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        program = capture(model.module, signature, example)
    return load_recipe("cpu-fp32").pipeline().run(program), example


def masks(shape: torch.Size) -> list[Tensor]:
    """Nothing padded, a row of padding, padding on either side, holes, and others by chance."""
    whole = torch.ones(shape, dtype=torch.int64)
    row, right, left, holes = (whole.clone() for _ in range(4))
    row[0], right[0, 4:], left[0, :4], holes[:, ::2] = 0, 0, 0, 0
    chance = torch.Generator().manual_seed(3)
    drawn = [torch.randint(0, 2, shape, generator=chance) for _ in range(3)]
    return [whole, row, right, left, holes, *drawn]


@pytest.mark.parametrize("name", PROVED)
def test_real_positions_and_whole_outputs_stay_in_torch_and_in_the_file(name: str) -> None:
    before, example = captured(name)
    result = Ragged(zeros=True).run(before)
    assert result.modified, [str(miss) for miss in result.log.misses]
    file = session(result.program)
    for padding in masks(example["attention_mask"].shape):
        given = {**example, "attention_mask": padding}
        with torch.no_grad():
            wanted, got = before.run(**given), result.program.run(**given)
        made = file.run(None, {n: t.numpy() for n, t in given.items()})
        for spec, want, here, there in zip(
            result.program.contract.outputs, wanted, got, map(torch.from_numpy, made), strict=True
        ):
            real = padding == 1 if spec.padded else ...
            torch.testing.assert_close(here[real], want[real], rtol=0, atol=1e-5)
            torch.testing.assert_close(there[real], want[real], rtol=1e-4, atol=1e-4)


REFUSED = {
    "vit": "no input [batch, seq] marks padding",
    "whisper": "no input [batch, seq] marks padding",
    # Its scores are looked up by distance, in products of positions with weights.
    "deberta-v2": "merges them with another axis",
    # It reads the position of the highest word.
    "clip": "does not know this operator",
    # torch's own attention lays positions out in front of sequences, and merges those with heads.
    "textbook": "merges them with another axis",
}


@pytest.mark.parametrize(
    "name", [n if n == "vit" else pytest.param(n, marks=pytest.mark.slow) for n in REFUSED]
)
def test_the_rest_is_refused_with_a_reason(name: str) -> None:
    assert_left_alone(Ragged(zeros=True), captured(name)[0], REFUSED[name])
