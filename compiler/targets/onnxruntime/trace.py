"""Run an ONNX file in a default session with the runtime's profiler on: what each node took."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnxruntime as ort

from strop.compiler.targets.runtime import Trace, TracedNode
from strop.compiler.targets.target import OnnxTarget
from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.compiler.util.latency import quick_look
from strop.compiler.util.numerics import Array

# What the profiler puts behind a node's name.
KERNEL = "_kernel_time"
# Weights from this size on are kept out of the optimized file, which is read for its nodes.
WEIGHT_BYTES = 1024
ERRORS_ONLY = 3


def trace(
    path: Path, target: OnnxTarget, feeds: Mapping[str, Array], runs: int, warm_up: int = 3
) -> Trace:
    """Run a file with the default options, plus the profiler.

    Raises:
        RuntimeRefusedError: the runtime does not load, run or profile it.
        UsageError: there is no room for temporary files.
    """
    try:
        plain = quick_look(_runner(_session(path, target), feeds))
        with tempfile.TemporaryDirectory(prefix="strop-profile-") as folder:
            events, values = _profiled(path, target, feeds, runs + warm_up, Path(folder))
    except OSError as error:
        raise UsageError(f"the temporary folder cannot be used: {error}") from error
    except Exception as error:  # the runtime's exceptions have no family
        raise RuntimeRefusedError(f"ONNX Runtime does not profile {path.name}: {error}") from error
    return _trace(events, values, warm_up, plain)


def _session(path: Path, target: OnnxTarget, options: Any = None) -> Any:
    return ort.InferenceSession(str(path), options, providers=list(target.providers))


def _runner(session: Any, feeds: Mapping[str, Array]) -> Callable[[], Any]:
    used = {i.name for i in session.get_inputs()}
    given = {name: array for name, array in feeds.items() if name in used}
    return lambda: session.run(None, given)


def _profiled(
    path: Path, target: OnnxTarget, feeds: Mapping[str, Array], runs: int, folder: Path
) -> tuple[list[dict[str, Any]], dict[str, tuple[str, ...]]]:
    """The profiler's events, and the values that each node of the optimized graph makes."""
    options = ort.SessionOptions()
    options.enable_profiling = True
    options.profile_file_prefix = str(folder / "profile")
    # Saved by the session that runs, since its names of fused nodes are its own. The runtime
    # warns that the file is for this machine only: nobody else gets it.
    optimized = folder / "optimized.onnx"
    options.optimized_model_filepath = str(optimized)
    options.log_severity_level = ERRORS_ONLY
    for key, value in (
        ("file_name", "optimized.data"),
        ("min_size_in_bytes", str(WEIGHT_BYTES)),
    ):
        options.add_session_config_entry(
            f"session.optimized_model_external_initializers_{key}", value
        )
    session = _session(path, target, options)
    run = _runner(session, feeds)
    for _ in range(runs):
        run()
    events = json.loads(Path(session.end_profiling()).read_text())
    graph = onnx.load(str(optimized), load_external_data=False).graph
    return events, {node.name: tuple(v for v in node.output if v) for node in graph.node}


def _trace(
    events: Sequence[Mapping[str, Any]],
    values: Mapping[str, tuple[str, ...]],
    warm_up: int,
    plain: float,
) -> Trace:
    runs = [e for e in events if e["cat"] == "Session" and e["name"] == "model_run"]
    runs = sorted(runs, key=lambda e: float(e["ts"]))[warm_up:]
    spent: dict[tuple[str, str, str], list[float]] = {}
    for i, run in enumerate(runs):
        for event in _nodes_within(run, events):
            args = event["args"]
            key = (args["node_index"], event["name"].removesuffix(KERNEL), args["op_name"])
            spent.setdefault(key, [0.0] * len(runs))[i] += event["dur"] / 1000
    nodes = tuple(
        TracedNode(name, op, values.get(name, ()), tuple(ms)) for (_, name, op), ms in spent.items()
    )
    return Trace(nodes, tuple(run["dur"] / 1000 for run in runs), plain)


def _nodes_within(
    run: Mapping[str, Any], events: Sequence[Mapping[str, Any]]
) -> Iterator[Mapping[str, Any]]:
    """What ran in one run; a node inside another's subgraph is part of that one's time."""
    end = run["ts"]
    inside = (e for e in events if run["ts"] <= e["ts"] <= run["ts"] + run["dur"])
    nodes = [e for e in inside if e["cat"] == "Node" and e["name"].endswith(KERNEL)]
    # A node that holds others begins with the first of them, and ends after it.
    for event in sorted(nodes, key=lambda e: (e["ts"], -e["dur"])):
        if event["ts"] >= end:
            end = event["ts"] + event["dur"]
            yield event
