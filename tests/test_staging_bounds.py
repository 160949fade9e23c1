"""Files, folders and artifacts: each refusal by its reason, each bound from both sides."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import json
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from conftest import leftovers
from staging_tools import KIND, content, fill, write

from strop.compiler.artifact.folder import Artifact, read_artifact, read_intact, write_json
from strop.compiler.artifact.output import require_output
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files import publish, staging
from strop.compiler.util.files.holdings import WORK_INSIDE, holdings, require_replaceable
from strop.compiler.util.files.staging import real_path, require_place, staged
from strop.compiler.util.files.writing import (
    require_folder,
    require_short,
    require_writable,
    write_whole,
)

# Names and places of single files -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "more", "fits"),
    [
        ("/" + "n" * 255, 0, True),
        ("/" + "n" * 256, 0, False),
        ("/" + "n" * 250, 5, True),
        ("/" + "n" * 250, 6, False),
        ("/" + "é" * 128, 0, False),
        ("/" + "n" * 256 + "/x", 0, False),
        ("/" + "n" * 255 + "/x", 0, True),
        ("/" + "n" * 255 + "/x", 254, True),
        # The root counts as a name of one byte.
        ("/" + "/".join(["n" * 200] * 18 + ["m" * 199]), 0, True),
        ("/" + "/".join(["n" * 200] * 18 + ["m" * 200]), 0, False),
    ],
)
def test_names_and_paths_have_ends(path: str, more: int, fits: bool) -> None:
    if fits:
        require_short(Path(path), "--out: ", more)
    else:
        with pytest.raises(UsageError) as raised:
            require_short(Path(path), "--out: ", more)
        assert str(raised.value) == (
            f"--out: {path[:80]}... is too long: names have at most {255 - more} bytes here, "
            "paths 3800"
        )


def no_access(monkeypatch: pytest.MonkeyPatch) -> None:
    """As somebody who is not root sees a folder that only root may use."""
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK)


PLACES: list[tuple[Callable[[Path | None, str], None], str, str]] = [
    (require_writable, "folder", "is a folder; name a file"),
    (require_writable, "pipe", "is not a regular file; name another"),
    (require_writable, "nowhere/file", "there is no folder"),
    (require_writable, "n" * 246, "is too long"),
    (require_folder, "file", "cannot be a folder"),
    (require_folder, "file/below/more", "file is a file"),
    (require_folder, "n" * 256, "is too long"),
]


@pytest.fixture
def places(tmp_path: Path) -> Path:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(("require", "name", "says"), PLACES)
def test_a_place_that_cannot_be_written_is_refused(
    places: Path, require: Callable[[Path | None, str], None], name: str, says: str
) -> None:
    with pytest.raises(UsageError) as raised:
        require(places / name, "--out")
    assert says in str(raised.value) and str(raised.value).startswith("--out: ")


def test_a_place_that_can_be_written_is_taken(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_writable(None, "--out")
    require_folder(None, "--out")
    for name in ("file", "new", "folder/new", "n" * (255 - len("..XXXXXXXX"))):
        require_writable(places / name, "--out")
    for name in ("folder", "new", "folder/new/more", "n" * 255):
        require_folder(places / name, "--out")
    no_access(monkeypatch)
    with pytest.raises(UsageError, match=f"no write access to {places}$"):
        require_writable(places / "new", "--out")
    with pytest.raises(UsageError, match=f"no write access to {places / 'folder'}$"):
        require_folder(places / "folder" / "new" / "more", "--out")


def test_a_file_is_written_whole_with_the_users_own_rights(tmp_path: Path) -> None:
    path = tmp_path / "file"
    for mask, mode in ((0o022, 0o644), (0o077, 0o600), (0o000, 0o666)):
        before = os.umask(mask)
        try:
            write_whole(path, "text")
            assert os.umask(mask) == mask
        finally:
            os.umask(before)
        assert stat.S_IMODE(path.stat().st_mode) == mode
    (tmp_path / "link").symlink_to("file")
    write_whole(tmp_path / "link", "more")
    assert (tmp_path / "link").is_symlink() and path.read_text() == "more"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["file", "link"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("folder", "it is not a regular file"),
        ("pipe", "it is not a regular file"),
        ("nowhere/file", "No such file"),
        ("loop", "could not be written: "),
    ],
)
def test_a_file_that_cannot_be_written_is_a_sentence(places: Path, name: str, says: str) -> None:
    (places / "loop").symlink_to("loop")
    with pytest.raises(UsageError) as raised:
        write_whole(places / name, "text")
    assert says in str(raised.value)
    assert sorted(p.name for p in places.iterdir()) == ["file", "folder", "loop", "pipe"]


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_file_that_was_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def fails(self: Path, _: Any) -> None:
        raise error

    (tmp_path / "file").write_text("old")
    monkeypatch.setattr(Path, "replace", fails)
    kind = UsageError if isinstance(error, OSError) else KeyboardInterrupt
    with pytest.raises(kind):
        write_whole(tmp_path / "file", "new")
    assert content(tmp_path) == {"file": "old"}


# What a folder holds ------------------------------------------------------------------------------


def test_what_a_folder_holds_is_told_apart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(out, {"seal": "b a sub/c gone sub/deep/d link", "a": "", "b": "", "z": "", "sub/x": ""})
    fill(out, {"sub/c": "", "other/e": "", "sub/deep/d": ""})
    fill(out, {f"{WORK_INSIDE}abcdefgh/f": "", ".stropfile": "", f"{WORK_INSIDE}file": ""})
    (out / "link").symlink_to("a")
    found = holdings(out, KIND)
    assert found.own == ["seal", "a", "b", "sub/c", "sub/deep/d"]
    assert found.foreign == [f"{WORK_INSIDE}file", ".stropfile", "link", "other", "sub/x", "z"]
    assert found.is_kind
    (out / "seal").unlink()
    bare = holdings(out, KIND)
    assert (bare.own, bare.is_kind) == ([], False)
    assert bare.foreign == [
        f"{WORK_INSIDE}file",
        ".stropfile",
        "a",
        "b",
        "link",
        "other",
        "sub",
        "z",
    ]


TAKEN: list[tuple[str, bool, str]] = [
    ("new", False, ""),
    ("own", False, ""),
    ("folder/new", False, ""),
    ("theirs", False, "which is not strop's and would be replaced. Name another folder."),
    ("theirs", True, ""),
    ("folder", True, "which is not a regular file"),
    ("link", True, "which is not a regular file"),
    ("theirs/new", True, "holds 'theirs', where a folder must be"),
    ("way/new", True, "holds 'way', where a folder must be"),
    ("folder/deep/file/new", True, "holds 'folder/deep/file', where a folder must be"),
]


@pytest.mark.parametrize(("name", "force", "says"), TAKEN)
def test_only_what_is_strops_is_replaced(tmp_path: Path, name: str, force: bool, says: str) -> None:
    fill(tmp_path, {"own": "", "theirs": "", "folder/deep/file": ""})
    (tmp_path / "link").symlink_to("nowhere")
    (tmp_path / "way").symlink_to("folder")
    if says:
        with pytest.raises(UsageError) as raised:
            require_replaceable(tmp_path, [name, "own"], ["own"], KIND, force)
        assert says in str(raised.value)
    else:
        require_replaceable(tmp_path, [name, "own"], ["own"], KIND, force)


# How it is replaced -------------------------------------------------------------------------------


def system(monkeypatch: pytest.MonkeyPatch, code: int | None) -> list[tuple[Any, ...]]:
    """A system whose exchange fails with a code; None for one that has no exchange."""
    calls: list[tuple[Any, ...]] = []
    libc = SimpleNamespace()
    if code is not None:
        libc.renameat2 = lambda *given: (calls.append(given), -1 if code else 0)[1]
    monkeypatch.setattr(ctypes, "CDLL", lambda name, use_errno: libc if use_errno else None)
    monkeypatch.setattr(ctypes, "get_errno", lambda: code)
    return calls


@pytest.mark.parametrize("code", [errno.EINVAL, errno.ENOSYS, errno.EXDEV, errno.EBUSY, None])
def test_a_system_that_cannot_exchange_says_so(
    monkeypatch: pytest.MonkeyPatch, code: int | None
) -> None:
    system(monkeypatch, code)
    assert publish.exchange(Path("/a"), Path("/b")) is False


def test_an_exchange_names_both_folders_and_other_errors_are_raised(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = system(monkeypatch, 0)
    assert publish.exchange(Path("/a"), Path("/b")) is True
    assert calls == [(-100, b"/a", -100, b"/b", 2)]
    system(monkeypatch, errno.EACCES)
    with pytest.raises(PermissionError):
        publish.exchange(Path("/a"), Path("/b"))


OLD, NEW = {"a": "old", "sub/deep/b": "old", "keep/c": "old"}, {"a": "new", "n/d": "new"}


def test_a_folder_with_something_of_its_owners_is_not_moved_for_a_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "out", OLD)
    fill(tmp_path / "out", {"mine": "mine"})
    monkeypatch.setattr(publish, "exchange", pytest.fail)
    write(tmp_path / "out", NEW)
    assert content(tmp_path / "out") == {**NEW, "seal": "a\nn/d", "mine": "mine"}


def test_empty_folders_of_what_leaves_go_with_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    write(out, OLD)
    fill(out, {"keep/mine": "mine", "mine/x": "mine"})
    (out / "empty").mkdir()
    write(out, NEW)
    assert content(out) == {**NEW, "seal": "a\nn/d", "keep/mine": "mine", "mine/x": "mine"}
    assert sorted(p.name for p in out.iterdir()) == ["a", "empty", "keep", "mine", "n", "seal"]


def test_files_that_are_forced_are_put_back_after_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    fill(out, {"a": "mine", "other": "mine"})
    move, left = publish._move, iter(range(2))

    def fails(name: str, source: Path, target: Path) -> None:
        if next(left, None) is None:
            monkeypatch.setattr(publish, "_move", move)
            raise OSError(errno.EIO, "no such luck")
        move(name, source, target)

    monkeypatch.setattr(publish, "_move", fails)
    with pytest.raises(UsageError, match=f"{out} could not be written: no such luck$"):
        write(out, NEW, force=True)
    assert content(out) == {"a": "mine", "other": "mine"}
    assert sorted(p.name for p in out.iterdir()) == ["a", "other"]
    assert leftovers(tmp_path) == []
    write(out, NEW, force=True)
    assert content(out) == {**NEW, "seal": "a\nn/d", "other": "mine"}


@pytest.mark.parametrize("error", [OSError(errno.EIO, "no luck"), OSError("no luck")])
def test_what_the_system_says_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: OSError
) -> None:
    def fails(*_: Any) -> None:
        raise error

    monkeypatch.setattr(staging, "publish", fails)
    with pytest.raises(UsageError, match=r"out could not be written: no luck$"):
        write(tmp_path / "out", NEW)
    monkeypatch.setattr(os, "urandom", fails)
    with pytest.raises(UsageError, match=r"out cannot be written: no luck$"):
        require_place(tmp_path / "out", KIND, [])
    monkeypatch.setattr(Path, "replace", fails)
    with pytest.raises(UsageError, match=r"file could not be written: no luck$"):
        write_whole(tmp_path / "file", "text")


def test_a_workspace_is_its_own_and_holds_a_lock(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged(out, KIND) as new:
        work = new.parent
        assert (new.name, work.parent) == ("new", tmp_path)
        assert work.name.startswith(".out.strop-") and len(work.name) == len(".out.strop-") + 8
        assert stat.S_IMODE((work / "lock").stat().st_mode) == 0o600
        assert stat.S_IMODE(work.stat().st_mode) == 0o700
        fill(new, {"seal": ""})
    assert leftovers(tmp_path) == []


def test_a_lock_is_no_link_and_can_be_written_as_network_file_systems_demand(
    tmp_path: Path,
) -> None:
    lock = staging._lock(tmp_path, os.O_CREAT)
    assert fcntl.fcntl(lock, fcntl.F_GETFL) & os.O_ACCMODE == os.O_RDWR
    with pytest.raises(BlockingIOError):
        staging._lock(tmp_path)
    os.close(lock)
    (tmp_path / "lock").rename(tmp_path / "elsewhere")
    (tmp_path / "lock").symlink_to("elsewhere")
    with pytest.raises(OSError, match="symbolic links"):
        staging._lock(tmp_path)


def test_a_turn_is_waited_for_as_long_as_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, slept, passes = [0.0], [], iter((60.0, 0.5, 60.0))

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        now[0] += next(passes)

    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "sleep", sleep)
    with staging._turn(tmp_path / "out"):
        with pytest.raises(UsageError, match="out could not be written: another .* for 60 s$"):
            staging._turn(tmp_path / "out").__enter__()
        assert slept == [0.02, 0.02]
    with staging._turn(tmp_path / "out"):
        assert slept == [0.02, 0.02]


def test_only_what_is_called_like_a_workspace_is_swept_up(tmp_path: Path) -> None:
    theirs = {"deaddead/lock": "", "deaddead/new/x": "", ".oet.strop-deaddead/lock": ""}
    fill(tmp_path, theirs)
    prefix = staging._prefix(tmp_path / "out")
    # It died when all was written, and before anything was moved.
    fill(tmp_path, {f"{prefix}deaddead/{n}": n for n in ("lock", "new/seal", "new/a")})
    require_place(tmp_path / "out", KIND, [])
    assert content(tmp_path) == theirs
    write(tmp_path / "out", NEW)
    assert content(tmp_path / "out") == {**NEW, "seal": "a\nn/d"}


def test_a_foreign_folder_is_written_into_by_force_only(tmp_path: Path) -> None:
    fill(tmp_path, {"out/theirs": "", "out/zero": ""})
    with pytest.raises(UsageError, match="is not a folder of the tests: it holds 'theirs'"):
        require_place(tmp_path / "out", KIND, ["new"])
    require_place(tmp_path / "out", KIND, ["new"], force=True)
    with (
        pytest.raises(UsageError, match="holds 'theirs', which is not strop's"),
        staged(tmp_path / "out", KIND) as new,
    ):
        fill(new, {"theirs": "new", "seal": "theirs"})
    assert content(tmp_path / "out") == {"theirs": "", "zero": ""}


def test_a_folder_beside_which_nothing_can_be_made_is_written_from_inside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = tempfile.mkdtemp

    def fails(prefix: str, dir: Path) -> str:
        if dir == tmp_path:
            raise PermissionError(errno.EACCES, "not here")
        return real(prefix=prefix, dir=dir)

    write(tmp_path / "out", OLD)
    monkeypatch.setattr(tempfile, "mkdtemp", fails)
    with pytest.raises(UsageError, match="new could not be written: not here"):
        write(tmp_path / "new", NEW)
    write(tmp_path / "out", NEW)
    assert content(tmp_path / "out") == {**NEW, "seal": "a\nn/d"}


def test_room_for_the_smallest_artifact_is_tried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    real = Path.write_bytes
    monkeypatch.setattr(
        Path, "write_bytes", lambda self, data: (written.append(len(data)), real(self, data))[1]
    )
    require_place(tmp_path / "out", KIND, [])
    require_place(tmp_path / "a" / "b" / "out", KIND, [])
    assert written == [256 * 1024] * 2
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_looked_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "file").touch()
    for path, says in (
        (tmp_path / "loop", "cannot be used"),
        (Path("a\0b"), "cannot be used"),
        (tmp_path / "file", "is not a folder"),
        (tmp_path / "file" / "below", "is not a folder"),
        (tmp_path / ("n" * 240), "is too long"),
    ):
        with pytest.raises(UsageError, match=says):
            require_place(path, KIND, [])
    require_place(tmp_path / ("n" * 239), KIND, [])
    monkeypatch.chdir(tmp_path)
    for path in (tmp_path, tmp_path.parent):
        with pytest.raises(UsageError, match="is the working folder or holds it"):
            require_place(path, KIND, [])
    assert real_path(Path("x")) == tmp_path / "x"


@pytest.mark.parametrize("code", [errno.ENOTEMPTY, errno.EEXIST, errno.EXDEV, errno.EBUSY])
def test_whether_a_folder_can_be_moved_is_what_the_system_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "work").mkdir()

    def fails(self: Path, target: Path) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(Path, "rename", fails)
    movable = staging._can_be_moved(tmp_path / "out", tmp_path / "work")
    assert movable == (code in (errno.ENOTEMPTY, errno.EEXIST))
    assert list((tmp_path / "work").iterdir()) == []


# What a build writes over, and what it made -------------------------------------------------------


def manifest(**files: str) -> dict[str, Any]:
    def entry(text: str) -> dict[str, Any]:
        return {"bytes": len(text), "sha256": hashlib.sha256(text.encode()).hexdigest()}

    named = {name.replace("_", "."): entry(text) for name, text in files.items()}
    return {
        "strop_format": 1,
        "target": "cpu",
        "contract": {"inputs": [], "outputs": [], "dims": []},
        "passes": [],
        "checks": [{"case": "c", "output": "y", "max_error": 0.0, "cosine": None}],
        "metrics": {},
        "notes": [],
        "files": {n: e for n, e in named.items() if n.startswith("model")},
        "assets": {n: e for n, e in named.items() if n.startswith("asset")},
        "side_files": {n: e for n, e in named.items() if n.startswith("side")},
    }


FILES = {"model_onnx": "model", "model_onnx_data": "data", "asset_txt": "asset", "side_txt": "side"}


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    out = tmp_path / "out"
    fill(out, {name.replace("_", "."): text for name, text in FILES.items()})
    fill(out, {"manifest.json": json.dumps(manifest(**FILES)), "report.html": ""})
    return out


def test_an_artifact_names_its_files(artifact: Path) -> None:
    found = read_intact(artifact)
    assert found.file_names() == {
        "manifest.json", "build.json", "report.html", "model.onnx", "model.onnx.data",
        "asset.txt", "side.txt",
    }  # fmt: skip
    assert (found.size, found.damaged()) == (len("model") + len("data"), [])
    assert found.model_path == artifact / "model.onnx"
    bare = Artifact(artifact, {})
    assert bare.file_names() == {"manifest.json", "build.json", "report.html"}


def test_what_changed_is_told_file_by_file(artifact: Path) -> None:
    (artifact / "model.onnx").write_text("medel")  # as long, but another
    (artifact / "model.onnx.data").write_text("data and more")
    (artifact / "asset.txt").unlink()
    (artifact / "side.txt").unlink()
    changed = [
        "asset.txt is missing",
        "model.onnx has changed since it was built",
        "model.onnx.data has changed since it was built",
    ]
    assert read_artifact(artifact).damaged() == changed
    with pytest.raises(UsageError) as raised:
        read_intact(artifact)
    assert str(raised.value) == f"{artifact}: {'; '.join(changed)}. Build it again."


def test_a_side_file_may_be_left_out_but_not_changed(artifact: Path) -> None:
    (artifact / "side.txt").unlink()
    assert read_intact(artifact).damaged() == []
    (artifact / "side.txt").write_text("edis")
    assert read_artifact(artifact).damaged() == ["side.txt has changed since it was built"]


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    for values in ({"b": [1], "a": None}, {"a": None, "b": [1]}):
        write_json(tmp_path / "file", values)
        assert (tmp_path / "file").read_text() == ('{\n  "a": null,\n  "b": [\n    1\n  ]\n}\n')


def test_the_record_of_a_build_may_be_missing(artifact: Path) -> None:
    found = read_artifact(artifact)
    assert found.build_record() == {}
    (artifact / "build.json").write_text('{"pass_seconds": {"cse": 0.5}, "more": 1}')
    assert found.build_record() == {
        "pass_seconds": {"cse": 0.5}, "milliseconds": {}, "notes": [], "programs": {}, "more": 1,
    }  # fmt: skip
    (artifact / "build.json").write_text('{"pass_seconds": {"cse": "1"}}')
    with pytest.raises(UsageError, match="build.json is damaged at 'pass_seconds.cse'"):
        found.build_record()


NO_ARTIFACTS: list[tuple[str | None, str]] = [
    (None, "it has no manifest.json of strop's"),
    ("[]", "it has no manifest.json of strop's"),
    ("{}", "it has no manifest.json of strop's"),
    ("{", "is not a strop artifact, or was damaged: the file"),
    ('{"strop_format": 2}', "has format 2, this strop reads format 1"),
    ('{"strop_format": 0}', "has format 0, this strop reads format 1"),
    ('{"strop_format": 1}', "manifest.json is damaged at 'target'"),
    (json.dumps(manifest(asset_txt="a")), "manifest.json does not name model.onnx"),
]


@pytest.mark.parametrize(("text", "says"), NO_ARTIFACTS)
def test_what_is_no_artifact_is_refused(tmp_path: Path, text: str | None, says: str) -> None:
    if text is not None:
        (tmp_path / "manifest.json").write_text(text)
    with pytest.raises(UsageError) as raised:
        read_artifact(tmp_path)
    assert says in str(raised.value)


def test_a_build_writes_neither_over_what_it_reads_nor_over_what_is_not_its_own(
    artifact: Path, tmp_path: Path
) -> None:
    require_output(artifact, force=False)
    require_output(tmp_path / "new", force=False, sources=[tmp_path / "model.py"])
    source = artifact / "sub" / "model.py"
    fill(artifact, {"sub/model.py": "", "mine": ""})
    require_output(artifact, force=False, sources=[source, tmp_path / "elsewhere"])
    for name, more in (
        ("model.onnx", []),
        ("side.txt", []),
        ("mine", ["mine"]),
        ("provenance.json", []),
    ):
        with pytest.raises(UsageError, match=f"holds '{name}', which this build reads"):
            require_output(artifact, True, more, [artifact / name])
    with pytest.raises(UsageError, match="holds 'sub', which this build reads"):
        require_output(artifact, True, ["sub/labels.txt"], [artifact / "sub"])
    require_output(artifact, True, ["subway/x"], [artifact / "sub"])
    with pytest.raises(UsageError, match="is what is built"):
        require_output(artifact, True, (), [artifact])
    with pytest.raises(UsageError, match="holds 'mine', which is not strop's"):
        require_output(artifact, False, ["mine"])
    (artifact / "manifest.json").unlink()
    with pytest.raises(UsageError, match="is not a strop artifact: it holds"):
        require_output(artifact, False)
    require_output(artifact, True)
