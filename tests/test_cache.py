"""The cache folder: entries whole or not there, bounded in size, cleared at will."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from strop.compiler.util.cache import Cache, cache_root
from strop.compiler.util.errors import UsageError


def writing(size: int) -> object:
    return lambda folder: (folder / "data").write_bytes(bytes(size))


def test_an_entry_is_found_again_and_replaced(tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    assert cache.get("a") is None and cache.entries() == []
    cache.put("a", lambda folder: (folder / "data").write_text("one") and None)
    cache.put("a", lambda folder: (folder / "data").write_text("two") and None)
    folder = cache.get("a")
    assert folder is not None and (folder / "data").read_text() == "two"
    assert [(e.key, e.bytes) for e in cache.entries()] == [("a", 3)]


def test_what_was_used_longest_ago_goes_first_and_the_newest_stays(tmp_path: Path) -> None:
    cache = Cache(tmp_path, most_bytes=250)
    for age, key in ((300, "old"), (200, "used"), (100, "young")):
        cache.put(key, writing(100))  # type: ignore[arg-type]
        if cache.get(key):
            os.utime(tmp_path / key, (1e9 - age, 1e9 - age))
    assert {e.key for e in cache.entries()} == {"used", "young"}
    cache.get("used")
    cache.put("new", writing(100))  # type: ignore[arg-type]
    assert {e.key for e in cache.entries()} == {"used", "new"}
    cache.put("large", writing(1000))  # type: ignore[arg-type]
    assert [e.key for e in cache.entries()] == ["large"]


def test_an_entry_whose_writing_fails_is_not_there(tmp_path: Path) -> None:
    def broken(folder: Path) -> None:
        (folder / "data").write_text("half")
        raise OSError(28, "No space left on device")

    cache = Cache(tmp_path)
    with pytest.raises(UsageError, match="cannot be written: .*No space left"):
        cache.put("a", broken)
    assert list(tmp_path.iterdir()) == []


def test_a_cache_that_is_a_file_is_told(tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("mine")
    with pytest.raises(UsageError, match="cannot be written"):
        Cache(tmp_path / "cache").put("a", writing(1))  # type: ignore[arg-type]
    assert (tmp_path / "cache").read_text() == "mine"
    assert Cache(tmp_path / "cache").entries() == []


def test_a_killed_write_leaves_no_entry_and_its_remains_go_later(tmp_path: Path) -> None:
    script = dedent("""
        import os, signal, sys
        from pathlib import Path
        from strop.compiler.util.cache import Cache
        def write(folder):
            (folder / "data").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)
        Cache(Path(sys.argv[1])).put("a", write)
    """)
    done = subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False)
    assert done.returncode == -9
    cache = Cache(tmp_path)
    assert cache.get("a") is None and cache.entries() == []
    (remains,) = tmp_path.iterdir()
    cache.put("b", writing(1))  # type: ignore[arg-type]
    assert remains.exists()  # another process may still write there
    os.utime(remains, (1, 1))
    cache.put("c", writing(1))  # type: ignore[arg-type]
    assert not remains.exists()


def test_clearing_removes_everything(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    cache.put("a", writing(1))  # type: ignore[arg-type]
    (tmp_path / ".unfinished-1").mkdir()
    cache.clear()
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_the_named_one_or_the_systems(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STROP_CACHE", "/some/where")
    assert cache_root() == Path("/some/where")
    monkeypatch.delenv("STROP_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", "/other")
    assert cache_root() == Path("/other/strop")


# Work under way -------------------------------------------------------------------------------


def test_work_that_is_interrupted_is_found_again_and_removed_when_it_ends(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt), cache.under_way("a") as folder:
        (folder / "data").write_text("half")
        raise KeyboardInterrupt
    assert cache.entries() == [] and cache.get("a") is None
    assert [(e.key, e.bytes) for e in cache.interrupted()] == [("a", 4)]
    with cache.under_way("a") as folder:
        assert (folder / "data").read_text() == "half"
        cache.put("a", writing(3))  # type: ignore[arg-type]
    assert cache.interrupted() == [] and [e.key for e in cache.entries()] == ["a"]
    with cache.under_way("a") as folder:
        assert list(folder.iterdir()) == []


def test_two_processes_do_not_work_on_one_entry(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with cache.under_way("a"):
        with pytest.raises(UsageError, match="another process works in"):
            cache.under_way("a").__enter__()
        with cache.under_way("b"):
            pass
    with cache.under_way("a"):
        pass


def test_those_that_share_the_work_see_its_folder_and_leave_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path)
    with cache.under_way("a") as first:
        monkeypatch.setenv("RANK", "1")
        with cache.under_way("a") as second:
            assert first == second
        assert first.is_dir()
        monkeypatch.delenv("RANK")


def test_work_that_nobody_takes_up_is_removed_after_two_weeks(tmp_path: Path) -> None:
    cache, day = Cache(tmp_path), 24 * 3600
    for key, days in (("old", 15), ("young", 13)):
        with pytest.raises(KeyboardInterrupt), cache.under_way(key) as folder:
            raise KeyboardInterrupt
        then = folder.stat().st_mtime - days * day
        os.utime(folder, (then, then))
    cache.put("a", writing(1))  # type: ignore[arg-type]
    assert [e.key for e in cache.interrupted()] == ["young"]
    cache.clear()
    assert cache.interrupted() == []
