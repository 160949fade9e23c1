"""What the tests of hostile files share: files as strop writes them, damage, and what must hold.

Everything happens below a temporary folder: ``given`` holds what a stranger handed over, and
``outside`` what is none of strop's business.
"""

from __future__ import annotations

import hashlib
import json
import os
import resource
import shutil
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Result, Strop
from program_tools import program_of
from test_bench_records import record
from torch import nn

from strop.compiler import Model, build
from strop.compiler.driver.bundle import write_bundle
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.recipes.registry import make_pass
from strop.compiler.rewriting.passes import Step

# Seconds of processor time that reading something hostile may take.
MOST_SECONDS = 5.0


class Small(nn.Module):
    """Enough for a graph with weights, sizes, several results and attention."""

    def __init__(self) -> None:
        super().__init__()
        self.up = nn.Linear(8, 16)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        a, b = self.up(x).chunk(2, -1)
        return {"y": (torch.softmax(a, -1) * b).reshape(x.shape[0] * 8), "label": a.argmax(-1)}


@cache
def _material(folder: Path) -> Path:
    """An artifact, IR snapshots, a crash bundle, a record and a recipe, made once a process."""
    torch.manual_seed(0)
    model = Model(Small().eval(), {"x": torch.randn(3, 8)}, {"x": {0: ("batch", 1, 8)}})
    build(model, folder / "artifact", dump_ir=folder / "ir", instruments="off")
    _write_bundle(folder)
    (folder / "record.json").write_text(record().model_dump_json())
    recipe = 'name = "mine"\n[budget]\nmax_error = 1e-3\n[[passes]]\nname = "cse"\n'
    (folder / "recipe.toml").write_text(recipe)
    return folder


BROKEN = """
from dataclasses import dataclass
from typing import ClassVar
from strop.compiler import Pass

@dataclass(frozen=True)
class Broken(Pass):
    name: ClassVar[str] = "broken"

    def apply(self, program, log):
        raise ValueError("as always")
"""


def _write_bundle(folder: Path) -> None:
    """A bundle of a pass of the user's own, which fails wherever it is run."""
    (folder / "broken.py").write_text(BROKEN)
    run = make_pass(f"{folder / 'broken.py'}:Broken", {})
    program = program_of(lambda x, w: torch.relu(x @ w), torch.ones(2, 4), w=torch.randn(4, 4))
    inputs = {"input_0": torch.ones(2, 4)}
    try:
        run.run(program)
    except ValueError as error:
        write_bundle(error, (Step("broken", run), program), inputs, load_recipe("cpu-fp32"),
                     folder / "out")  # fmt: skip


@dataclass(frozen=True)
class Stranger:
    """What a stranger handed over, and the command line to read it with."""

    folder: Path
    strop: Strop

    @property
    def given(self) -> Path:
        """The folder of the stranger's files."""
        return self.folder / "given"

    def read(self, *arguments: object) -> Result:
        """Run a command in ``given``; nothing outside it may change, nor may much time pass."""
        outside = state(self.folder / "outside")
        names = sorted(p.name for p in self.folder.iterdir())
        with in_time():
            result = self.strop(*arguments)
        assert state(self.folder / "outside") == outside
        assert sorted(p.name for p in self.folder.iterdir()) == names
        assert not list(self.folder.rglob("canary*"))
        for said in (result.out, result.err):
            assert all(c.isprintable() or c in "\n\t" for c in said), repr(said)
            assert "Traceback" not in said
            assert "bug in strop" not in said, said
            assert "the secret" not in said
        return result

    def refused(self, *arguments: object, code: int = 2) -> str:
        """Run a command that must end in one sentence; returns it."""
        result = self.read(*arguments)
        assert result.code == code, (result.code, result.out, result.err)
        assert result.err.startswith("strop: ")
        assert len(result.err.splitlines()) == 1, result.err
        return result.err

    def edit(self, name: str, change: Callable[[Any], Any]) -> None:
        """Change the values of a JSON file; what the change returns replaces them."""
        file = self.given / name
        values = json.loads(file.read_text())
        changed = change(values)
        file.write_text(json.dumps(values if changed is None else changed))

    def vouch(self, name: str, part: str) -> None:
        """Let the manifest name a file of the artifact as it is now, as its maker would."""
        content = (self.given / "artifact" / name).read_bytes()
        entry = {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}

        def change(values: dict[str, dict[str, object]]) -> None:
            values[part][name] = entry

        self.edit("artifact/manifest.json", change)


