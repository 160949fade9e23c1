"""Memory of processes: of this one, and of a command and its descendants while they run."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

# Seconds between two samples.
PERIOD = 0.02
# Samples of the course over time that a record keeps.
KEPT = 100


@dataclass
class Memory:
    """Resident memory of a process tree, in GB.

    Attributes:
        total: everything resident; shared pages count once per process.
        anonymous: what the processes allocated.
        file: pages of mapped files, which the system may drop at any time.
        at: seconds since the start.
    """

    total: float = 0.0
    anonymous: float = 0.0
    file: float = 0.0
    at: float = 0.0


@dataclass(frozen=True)
class Watched:
    """A command that was watched until its end.

    Attributes:
        status: its exit status.
        kernel_peak_gb: ``ru_maxrss`` of its largest process. The kernel counts it without gaps,
            where samples may miss a peak between two of them.
        samples: memory of all its processes together, in order.
    """

    status: int
    kernel_peak_gb: float
    samples: Sequence[Memory]

    @property
    def seconds(self) -> float:
        """How long it ran, up to the last sample."""
        return self.samples[-1].at

    @property
    def largest(self) -> Memory:
        """The sample with the most memory in total."""
        return max(self.samples, key=lambda m: m.total)

    @property
    def peak_gb(self) -> float:
        """The larger of what the kernel counted and what was sampled."""
        return max(self.kernel_peak_gb, self.largest.total)

    def record(self) -> dict[str, Any]:
        """What a record says about it."""
        step = max(1, len(self.samples) // KEPT)
        return {
            "kernel_peak_gb": self.kernel_peak_gb,
            "sampled_peak": asdict(self.largest),
            "anonymous_peak_gb": max(m.anonymous for m in self.samples),
            "samples": len(self.samples),
            "seconds": self.seconds,
            "timeline": [asdict(m) for m in self.samples[::step]],
        }


def watch(command: Sequence[str], environ: Mapping[str, str] | None = None) -> Watched:
    """Run a command to its end, and sample the memory of its processes."""
    start = time.perf_counter()
    process = subprocess.Popen(command, env=environ)
    samples: list[Memory] = []
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            process.returncode = os.waitstatus_to_exitcode(status)
            return Watched(process.returncode, usage.ru_maxrss * 1024 / 1e9, samples)
        samples.append(_resident(process.pid, time.perf_counter() - start))
        time.sleep(PERIOD)


def _resident(root: int, at: float) -> Memory:
    """Resident memory of a process and all its descendants, now; ``at`` is what time it is."""
    memory = Memory(at=at)
    for pid in _tree(root):
        try:
            status = Path(f"/proc/{pid}/status").read_text()
        except OSError:  # it has ended since it was listed
            continue
        fields = dict(line.split(":", 1) for line in status.splitlines() if ":" in line)
        sizes = [int(fields.get(k, "0 kB").split()[0]) * 1024 / 1e9 for k in _FIELDS]
        memory.anonymous += sizes[0]
        memory.file += sizes[1] + sizes[2]
        memory.total += sum(sizes)
    return memory


_FIELDS = ("RssAnon", "RssFile", "RssShmem")


def _tree(root: int) -> Iterator[int]:
    """A process and all its descendants."""
    yield root
    for task in Path(f"/proc/{root}/task").glob("*"):
        try:
            children = (task / "children").read_text().split()
        except OSError:  # the thread has ended since it was listed
            continue
        for child in children:
            yield from _tree(int(child))


def own_peak() -> int:
    """The most memory that this process has had so far, in bytes."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:  # macOS; there the figure counts what the parent had when it began, in bytes
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return next(int(s.split()[1]) * 1024 for s in status.splitlines() if s.startswith("VmHWM"))
