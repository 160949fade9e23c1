"""Builds onto an artifact that are ended by a signal, and how each ended."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from strop.bench.processes.launch import strop_command
from strop.compiler.artifact.folder import read_intact
from strop.compiler.util.errors import UsageError

SIGNALS = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)
# Both factories give a model of their own, so that the two artifacts differ.
MODEL = dedent("""
    import torch
    from strop.compiler import Model

    def make(seed):
        torch.manual_seed(seed)
        module = torch.nn.Sequential(torch.nn.Linear(16, 32), torch.nn.GELU())
        return Model(module.eval(), {"input": torch.randn(3, 16)}, {"input": {0: ("batch", 1, 8)}})

    def old():
        return make(0)

    def new():
        return make(1)
""")
# Seconds between two looks at a build.
_PAUSE = 0.002


@dataclass(frozen=True)
class Ending:
    """How one build ended.

    Attributes:
        name: of the signal.
        seconds: processor time of the process up to the signal.
        code: exit code of the process; -9 where it was killed.
        stands: which artifact is there: "old", "new", or what is wrong with the output folder.
        left: how many workspaces it left.
        said: the last line of its standard error.
    """

    name: str
    seconds: float
    code: int
    stands: str
    left: int
    said: str

    @property
    def is_whole(self) -> bool:
        """Whether the folder holds the old or the new artifact, without remains of a build."""
        killed = self.name == "SIGKILL"
        return self.stands in ("old", "new") and (killed or not self.left)

    @property
    def is_told(self) -> bool:
        """Whether the exit code is right: 0 with the new artifact, the signal's with the old one.

        In the first tenth of a second of the process, Python itself ends it: the code is then the
        signal's number below zero, which a shell shows as 128 and the number.
        """
        number = signal.Signals[self.name]
        if self.code == 0:
            return self.stands == "new"
        if number == signal.SIGKILL:
            return self.code == -number
        return self.code in (128 + number, -number) and self.stands == "old"


class Stage:
    """A folder with both artifacts for comparison, and the output folder that is built onto."""

    def __init__(self, folder: Path) -> None:
        self.source = folder / "model.py"
        self.source.write_text(MODEL)
        self.out = folder / "place" / "out"
        self.known = {name: folder / name for name in ("old", "new")}
        for name in self.known:
            self._build(name)
        self.reset()

    def _build(self, name: str) -> None:
        """Build one model, and measure when the build begins to write and when it ends."""
        out = self.known[name]
        process = self._start(name, out)
        self.begins, self.ends = 0.0, 0.0
        while process.poll() is None:
            self.ends = _processor_seconds(process.pid) or self.ends
            if not self.begins and any(out.parent.glob(".*.strop-*/new")):
                self.begins = self.ends
            time.sleep(_PAUSE)
        assert process.returncode == 0, f"the model '{name}' was not built"

    def _start(self, name: str, out: Path) -> subprocess.Popen[bytes]:
        command = strop_command("build", f"{self.source}:{name}")
        return subprocess.Popen(
            [*command, "-o", str(out)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE
        )

    def reset(self) -> None:
        """Put the old artifact where builds go; what they left stays."""
        shutil.rmtree(self.out, ignore_errors=True)
        shutil.copytree(self.known["old"], self.out)

    def workspaces(self) -> list[Path]:
        """Folders that builds, running or dead, have beside the artifact."""
        return [p for p in self.out.parent.iterdir() if p != self.out]

    def end(self, number: signal.Signals, seconds: float) -> Ending | None:
        """Build onto the old artifact, and send a signal after some processor time.

        None where the build ended before.
        """
        self.reset()
        before = self.workspaces()
        process = self._start("new", self.out)
        while process.poll() is None and _processor_seconds(process.pid) < seconds:
            time.sleep(_PAUSE)
        alive = process.poll() is None
        process.send_signal(number)
        _, said = process.communicate()
        if not alive:
            return None
        last = said.decode(errors="replace").strip().splitlines()[-1:]
        left = len(set(self.workspaces()) - set(before))
        return Ending(
            number.name, seconds, process.returncode, self.standing(), left, "".join(last)
        )

    def standing(self) -> str:
        """Which of the two artifacts is there, complete; otherwise what is wrong."""
        try:
            read_intact(self.out)
        except UsageError as error:
            return str(error)
        found = _content(self.out)
        names = [name for name, path in self.known.items() if _content(path) == found]
        return names[0] if names else "an artifact that is neither of the two"

    def left_by_a_full_build(self) -> int:
        """Build to the end; how many workspaces are left then."""
        assert self._start("new", self.out).wait() == 0
        return len(self.workspaces())


def _processor_seconds(pid: int) -> float:
    """Of a process and its threads so far; 0 where it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _content(folder: Path) -> dict[str, bytes]:
    """Every file, but for those in which any two builds differ."""
    differ = ("build.json", "report.html")
    return {p.name: b"" if p.name in differ else p.read_bytes() for p in folder.iterdir()}
