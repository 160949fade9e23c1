"""The shipped folder: all of it or none, unchanged or refused, the same every time."""

from __future__ import annotations

import json
import signal
import sys
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from conftest import Result, Strop, leftovers, run_python, run_strop

from strop.compiler import load
from strop.compiler.artifact.folder import read_artifact
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files import staging

X = np.ones((2, 16), np.float32)


@pytest.fixture
def built(strop: Strop, small: str, tmp_path: Path) -> Path:
    out = tmp_path / "artifacts" / "out"
    assert strop("build", small, "-o", out).code == 0
    return out


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def build_script(source: str, out: Path, at: str, action: str) -> str:
    """A program that builds, and does something when a stage begins."""
    return dedent(f"""
        import os, resource, signal, sys
        from pathlib import Path
        from strop.compiler import build
        from strop.compiler.frontend.source import load_model

        def progress(stage):
            if stage == {at!r}:
                {action}

        build(load_model({source!r}), {str(out)!r}, progress=progress)
    """)


def build_until(source: str, out: Path, at: str, action: str) -> Result:
    return run_python("-c", build_script(source, out, at, action))


def test_an_artifact_holds_its_model_its_manifest_and_its_records(built: Path) -> None:
    assert sorted(content(built)) == [
        "build.json", "manifest.json", "model.onnx", "provenance.json", "report.html",
    ]  # fmt: skip
    assert leftovers(built.parent) == []
    assert oct(built.stat().st_mode)[-3:] == oct(built.parent.stat().st_mode)[-3:]


def test_a_loaded_artifact_runs_on_keyword_arrays(built: Path) -> None:
    run = load(built)
    (probabilities,) = run(x=X)
    assert probabilities.shape == (2, 16)
    np.testing.assert_allclose(probabilities.sum(-1), 1, rtol=1e-5)
    with pytest.raises(UsageError, match="the model takes x; got y"):
        run(y=X)


def test_the_model_file_runs_without_strop(built: Path, tmp_path: Path) -> None:
    code = f"""
import sys, numpy, onnxruntime
session = onnxruntime.InferenceSession({str(built / "model.onnx")!r})
print(session.run(None, {{"x": numpy.ones((2, 16), "float32")}})[0].shape)
assert not any(name.startswith(("strop", "torch")) for name in sys.modules)
"""
    result = run_python("-c", code)
    assert (result.code, result.out) == (0, "(2, 16)\n"), result.err


@pytest.mark.parametrize("stage", ["lower", "write", "check"])
def test_a_kill_leaves_the_old_artifact_and_the_next_build_sweeps_up(
    strop: Strop, small: str, built: Path, stage: str
) -> None:
    before = content(built)
    killed = build_until(small, built, stage, "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.code == -signal.SIGKILL, killed.err
    assert content(built) == before
    assert load(built)(x=X)[0].shape == (2, 16)
    assert len(leftovers(built.parent)) == (0 if stage == "lower" else 1)
    assert strop("build", small, "-o", built).code == 0
    assert leftovers(built.parent) == []


def test_a_kill_with_nothing_there_before_leaves_nothing_at_the_final_path(
    small: str, tmp_path: Path
) -> None:
    out = tmp_path / "artifacts" / "out"
    killed = build_until(small, out, "check", "os.kill(os.getpid(), signal.SIGKILL)")
    assert killed.code == -signal.SIGKILL, killed.err
    assert not out.exists()


def test_a_full_disk_is_said_and_leaves_the_old_artifact(
    strop: Strop, small: str, built: Path
) -> None:
    before = content(built)
    # A limit on the size of any file stands for the disk: the write fails half-way.
    limit = "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))"
    failed = build_until(small, built, "write", limit)
    assert failed.code == 1
    assert "UsageError" in failed.err
    assert "could not be written" in failed.err
    assert content(built) == before
    assert leftovers(built.parent) == []


def test_a_changed_file_is_refused_by_load_and_by_inspect(strop: Strop, built: Path) -> None:
    model = bytearray((built / "model.onnx").read_bytes())
    model[len(model) // 2] ^= 1
    (built / "model.onnx").write_bytes(model)
    with pytest.raises(UsageError, match="model.onnx has changed since it was built"):
        load(built)
    result = strop("inspect", built)
    assert result.code == 2
    assert "model.onnx has changed since it was built" in result.err


def test_a_missing_file_is_refused(built: Path) -> None:
    (built / "model.onnx").unlink()
    with pytest.raises(UsageError, match="model.onnx is missing"):
        load(built)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "link"])
def test_a_manifest_that_names_a_file_outside_the_artifact_is_refused(
    strop: Strop, built: Path, name: str
) -> None:
    (built.parent / "secret").touch()
    (built / "link").symlink_to("../secret")
    manifest = json.loads((built / "manifest.json").read_text())
    manifest["files"][name] = {"sha256": "0" * 64, "bytes": 0}
    (built / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(UsageError, match="leads out of"):
        load(built)
    assert strop("inspect", built).code == 2


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"strop_format": 2}, "has format 2, this strop reads format 1"),
        ({"files": {}}, "does not name model.onnx"),
        ({"files": {"model.onnx": "abc"}}, "damaged at 'files.model.onnx'"),
        ({"contract": {"inputs": []}}, "damaged at 'contract"),
        ({"checks": []}, "damaged at 'checks'"),
    ],
)
def test_a_damaged_manifest_is_refused_with_the_place(
    built: Path, change: dict[str, object], words: str
) -> None:
    manifest = json.loads((built / "manifest.json").read_text())
    (built / "manifest.json").write_text(json.dumps(manifest | change))
    with pytest.raises(UsageError, match=words):
        read_artifact(built)


@pytest.mark.parametrize("text", [None, "", "[]", "{}", '{"format": 1}', "\x00"])
def test_a_folder_that_strop_did_not_write_is_no_artifact(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError, match="is not a strop artifact"):
        load(tmp_path)


def test_two_builds_in_different_folders_give_the_same_bytes(small: str, tmp_path: Path) -> None:
    path = Path(small.rpartition(":")[0])
    outs = []
    for seed in ("1", "2"):
        folder = tmp_path / f"somewhere-{seed}"
        folder.mkdir()
        (folder / "model.py").write_text(path.read_text())
        outs.append(folder / "out")
        arguments = ("build", f"{folder / 'model.py'}:make", "-o", outs[-1], "--recipe", "cpu-int8")
        result = run_strop(*arguments, PYTHONHASHSEED=seed)
        assert result.code == 0, result.err
    first, second = map(content, outs)
    for name in ("model.onnx", "manifest.json"):
        assert first[name] == second[name], name
    for name, data in first.items():
        for path_part in (str(tmp_path), sys.prefix, str(Path(staging.__file__).parent)):
            assert path_part.encode() not in data, name
