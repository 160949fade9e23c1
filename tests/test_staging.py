"""Folders are written whole or not at all, and nothing in them but strop's own files changes."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from textwrap import dedent

import pytest
from conftest import leftovers, run_python
from staging_tools import KIND, content, fill, is_whole, write

from strop.compiler.util import interrupts
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files import publish, staging
from strop.compiler.util.files.holdings import WORK_INSIDE, holdings
from strop.compiler.util.files.staging import require_place, staged
from strop.compiler.util.stages import Stages

OLD = {"a": "old", "b": "old", "sub/c": "old"}
NEW = {"a": "new", "b": "new", "d": "new"}


def sealed(files: dict[str, str]) -> dict[str, str]:
    return {**files, "seal": "\n".join(files)}


def written(tmp_path: Path) -> Path:
    """A folder of the kind."""
    write(tmp_path / "out", OLD)
    return tmp_path / "out"


# What may stand at the output path -------------------------------------------------------------


def absent(out: Path) -> None:
    pass


def empty(out: Path) -> None:
    out.mkdir()


def ours(out: Path) -> None:
    write(out, OLD)


def ours_and_more(out: Path) -> None:
    write(out, OLD)
    fill(out, {"README": "mine", ".git/config": "mine", "sub/mine": "mine"})
    (out / "empty").mkdir()


def ours_with_links(out: Path) -> None:
    """What the seal names, but is not a regular file, is not ours."""
    write(out, OLD)
    fill(out.parent, {"elsewhere/x": "mine"})
    (out / "sub" / "c").unlink()
    (out / "sub" / "c").symlink_to(out.parent / "elsewhere" / "x")


def ours_naming_what_is_outside(out: Path) -> None:
    write(out, OLD)
    fill(out.parent, {"elsewhere/x": "mine"})
    (out / "seal").write_text(f"a b ../elsewhere/x {out.parent}/elsewhere/x link/x ./a")
    (out / "link").symlink_to(out.parent / "elsewhere")


def ours_and_a_name_that_is_wanted(out: Path) -> None:
    write(out, OLD)
    fill(out, {"d": "mine"})


def ours_and_a_folder_where_a_file_is_wanted(out: Path) -> None:
    write(out, OLD)
    fill(out, {"d/mine": "mine"})


def foreign(out: Path) -> None:
    fill(out, {"thesis": "mine", "sub/more": "mine"})


def foreign_with_a_name_that_is_wanted(out: Path) -> None:
    fill(out, {"thesis": "mine", "a": "mine"})


def foreign_with_a_seal_that_is_none(out: Path) -> None:
    out.mkdir()
    (out / "seal").write_bytes(b"\xff\xfe")
    fill(out, {"thesis": "mine"})


def foreign_with_a_link_where_a_file_is_wanted(out: Path) -> None:
    fill(out, {"thesis": "mine"})
    fill(out.parent, {"elsewhere/x": "mine"})
    (out / "a").symlink_to(out.parent / "elsewhere" / "x")


def foreign_with_a_pipe_where_a_file_is_wanted(out: Path) -> None:
    out.mkdir()
    os.mkfifo(out / "a")


def a_file(out: Path) -> None:
    out.write_text("mine")


def a_pipe(out: Path) -> None:
    os.mkfifo(out)


def a_socket(out: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        one.bind(os.path.relpath(out))  # an absolute path is longer than a socket may have


def below_a_file(out: Path) -> None:
    shutil.rmtree(out.parent)
    out.parent.write_text("mine")


def a_link_to_ours(out: Path) -> None:
    ours_and_more(out.with_name("target"))
    out.symlink_to("target")


def a_link_to_nothing(out: Path) -> None:
    out.symlink_to("target")


def a_link_to_foreign(out: Path) -> None:
    foreign(out.with_name("target"))
    out.symlink_to("target")


def a_loop(out: Path) -> None:
    out.symlink_to(out.with_name("again"))
    out.with_name("again").symlink_to(out)


Situation = Callable[[Path], None]
# Of each situation: whether it is written to without and with force.
SITUATIONS: list[tuple[Situation, bool, bool]] = [
    (absent, True, True),
    (empty, True, True),
    (ours, True, True),
    (ours_and_more, True, True),
    (ours_with_links, True, True),
    (ours_naming_what_is_outside, True, True),
    (ours_and_a_name_that_is_wanted, False, True),
    (ours_and_a_folder_where_a_file_is_wanted, False, False),
    (foreign, False, True),
    (foreign_with_a_name_that_is_wanted, False, True),
    (foreign_with_a_seal_that_is_none, False, True),
    (foreign_with_a_link_where_a_file_is_wanted, False, False),
    (foreign_with_a_pipe_where_a_file_is_wanted, False, False),
    (a_file, False, False),
    (a_pipe, False, False),
    (a_socket, False, False),
    (below_a_file, False, False),
    (a_link_to_ours, True, True),
    (a_link_to_nothing, True, True),
    (a_link_to_foreign, False, True),
    (a_loop, False, False),
]


def everything(folder: Path) -> dict[Path, tuple[int, str]]:
    """Of every entry below a folder, but for folders that hold some: kind, content, target."""
    found = {}
    for path in folder.rglob("*"):
        if path.is_symlink():
            text = str(path.readlink())
        elif path.is_dir() and any(path.iterdir()):
            continue
        else:
            text = path.read_text("latin-1") if path.is_file() else ""
        found[path] = (stat.S_IFMT(path.lstat().st_mode), text)
    return found


def may_change(out: Path, force: bool) -> set[Path]:
    """What is strop's to replace: files named by the seal, an empty folder, with force a name."""
    if not out.is_dir():
        return set()
    names = [*holdings(out, KIND).own, *(sealed(NEW) if force else [])]
    return {out.resolve(), *(out.resolve() / name for name in names)}


