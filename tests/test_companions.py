"""Files and labels that a factory ships beside its model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from strop.compiler import Model, build
from strop.compiler.artifact.companions import read_companions
from strop.compiler.artifact.folder import read_artifact
from strop.compiler.frontend.programs import as_programs
from strop.compiler.util.errors import UsageError


def model(**more: object) -> Model:
    return Model(torch.nn.Linear(4, 2).eval(), {"input": torch.ones(1, 4)}, **more)  # type: ignore[arg-type]


def test_files_and_labels_are_shipped_hashed_and_looked_at(tmp_path: Path) -> None:
    vocabulary = tmp_path / "vocab.txt"
    vocabulary.write_text("a\nb\n")
    out = tmp_path / "out"
    build(model(files=[vocabulary], labels={1: "dog", 0: "cat"}, notes=["Mind the gap."]), out)
    manifest = json.loads((out / "manifest.json").read_text())
    assert manifest["labels"] == {"0": "cat", "1": "dog"}
    assert manifest["notes"] == ["Mind the gap."]
    assert manifest["assets"]["vocab.txt"]["bytes"] == 4
    assert (out / "vocab.txt").read_text() == "a\nb\n"
    assert read_artifact(out).damaged() == []
    (out / "vocab.txt").write_text("a\nc\n")
    assert read_artifact(out).damaged() == ["vocab.txt has changed since it was built"]
    (out / "vocab.txt").unlink()
    assert read_artifact(out).damaged() == ["vocab.txt is missing"]


@pytest.mark.parametrize("name", ["manifest.json", "model.onnx", "model.onnx.data", "report.html"])
def test_a_name_of_strops_own_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UsageError, match="the name of strop's own"):
        read_companions(as_programs(model(files=[tmp_path / name])))


def test_two_files_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for place in (tmp_path / "vocab.txt", tmp_path / "a" / "vocab.txt"):
        place.write_text("")
    with pytest.raises(UsageError, match="another of Model.files"):
        read_companions(
            as_programs(model(files=[tmp_path / "vocab.txt", tmp_path / "a" / "vocab.txt"]))
        )


def test_a_missing_file_or_a_folder_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none.txt", tmp_path):
        with pytest.raises(UsageError, match="missing or is not a regular file"):
            read_companions(as_programs(model(files=[path])))


@pytest.mark.parametrize("labels", [{"0": "cat"}, {0: 1}, {True: "cat"}])
def test_labels_are_names_by_index(labels: object) -> None:
    with pytest.raises(UsageError, match=r"Model\.labels"):
        read_companions(as_programs(model(labels=labels)))


class Halves(torch.nn.Module):
    """It takes even heights only, which no range can say, and any width."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], 2, x.shape[1] // 2, x.shape[2]).sum(1)


def test_optional_dims_are_fixed_where_the_model_cannot_be_built_with_them(tmp_path: Path) -> None:
    x = torch.randn(2, 6, 5)
    dynamic = {"x": {0: "batch", 1: ("height", 2, 6), 2: ("width", 2, 9)}}
    given = Model(Halves().eval(), {"x": x}, dynamic, optional_dims=("height",))  # type: ignore[arg-type]
    artifact = build(given, tmp_path / "out")
    assert [d["name"] for d in artifact.manifest["contract"]["dims"]] == ["batch", "width"]
    assert "height: fixed at the example's sizes" in artifact.manifest["notes"][0]
    given.optional_dims = ()
    with pytest.raises(UsageError, match="the module fails in case"):
        build(given, tmp_path / "other")
