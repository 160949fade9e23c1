"""Builds that prune and recover, through the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import Strop, Write

from strop.compiler import load
from strop.compiler.ir.snapshots.reader import load_program

ENCODER = """
    import torch
    from strop.compiler import Model

    class Encoder(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.words = torch.nn.Embedding(50, 32)
            self.layers = torch.nn.ModuleList(
                torch.nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, dropout=0.0)
                for _ in range(2)
            )

        def forward(self, ids):
            x = self.words(ids)
            for layer in self.layers:
                x = layer(x)
            return x.mean(1)

    def make():
        torch.manual_seed(0)
        draw = lambda: {"ids": torch.randint(0, 50, (4, 6))}
        return Model(
            Encoder().eval(), draw(), {"ids": {0: ("batch", 1, 8)}},
            calibration=[draw() for _ in range(8)],
        )
"""
SHORT = ("--set", "recover.minutes=0", "--set", "recover.steps=3", "--set", "budget.min_cosine=0")


@pytest.mark.parametrize("recipe", ["cpu-pruned-fp32", "cpu-pruned-int8"])
def test_one_command_prunes_recovers_and_checks(
    recipe: str, strop: Strop, write: Write, tmp_path: Path
) -> None:
    source, out = write(ENCODER), tmp_path / "out"
    result = strop("build", source, "-o", out, "--recipe", recipe, *SHORT)
    assert result.code == 0, result.err
    manifest = json.loads((out / "manifest.json").read_text())
    passes = {p["name"]: p for p in manifest["passes"]}
    ffn = passes["prune-ffn"]["learned"]["facts"]["groups"]
    heads = passes["prune-heads"]["learned"]["facts"]["groups"]
    assert [g["of"] for g in ffn.values()] == [64, 64]
    assert [g["of"] for g in heads.values()] == [4, 4]
    assert passes["recover"]["learned"]["facts"]["updates"] == 3
    assert passes["prune-ffn"]["bytes_after"] < passes["prune-ffn"]["bytes_before"]
    (made,) = load(out)(ids=np.zeros((3, 6), np.int64))
    assert made.shape == (3, 32)


def test_a_pruned_program_and_its_numbers_survive_a_dump(
    strop: Strop, write: Write, tmp_path: Path
) -> None:
    dump = tmp_path / "ir"
    asked = ("--pass", "prune{importance=l2}", "--before", "norms", "--set", "budget.max_error=9")
    result = strop("build", write(ENCODER), "-o", tmp_path / "out", *asked, "--dump-ir", dump)
    assert result.code == 0, result.err
    program = load_program(next(dump.glob("*_prune.json")))
    kept = program.origins["layers.0.linear1.weight"].kept
    assert list(kept) == [0] and len(kept[0]) == 32
    assert tuple(program.weights["layers.0.linear1.weight"].shape) == (32, 32)
    assert program.run(ids=torch.zeros(3, 6, dtype=torch.int64))[0].shape == (3, 32)


def test_groups_are_listed_and_one_is_shown_whole(strop: Strop, write: Write) -> None:
    source = write(ENCODER)
    listed = strop("debug", "groups", source)
    assert listed.code == 0, listed.err
    assert "heads:layers.1.self_attn" in listed.out and "its rows are chosen" in listed.out
    whole = strop("debug", "groups", source, "ffn:layers.0*")
    assert whole.out.splitlines() == [
        "ffn:layers.0.linear1: 64 positions",
        "  layers.0.linear1.weight, axis 0",
        "  layers.0.linear1.bias, axis 0",
        "  layers.0.linear2.weight, axis 1",
    ]
    none = strop("debug", "groups", source, "fnn")
    assert none.code == 2 and "no group is called 'fnn'" in none.err


def test_without_data_the_recipe_says_what_the_factory_lacks(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    result = strop("build", small, "-o", tmp_path / "out", "--recipe", "cpu-pruned-fp32")
    assert result.code == 2
    assert "calibration or train" in result.err and not (tmp_path / "out").exists()


def test_a_mistake_in_an_option_is_one_sentence_and_no_bundle(
    strop: Strop, write: Write, tmp_path: Path
) -> None:
    wrong = ("--set", "prune-ffn.only=['ffn:layers.9.linear1']")
    result = strop("build", write(ENCODER), "-o", tmp_path / "out", "--recipe", "cpu-pruned-fp32",
                   *SHORT, *wrong)  # fmt: skip
    assert result.code == 2
    assert result.err.splitlines() == [
        "strop: no group is called 'ffn:layers.9.linear1'; did you mean 'ffn:layers.1.linear1'?"
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["model_1.py"]


def test_a_recipe_without_pruning_has_no_groups_to_list(strop: Strop, small: str) -> None:
    result = strop("debug", "groups", small, "--recipe", "cpu-fp32")
    assert result.code == 2 and "no pass 'prune'" in result.err