@pytest.mark.parametrize("force", [False, True], ids=["plain", "force"])
@pytest.mark.parametrize(
    ("situation", "plain", "forced"), SITUATIONS, ids=[s[0].__name__ for s in SITUATIONS]
)
def test_what_is_not_strops_stays_whatever_stands_at_the_output_path(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    situation: Situation,
    plain: bool,
    forced: bool,
    force: bool,
) -> None:
    monkeypatch.chdir(tmp_path)
    out = tmp_path / "place" / "out"
    fill(out.parent, {"beside": "mine"})
    situation(out)
    before = everything(tmp_path)
    own = may_change(out, force and not plain)
    if not (forced if force else plain):
        for _ in range(2):
            with pytest.raises(UsageError):
                require_place(out, KIND, sealed(NEW), force)
            assert everything(tmp_path) == before
        return
    require_place(out, KIND, sealed(NEW), force)
    assert everything(tmp_path) == before
    write(out, NEW, force)
    after = everything(tmp_path)
    kept = {path: entry for path, entry in before.items() if path not in own}
    assert {path: after.get(path) for path in kept} == kept
    assert sealed(NEW).items() <= content(out).items()
    assert set(holdings(out, KIND).own) == set(sealed(NEW))
    assert leftovers(out.parent) == leftovers(out.resolve().parent) == []
    assert not list(out.glob(f"{WORK_INSIDE}*"))


@pytest.mark.parametrize(
    ("path", "words"),
    [
        ("n" * 256, "too long"),
        ("n" * 250, "too long"),
        ("n" * 256 + "/out", "too long"),
        ("/".join(["n" * 200] * 25), "too long"),
        ("/", "is the working folder or holds it"),
        (".", "is the working folder or holds it"),
        ("..", "is the working folder or holds it"),
        ("a\0b", "cannot be used"),
        ("/proc/nowhere/out", "cannot be written"),
    ],
)
def test_a_path_that_no_folder_can_have_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str, words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=words):
        require_place(Path(path).absolute(), KIND, sealed(NEW))
    assert list(tmp_path.iterdir()) == []


def test_the_longest_name_and_missing_parents_are_written(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / ("n" * (255 - staging._SUFFIX))
    require_place(out, KIND, sealed(NEW))
    assert list(tmp_path.iterdir()) == []
    write(out, NEW)
    assert content(out) == sealed(NEW)


def test_a_place_without_room_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Path, data: bytes) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(UsageError, match="cannot be written: No space left"):
        require_place(tmp_path / "out", KIND, sealed(NEW))
    assert list(tmp_path.iterdir()) == []


# How a folder is replaced -----------------------------------------------------------------------


