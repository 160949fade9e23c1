"""Builds on the command line: whose files stay, whose paths are meant, and what exit 0 says."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from textwrap import dedent

import numpy as np
import pytest
from conftest import SMALL, Strop, Write, leftovers

from strop.bench.sweeps.kills.stage import SIGNALS, Stage
from strop.compiler import build, load
from strop.compiler.artifact.folder import MANIFEST, read_artifact, read_intact
from strop.compiler.artifact.history import recall_source
from strop.compiler.artifact.output import require_output
from strop.compiler.driver import driver
from strop.compiler.frontend.source import load_model
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.lower.onnx import entry
from strop.compiler.lower.onnx.write import write_model
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.writing import require_writable, write_whole

OWN_PASS = """
    from strop.compiler import Pass

    class Mine(Pass):
        name = "mine"
        def apply(self, program, log):
            {body}
"""


def fill(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


@pytest.fixture
def never_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that gets as far as capture fails the test."""
    monkeypatch.setattr(driver, "capture_model", lambda *_: pytest.fail("it was compiled"))


# Whose files stay -------------------------------------------------------------------------------


def test_a_rebuild_keeps_what_is_beside_the_artifact_even_its_source(
    strop: Strop, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    mine = {"model.py": dedent(SMALL), ".git/config": "mine", "README": "mine", "sub/x": "mine"}
    fill(out, mine)
    for options in (["--force"], [], ["--force"]):
        result = strop("build", f"{out / 'model.py'}:make", "-o", out, *options)
        assert result.code == 0, result.err
        assert {name: (out / name).read_text() for name in mine} == mine
        assert read_intact(out).damaged() == []
    assert leftovers(out) == [".git"]


@pytest.mark.usefixtures("never_compiled")
@pytest.mark.parametrize(
    "manifest",
    ['{"strop_format": 1}', '{"strop_format": 1, "files": {"thesis": {}}}', "{", "[]"],
)
def test_a_manifest_that_strop_did_not_write_makes_nothing_strops(
    strop: Strop, small: str, tmp_path: Path, manifest: str
) -> None:
    fill(tmp_path / "out", {MANIFEST: manifest, "thesis": "years of work"})
    result = strop("build", small, "-o", tmp_path / "out")
    assert (result.code, "is not a strop artifact" in result.err) == (2, True), result.err
    assert (tmp_path / "out" / MANIFEST).read_text() == manifest
    assert (tmp_path / "out" / "thesis").read_text() == "years of work"


@pytest.mark.parametrize("name", ["", "manifest.json", "model.onnx", "sub"])
@pytest.mark.parametrize("force", [False, True])
def test_what_a_build_reads_is_never_what_it_replaces(
    strop: Strop, small: str, tmp_path: Path, name: str, force: bool
) -> None:
    """A checkpoint folder as the output, or a file of the artifact as a source."""
    out = tmp_path / "out"
    if name == "sub":
        fill(out, {"sub/x": "mine"})
        if force:
            require_output(out, force, sources=[out / "sub"])
            with pytest.raises(UsageError, match="'sub', which this build reads"):
                require_output(out, force, more=["sub/y"], sources=[out / "sub"])
        return
    out.mkdir()
    if name:
        (out / name).write_text("mine")
    words = "reads and would replace" if name and force else "what is built|not a strop artifact"
    with pytest.raises(UsageError, match=words):
        require_output(out, force, sources=[out / name])


def test_files_that_the_new_artifact_has_no_more_are_removed(
    strop: Strop, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And a diff of artifacts with external weights runs."""
    monkeypatch.setattr(entry, "write_model", partial(write_model, external_over=0))
    first, second = tmp_path / "first", tmp_path / "second"
    for out in (first, second):
        assert strop("build", small, "-o", out).code == 0
        assert (out / "model.onnx.data").is_file()
    result = strop("debug", "diff", first, second, "--source", small)
    assert result.code == 0, result.err
    assert "5 values are in both, 0 in the first only, 0 in the second only" in result.out
    monkeypatch.setattr(entry, "write_model", write_model)
    assert strop("build", small, "-o", first).code == 0
    assert not (first / "model.onnx.data").exists()
    assert load(first)(x=np.ones((2, 16), np.float32))[0].shape == (2, 16)


# Whose paths are meant --------------------------------------------------------------------------


def test_paths_are_those_of_the_folder_where_the_command_began(
    strop: Strop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the factory, or the module, takes for its working folder."""
    here, there = tmp_path / "here", tmp_path / "there"
    there.mkdir()
    moved = dedent(SMALL).replace(
        "torch.manual_seed(0)", f"torch.manual_seed(0); __import__('os').chdir({str(there)!r})"
    )
    body = "pass"
    fill(here, {"model.py": moved, "mine.py": dedent(OWN_PASS).format(body=body)})
    monkeypatch.chdir(here)
    options = ["--dump-ir", "ir", "--pass", "mine.py:Mine", "--after", "cse"]
    result = strop("build", "model.py:make", "-o", "out", *options)
    assert result.code == 0, result.err
    assert Path.cwd() == there
    assert list(there.iterdir()) == []
    assert load_program(here / "ir" / "000_capture.json")
    assert "mine" in [p["name"] for p in read_artifact(here / "out").manifest["passes"]]
    assert recall_source(here / "out") == f"{here / 'model.py'}:make"


# What exit 0 says -------------------------------------------------------------------------------

ENDINGS = ["sys.exit(0)", "sys.exit()", "exit(0)", "raise KeyboardInterrupt", "raise GeneratorExit"]
PLACES = {
    "forward": "Small.forward = lambda self, x: end() or x",
    "later": "Small.forward = lambda self, x: x if torch.compiler.is_compiling() else end() or x",
    "evaluate": "",
    "factory": "make = end",
    "calibration": "",
    "import": "end()",
}


@pytest.mark.parametrize(
    ("place", "ending"),
    [(place, ENDINGS[i % len(ENDINGS)]) for i, place in enumerate(PLACES)]
    + [("evaluate", ending) for ending in ENDINGS],
)
def test_code_of_the_model_does_not_end_a_build(
    strop: Strop, tmp_path: Path, place: str, ending: str
) -> None:
    text = dedent(SMALL) + dedent(f"""
        import sys
        made = make
        def end(*_):
            {ending}
        def endless():
            yield end()
        def make():
            model = made()
            if {place == "evaluate"}:
                model.evaluate = end
            if {place == "calibration"}:
                model.calibration = endless
            return model
        {PLACES[place]}
        """)
    (tmp_path / "model.py").write_text(text)
    result = strop("build", f"{tmp_path / 'model.py'}:make", "-o", tmp_path / "out")
    assert result.code == 2, result.err
    assert any(name in result.err for name in ("SystemExit", "KeyboardInterrupt", "GeneratorExit"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("ending", ["sys.exit(0)", "raise KeyboardInterrupt"])
def test_a_pass_does_not_end_a_build(
    strop: Strop, write: Write, small: str, tmp_path: Path, ending: str
) -> None:
    own = write(OWN_PASS.format(body=f"import sys; {ending}"), "Mine")
    result = strop("build", small, "-o", tmp_path / "out", "--pass", own)
    assert result.code == 2, result.err
    assert f"{own.rpartition(':')[0]}:7: import sys; {ending}" in result.err
    assert not (tmp_path / "out").exists()


def test_code_of_the_model_does_not_end_the_program_that_builds(
    write: Write, tmp_path: Path
) -> None:
    source = write(dedent(SMALL) + "\n\nSmall.forward = lambda self, x: exit(0)\n")
    with pytest.raises(UsageError, match="raised SystemExit: 0"):
        build(load_model(source), tmp_path / "out")


# Dumps ------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("never_compiled")
@pytest.mark.parametrize(
    ("dump", "words"),
    [
        ("out", "must be apart"),
        ("out/ir", "must be apart"),
        (".", "must be apart"),
        ("link/ir", "must be apart"),
        ("mine", "holds other files than a dump"),
        ("tomine", "holds other files than a dump"),
        ("claimed", "holds other files than a dump"),
        ("mine/x/ir", "is a file"),
        ("n" * 256, "too long"),
        ("new/" + "n" * 256, "too long"),
        ("odd", "is a link"),
    ],
)
def test_a_dump_that_could_be_lost_or_overwrite_files_is_refused(
    strop: Strop, small: str, tmp_path: Path, dump: str, words: str
) -> None:
    files = {"out/manifest.json": "{}", "mine/x": "mine", "claimed/dump.manifest": '{"files": []}'}
    fill(tmp_path, files)
    (tmp_path / "link").symlink_to("out")
    (tmp_path / "tomine").symlink_to("mine")
    (tmp_path / "odd").mkdir()
    (tmp_path / "odd" / "weights").symlink_to("../mine")
    fill(tmp_path, {"odd/dump.manifest": '{"strop_dump": 1, "files": []}'})
    result = strop("build", small, "-o", tmp_path / "out", "--force", "--dump-ir", tmp_path / dump)
    assert result.code == 2, result.err
    assert words in result.err
    assert {name: (tmp_path / name).read_text() for name in files} == files


def test_a_dump_replaces_the_dump_before_it_and_nothing_else(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    ir = tmp_path / "ir"
    command = ("build", small, "--stop-after", "bias-gelu", "--dump-ir", ir)
    assert strop(*command).code == 0
    first = {p.name for p in ir.iterdir()}
    fill(ir, {"notes": "mine"})
    names = json.loads((ir / "dump.manifest").read_text())
    fill(
        ir, {"dump.manifest": json.dumps(names | {"files": [*names["files"], "../notes", "099_x"]})}
    )
    fill(tmp_path, {"notes": "mine"})
    (ir / "099_x").symlink_to("notes")
    assert strop(*command).code == 0
    assert {p.name for p in ir.iterdir()} == first | {"notes", "099_x"}
    assert (ir / "notes").read_text() == (tmp_path / "notes").read_text() == "mine"
    (ir / "000_capture.txt").unlink()
    (ir / "000_capture.txt").symlink_to("notes")
    result = strop(*command)
    assert (result.code, "000_capture.txt is not of a dump" in result.err) == (2, True), result.err
    assert (ir / "notes").read_text() == "mine"


# Single files -----------------------------------------------------------------------------------


def test_a_file_is_written_through_a_link_and_over_nothing_but_files(tmp_path: Path) -> None:
    fill(tmp_path, {"real": "old"})
    (tmp_path / "link").symlink_to("real")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    write_whole(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_text() == "new"
    for name in ("pipe", "loop"):
        with pytest.raises(UsageError):
            write_whole(tmp_path / name, "new")
    assert (tmp_path / "pipe").is_fifo()
    with pytest.raises(UsageError, match="--json: .*pipe is not a regular file"):
        require_writable(tmp_path / "pipe", "--json")
    with pytest.raises(UsageError, match="too long"):
        require_writable(tmp_path / ("n" * 250), "--json")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "loop", "pipe", "real"]


# Signals ----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("interrupts_heeded")
def test_a_build_ended_by_a_signal_leaves_the_old_artifact_or_the_new_one(tmp_path: Path) -> None:
    """At three moments; `python -m strop.bench.sweeps.kills` takes as many as are asked for."""
    stage = Stage(tmp_path)
    for number, share in zip(SIGNALS, (0.3, 0.6, 0.9)):
        seconds = stage.begins + share * (stage.ends - stage.begins)
        ending = stage.end(number, seconds)
        assert ending.is_whole and ending.is_told, ending
    assert stage.left_by_a_full_build() == 0


@pytest.mark.slow
def test_four_builds_of_one_folder_all_succeed(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "place" / "out"
    command = [sys.executable, "-m", "strop.compiler.cli", "build", write(SMALL), "-o", str(out)]
    builds = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    said = [one.communicate(timeout=600)[1].decode() for one in builds]
    assert [one.returncode for one in builds] == [0] * 4, said
    assert read_intact(out).damaged() == []
    assert leftovers(out.parent) == []
