"""Builds of ragged batches, through the command line: recipes, the check, and what is recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import Strop, Write

from strop.compiler import load
from strop.compiler.check.comparison import compare
from strop.compiler.frontend.cases import Case
from strop.compiler.ir.contract import Contract, Padded, TensorSpec
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.util.errors import RuntimeRefusedError

BERT = """
    import torch, transformers
    from strop.compiler import Model

    def make():
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=61, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=32,
        )
        text = {0: ("batch", 1, 8), 1: ("seq", 1, 16)}
        mask = torch.tensor([[1, 1, 1, 0, 0, 0, 0], [0, 1, 1, 1, 1, 1, 0], [1] * 7])
        ids = torch.randint(3, 61, mask.shape)
        draw = lambda: {"input_ids": torch.randint(3, 61, (3, 7)), "attention_mask": mask}
        return Model(
            transformers.BertModel(config).eval(), {"input_ids": ids, "attention_mask": mask},
            {"input_ids": text, "attention_mask": text}, calibration=[draw() for _ in range(4)],
        )
"""
IMAGES = """
    import torch
    from strop.compiler import Model

    class Patches(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.qkv = torch.nn.Linear(8, 24)

        def forward(self, x):
            q, k, v = self.qkv(x)[:, None].chunk(3, -1)
            return torch.nn.functional.scaled_dot_product_attention(q, k, v).mean(2)

    def make():
        torch.manual_seed(0)
        return Model(Patches().eval(), {"x": torch.randn(2, 5, 8)})
"""
RAGGED = ("--pass", "ragged{zeros=true}", "--before", "cse-last")
SHORT = ("--set", "recover.minutes=0", "--set", "recover.steps=2", "--set", "budget.min_cosine=0")


def _manifest(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "manifest.json").read_text())
    return found


@pytest.mark.parametrize(
    "recipe",
    ["cpu-int8-ragged", pytest.param("cpu-pruned-int8-ragged", marks=pytest.mark.slow)],
)
def test_one_command_builds_ragged_batches(
    recipe: str, strop: Strop, write: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    settings = SHORT if "pruned" in recipe else ()
    result = strop("build", write(BERT), "-o", out, "--recipe", recipe, *settings)
    assert result.code == 0, result.err
    hidden, pooled = _manifest(out)["contract"]["outputs"]
    assert hidden["padded"] == {"mask": "attention_mask", "value": 0}
    assert pooled["padded"] is None
    mask = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])
    made = load(out)(input_ids=np.full((3, 4), 5), attention_mask=mask)
    assert not made[0][mask == 0].any() and made[0][mask == 1].all()


def test_the_check_compares_real_positions_only(strop: Strop, write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = strop("build", write(BERT), "-o", out, *RAGGED, "--dump-ir", tmp_path / "ir")
    assert result.code == 0, result.err  # within the limit of cpu-fp32, 1e-4
    manifest = _manifest(out)
    assert max(check["max_error"] for check in manifest["checks"]) < 1e-5
    ragged = next(p for p in manifest["passes"] if p["name"] == "ragged")
    assert ragged["original"]["max_abs"] < 1e-5 and ragged["previous"]["max_abs"] < 1e-5
    read = load_program(next((tmp_path / "ir").glob("*_ragged.json")))
    assert read.contract.outputs[0].padded == Padded("attention_mask", 0)


def test_a_model_without_padding_is_refused_with_the_reason(
    strop: Strop, write: Write, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    result = strop("build", write(IMAGES), "-o", out, "--recipe", "cpu-int8-ragged")
    assert result.code == 3 and not out.exists()
    assert "no input [batch, seq] marks padding" in result.err
    assert "strop.attention" in result.err


def test_a_bisection_compares_real_positions_only(strop: Strop, write: Write) -> None:
    metric = ("--metric", "cosine", "--min", "0.9999")
    result = strop("debug", "bisect", write(BERT), *RAGGED, *metric)
    assert "there is no pass to blame" in result.err, result.out + result.err


CONTRACT = Contract(
    (TensorSpec("mask", "bool", (2, 2)),),
    (TensorSpec("x", "f32", (2, 2, 1), padded=Padded("mask", 1)),),
    (),
)


def _case(expected: list[list[float]]) -> Case:
    mask = torch.tensor([[False, True], [False, False]])
    return Case("one", {"mask": mask}, {"x": np.array(expected, np.float32)[:, :, None]})


def test_a_difference_at_a_padded_position_is_none() -> None:
    got = {"x": np.array([[1, 0], [2, 3]], np.float32)[:, :, None]}
    (found,) = compare(_case([[1, 7], [2, 3]]), got, CONTRACT)
    assert (found.max_error, found.cosine, found.elements) == (0, 1, 3)
    (found,) = compare(_case([[1, 7], [2, 3]]), got)
    assert found.max_error == 1


def test_a_difference_at_a_real_position_is_one() -> None:
    got = {"x": np.array([[1, 0], [2, 4]], np.float32)[:, :, None]}
    (found,) = compare(_case([[1, 7], [2, 3]]), got, CONTRACT)
    assert found.max_error == pytest.approx(1 / 3)


def test_a_file_of_another_shape_is_no_crash() -> None:
    got = {"x": np.zeros((3, 2, 1), np.float32)}
    with pytest.raises(RuntimeRefusedError, match="the original's is"):
        compare(_case([[1, 7], [2, 3]]), got, CONTRACT)