def test_a_folder_of_strops_alone_is_exchanged_in_one_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(publish, "_move", pytest.fail)
    out = written(tmp_path)
    out.chmod(0o2750)
    write(out, NEW)
    assert content(out) == sealed(NEW)
    assert out.stat().st_mode & 0o7777 == 0o2750
    assert leftovers(tmp_path) == []


def test_linux_swaps_two_folders_by_one_system_call(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    assert publish.exchange(tmp_path / "a", tmp_path / "b") == (sys.platform == "linux")
    with pytest.raises(FileNotFoundError):
        publish.exchange(tmp_path / "a", tmp_path / "nowhere")


def test_a_file_that_is_put_there_in_the_moment_of_the_exchange_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = written(tmp_path)
    once = iter([lambda: (out / "mine").write_text("mine")])

    def late(a: Path, b: Path) -> bool:
        next(once, lambda: 0)()
        return exchange(a, b)

    exchange = publish.exchange
    monkeypatch.setattr(publish, "exchange", late)
    write(out, NEW)
    assert content(out) == {**sealed(NEW), "mine": "mine"}


@pytest.mark.parametrize("movable", [True, False], ids=["no exchange", "not movable"])
def test_a_folder_that_cannot_be_exchanged_is_replaced_file_by_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, movable: bool
) -> None:
    seen = []
    monkeypatch.setattr(publish, "exchange", lambda a, b: False)
    if not movable:
        monkeypatch.setattr(staging, "_can_be_moved", lambda out, work: False)
    out = written(tmp_path)
    inode = out.stat().st_ino
    with staged(out, KIND) as new:
        seen = [p.name for p in out.iterdir() if p.name.startswith(WORK_INSIDE)]
        fill(new, sealed(NEW))
    assert len(seen) == (0 if movable else 1)
    assert content(out) == sealed(NEW)
    assert out.stat().st_ino == inode
    assert sorted(p.name for p in out.iterdir()) == ["a", "b", "d", "seal"]
    assert leftovers(tmp_path) == []


def test_at_no_moment_is_a_mix_sealed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = written(tmp_path)
    (out / "mine").write_text("mine")
    move, sealed_with = publish._move, []

    def watched(name: str, source: Path, target: Path) -> None:
        move(name, source, target)
        if (out / "seal").exists():
            sealed_with.append(content(out))

    monkeypatch.setattr(publish, "_move", watched)
    write(out, NEW)
    assert sealed_with == [{**sealed(NEW), "mine": "mine"}]


def test_an_error_on_the_way_puts_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At each of the moves, one after the other."""
    out = written(tmp_path)
    (out / "mine").write_text("mine")
    before, move = content(out), publish._move
    total = len(sealed(OLD)) + len(sealed(NEW))
    for number in range(total):
        left = iter(range(number))

        def fails(name: str, source: Path, target: Path, left=left) -> None:  # type: ignore[no-untyped-def]
            if next(left, None) is None and source != target.parent / "old":
                monkeypatch.setattr(publish, "_move", move)
                raise OSError(errno.EIO, "no such luck")
            move(name, source, target)

        monkeypatch.setattr(publish, "_move", fails)
        with pytest.raises(UsageError, match="no such luck"):
            write(out, NEW)
        assert content(out) == before
        assert leftovers(tmp_path) == []


KILLED = """
    import os, signal, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from staging_tools import write
    from strop.compiler.util.files import publish
    from strop.compiler.util.files import staging
    move, count = publish._move, 0
    def counted(*arguments):
        global count
        if count == {number}:
            os.kill(os.getpid(), signal.SIGKILL)
        count += 1
        move(*arguments)
    publish._move = counted
    if {inside}:
        staging._can_be_moved = lambda out, work: False
    write(Path({out!r}), {new!r})