def state(folder: Path) -> dict[str, object]:
    """Everything in a folder: kinds, times, and what files hold."""
    return {
        str(p.relative_to(folder)): (p.lstat().st_mode, p.lstat().st_mtime_ns,
                                     p.read_bytes() if p.is_file() else None)
        for p in sorted(folder.rglob("*"))
    }  # fmt: skip


@contextmanager
def in_time() -> Iterator[None]:
    """Hold a block, and the processes that it starts, to their processor time."""

    def spent() -> float:
        children = resource.getrusage(resource.RUSAGE_CHILDREN)
        return time.process_time() + children.ru_utime + children.ru_stime

    before = spent()
    yield
    assert spent() - before < MOST_SECONDS


@pytest.fixture
def stranger(
    tmp_path: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    strop: Strop,
) -> Stranger:
    """Good files in ``given``, which a test damages, and a secret in ``outside``."""
    made = _material(tmp_path_factory.getbasetemp() / "hostile")
    shutil.copytree(made, tmp_path / "given")
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_text("the secret")
    monkeypatch.chdir(tmp_path / "given")
    return Stranger(tmp_path, strop)


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
    make(path)


def _socket(path: Path) -> None:
    # A socket's address is short; the path is not.
    here = Path.cwd()
    os.chdir(path.parent)
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(path.name)
    os.chdir(here)


def _holes(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


def _secret(path: Path) -> None:
    outside = next(p for p in path.parents if (p / "outside").is_dir()) / "outside"
    path.symlink_to(outside / "secret")


# What may be done to any file, whatever it holds.
DAMAGE: dict[str, Callable[[Path], object]] = {
    "empty": lambda p: p.write_bytes(b""),
    "a cut": lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
    "noise": lambda p: p.write_bytes(bytes(range(256)) * 8),
    "zeros": lambda p: p.write_bytes(bytes(1000)),
    "another encoding": lambda p: p.write_bytes("{}".encode("utf-16")),
    "a pipe": lambda p: _replaced(p, os.mkfifo),
    "a folder": lambda p: _replaced(p, Path.mkdir),
    "a socket": lambda p: _replaced(p, _socket),
    "holes": lambda p: _replaced(p, _holes),
    "a link to itself": lambda p: _replaced(p, lambda q: q.symlink_to(q)),
    "a link to nothing": lambda p: _replaced(p, lambda q: q.symlink_to("nothing")),
    "a link to a secret": lambda p: _replaced(p, _secret),
    "a link to zeros": lambda p: _replaced(p, lambda q: q.symlink_to("/dev/zero")),
}

# What may be done to a text in JSON.
JSON_DAMAGE: dict[str, str] = {
    "nothing in it": "null",
    "a list": "[]",
    "an empty object": "{}",
    "a number": "3",
    "deep lists": "[" * 100_000,
    "deep objects": '{"a":' * 100_000,
    "a key twice": '{"a": 1, "a": 2}',
    "no number": '{"a": NaN}',
    "an endless number": '{"a": 1e999}',
    "many digits": f'{{"a": {"9" * 10_000}}}',
    "half a character": r'{"a": "\ud800"}',
}

# What may be done to a text in TOML.
TOML_DAMAGE: dict[str, str] = {
    "deep lists": "name = " + "[" * 100_000,
    "deep tables": "a = " + "{a = " * 100_000,
    "a long key": ".".join("a" * 100_000) + " = 1",
    "many digits": "name = " + "9" * 10_000,
    "another type": "name = 3",
    "passes that are none": 'name = "a"\npasses = 3',
    "a pass without a name": 'name = "a"\n[[passes]]\n',
    "an unknown key": 'name = "a"\nnames = "b"',
}