"""


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("number", [0, 1, 3, 4, 5, 7, 8])
def test_a_kill_between_two_moves_is_mended_by_the_next_build(
    tmp_path: Path, number: int, inside: bool
) -> None:
    """Four files leave and four come: the last move makes the new folder whole."""
    out = written(tmp_path)
    (out / "mine").write_text("mine")
    before = content(out)
    script = KILLED.format(
        number=number, inside=inside, out=str(out), new=NEW, tests=str(Path(__file__).parent)
    )
    done = run_python("-c", dedent(script))
    assert done.code == (0 if number == 8 else -signal.SIGKILL), done.err
    sealed_now = (out / "seal").exists()
    assert sealed_now == (number in (0, 8))
    require_place(out, KIND, sealed(NEW))
    assert content(out) == ({**sealed(NEW), "mine": "mine"} if number == 8 else before)
    assert leftovers(tmp_path) == leftovers(out) == []


def test_a_kill_behind_the_last_move_leaves_the_new_folder(tmp_path: Path) -> None:
    out = written(tmp_path)
    dead = tmp_path / f"{staging._prefix(out)}deaddead"
    fill(dead, {"lock": "", "old/a": "older", "moving.json": '["a", "seal"]'})
    require_place(out, KIND, sealed(NEW))
    assert content(out) == sealed(OLD)
    assert leftovers(tmp_path) == []


def test_folders_that_only_look_like_workspaces_stay(tmp_path: Path) -> None:
    out = written(tmp_path)
    prefix = staging._prefix(out)
    fill(tmp_path, {f"{prefix}mymodels/x": "mine", f"{prefix}a/lock": "mine"})
    fill(tmp_path, {f"{prefix}filefile": "mine", f"{prefix}deaddead/lock": "", "real/lock": "mine"})
    fill(tmp_path, {f"{prefix}deaddead/mine": "mine", f"{prefix}deaddead/new/x": "rest"})
    (tmp_path / f"{prefix}linklink").symlink_to("real")
    fill(out, {f"{WORK_INSIDE}mymodels/x": "mine"})
    write(out, NEW)
    assert content(out) == {**sealed(NEW), f"{WORK_INSIDE}mymodels/x": "mine"}
    assert sorted(
        content(tmp_path).items() - {f"out/{n}": t for n, t in content(out).items()}.items()
    ) == [
        (f"{prefix}a/lock", "mine"),
        (f"{prefix}deaddead/mine", "mine"),
        (f"{prefix}filefile", "mine"),
        (f"{prefix}mymodels/x", "mine"),
        ("real/lock", "mine"),
    ]


def test_an_error_while_writing_leaves_the_folder_as_it_was(tmp_path: Path) -> None:
    out = written(tmp_path)
    with pytest.raises(UsageError, match="No space left"), staged(out, KIND) as stage:
        (stage / "half").touch()
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    assert content(out) == sealed(OLD)
    assert leftovers(tmp_path) == []


# Several processes, and signals -----------------------------------------------------------------


@pytest.mark.parametrize("foreign", [False, True], ids=["exchanged", "file by file"])
def test_four_processes_that_publish_to_one_folder_all_succeed(
    tmp_path: Path, foreign: bool
) -> None:
    out = tmp_path / "out"
    if foreign:
        write(out, OLD)
        (out / "mine").write_text("mine")
    script = Path(__file__).with_name("staging_tools.py")
    racers = [
        subprocess.Popen(
            [sys.executable, str(script), str(out), f"text-{i}", "12"], stderr=subprocess.PIPE
        )
        for i in range(4)
    ]
    said = [racer.communicate(timeout=60)[1].decode() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * 4, said
    assert is_whole(out)
    assert (out / "mine").exists() == foreign
    assert leftovers(tmp_path) == []


def test_two_builds_of_one_folder_do_not_disturb_each_other(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with staged(out, KIND) as first:
        fill(first, sealed({"first": "first"}))
        write(out, NEW)
        assert first.exists()
    assert content(out) == sealed({"first": "first"})


def test_a_build_does_not_wait_for_ever_for_another_to_publish(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(staging, "PATIENCE", 0.1)
    with (
        staging._turn(tmp_path / "out"),
        pytest.raises(UsageError, match="another process has been writing it"),
    ):
        write(tmp_path / "out", NEW)


@pytest.fixture
def heard() -> Iterator[None]:
    """Signals are heard as on the command line."""
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.getsignal(number) for number in numbers}
    hook = sys.unraisablehook
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)  # it is ignored where tests run in the background
    interrupts.listen()
    yield
    interrupts.listen()  # forgets what was received
    sys.unraisablehook = hook
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("heard")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_that_was_swallowed_ends_the_build_before_it_publishes(
    tmp_path: Path, number: signal.Signals, capsys: pytest.CaptureFixture[str]
) -> None:
    class Swallows:
        def __del__(self) -> None:
            os.kill(os.getpid(), number)

    out = written(tmp_path)
    with pytest.raises(interrupts.Interrupted), staged(out, KIND) as new:
        fill(new, sealed(NEW))
        Swallows()  # an exception in a finalizer is printed and forgotten by Python
    assert content(out) == sealed(OLD)
    assert interrupts.exit_code() == 128 + number
    assert capsys.readouterr().err == ""


@pytest.mark.usefixtures("heard")
def test_a_signal_while_a_folder_is_published_comes_too_late(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = written(tmp_path)
    exchange = publish.exchange

    def interrupted(a: Path, b: Path) -> bool:
        os.kill(os.getpid(), signal.SIGINT)
        return exchange(a, b)

    monkeypatch.setattr(publish, "exchange", interrupted)
    with (
        pytest.raises(interrupts.Interrupted),
        staged(out, KIND, published=interrupts.settle) as new,
    ):
        fill(new, sealed(NEW))
    assert content(out) == sealed(NEW)
    assert interrupts.exit_code() == 0
    assert leftovers(tmp_path) == []


@pytest.mark.usefixtures("heard")
def test_a_stage_does_not_begin_after_a_signal_that_was_swallowed() -> None:
    stages = Stages()
    with suppress(interrupts.Interrupted):
        os.kill(os.getpid(), signal.SIGTERM)
    with pytest.raises(interrupts.Interrupted), stages.stage("next"):
        pytest.fail("it began")


def test_a_signal_is_heard_before_the_command_line_is_loaded() -> None:
    script = """
        import os, signal, sys
        from strop.compiler.cli import start
        assert "typer" not in sys.modules
        class Loading:
            def find_spec(self, name, *_):
                if name == "typer":
                    os.kill(os.getpid(), signal.SIGTERM)
        sys.meta_path.insert(0, Loading())
        start.main()
    """
    done = run_python("-c", dedent(script))
    assert (done.code, done.err) == (128 + signal.SIGTERM, "")


@pytest.mark.usefixtures("heard")
def test_an_ignored_signal_stays_ignored() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    interrupts.listen()
    assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    os.kill(os.getpid(), signal.SIGINT)
    interrupts.check()


# Real file systems ------------------------------------------------------------------------------

MOUNTS = """
    set -e
    mkdir -p lower/out upper work over point full
    cp -r {out}/. lower/out
    mount -t overlay overlay -o userxattr,lowerdir=lower,upperdir=upper,workdir=work over
    mount -t tmpfs none point
    mount -t tmpfs -o size=64k none full
    exec {python} - <<'END'
    import os, sys
    from pathlib import Path
    sys.path.insert(0, {tests!r})
    from staging_tools import KIND, content, write
    from strop.compiler.util.errors import UsageError
    from strop.compiler.util.files.staging import require_place
    for out in map(Path, ("over/out", "point")):
        require_place(out, KIND, ["a"])
        for text in ("first", "second"):
            write(out, {{"a": text}})
            assert content(out) == {{"a": text, "seal": "a"}}, content(out)
        assert sorted(os.listdir(out)) == ["a", "seal"], os.listdir(out)
    try:
        require_place(Path("full/out"), KIND, ["a"])
    except UsageError as error:
        assert "No space left" in str(error)
    else:
        raise AssertionError("a full file system was taken")
    print("done")
    END
"""


def test_an_overlays_lower_layer_and_a_mount_point_are_written_file_by_file(
    tmp_path: Path,
) -> None:
    """In a mount namespace of the test's own, so that nothing is mounted for anybody else."""
    unshare = shutil.which("unshare")
    allowed = (
        unshare and subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode == 0
    )
    if not allowed:
        pytest.skip("this machine allows no mount namespaces (unshare -rm)")
    write(tmp_path / "out", OLD)
    script = dedent(MOUNTS).format(
        out=tmp_path / "out", python=sys.executable, tests=str(Path(__file__).parent)
    )
    done = subprocess.run(
        [unshare, "-rm", "sh", "-c", script], cwd=tmp_path, capture_output=True, text=True
    )
    if "overlay" in done.stderr:
        pytest.skip(f"this machine mounts no overlay: {done.stderr.strip()}")
    assert (done.returncode, done.stdout) == (0, "done\n"), done.stderr
