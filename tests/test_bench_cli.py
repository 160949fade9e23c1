"""``strop bench``: bad input is refused before anything is measured; what a duel leaves."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import dedent
from typing import Any

import onnx
import pytest
from conftest import SMALL, Strop, Write

from strop.bench.cli.values import size_combinations
from strop.bench.harness import peers
from strop.bench.harness.log import DuelLog
from strop.bench.harness.peers import Peer
from strop.bench.harness.setup import DuelSetup, references_of
from strop.bench.records.reading import read_record
from strop.bench.records.record import Plan
from strop.compiler import build
from strop.compiler.artifact.folder import read_artifact
from strop.compiler.artifact.history import remember_source
from strop.compiler.frontend.source import load_model
from strop.compiler.util.errors import UsageError

pytestmark = pytest.mark.usefixtures("cwd")


@pytest.fixture
def cwd(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """An artifact, and its source."""
    folder = tmp_path_factory.mktemp("built")
    file = folder / "small.py"
    file.write_text(dedent(SMALL))
    source = f"{file}:make"
    return build(load_model(source), folder / "out").path, source


@pytest.fixture
def out(built: tuple[Path, str]) -> Path:
    return built[0]


@pytest.fixture
def source(built: tuple[Path, str]) -> str:
    return built[1]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--against", "eager,otr"], "no engine 'otr'; did you mean 'ort'?"),
        (["--shapes", "batch=1,9"], "batch=9 is outside the range that the artifact was built for"),
        (["--shapes", "batch=0"], "1 to 8"),
        (["--shapes", "bath=1"], "no dim 'bath'; did you mean 'batch'?"),
        (["--shapes", "1,2"], "'1,2' is not of the form DIM=SIZE,SIZE"),
        (["--shapes", "batch=1", "batch=2"], "'batch' is given twice"),
        (["--threads", "two"], "'two' is no list of numbers"),
        (["--threads", "0"], "'0' is no list of numbers"),
        (["--json", "none/a.json"], "there is no folder"),
        (["--html", "."], "is a folder; name a file"),
        (["--fail-if", "speedup<<1"], "write METRIC<NUMBER"),
        (["--fail-if", "speedup.openvino<1"], "'openvino' does not take part"),
        (["another"], "say which artifact to measure, one folder, not "),
        (["--suite", "vison"], "no suite 'vison'; did you mean 'vision'?"),
        (["--suite", "vision", "--json", "a.json"], "--suite has its own models"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_input_is_refused_before_anything_is_measured(
    strop: Strop, out: Path, source: str, options: list[str], says: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("strop.bench.cli.duels.duel", pytest.fail)
    result = strop("bench", out, "--source", source, *options)
    assert (result.code, says in result.err) == (2, True), result.err
    assert len(result.err.splitlines()) == 1


def test_no_artifact_is_said(strop: Strop, tmp_path: Path) -> None:
    result = strop("bench")
    assert result.code == 2
    assert "say which artifact to measure" in result.err
    assert "is not a strop artifact" in strop("bench", tmp_path).err


def test_a_damaged_artifact_is_refused(strop: Strop, small: str, tmp_path: Path) -> None:
    path = build(load_model(small), tmp_path / "out").path
    model = path / "model.onnx"
    model.write_bytes(model.read_bytes()[:-1] + b"\x00")
    result = strop("bench", path)
    assert result.code == 2
    assert "model.onnx has changed since it was built" in result.err


def test_no_write_access_is_said_first(
    strop: Strop, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.access", lambda *_: False)
    monkeypatch.setattr("strop.bench.cli.duels.duel", pytest.fail)
    result = strop("bench", out, "--json", "a.json")
    assert result.code == 2
    assert "no write access to" in result.err


def test_peers_need_the_source(strop: Strop, out: Path) -> None:
    result = strop("bench", out, "--against", "eager,ort")
    assert result.code == 2
    assert "eager, ort run the original model" in result.err
    assert "give --source FILE.py:make" in result.err


def test_an_artifact_is_timed_alone_where_its_original_is_not_known(
    strop: Strop, out: Path
) -> None:
    result = strop("bench", out, "--rounds", 1, "--bouts", 1, "--patience", 0, "--json", "a.json")
    assert result.code == 0, result.err
    assert "made-up inputs" in result.out
    record = read_record(Path("a.json"))
    assert (record.inputs, record.baseline, record.peers) == ("made up", None, [])
    assert record.cases[0].results["strop"].fidelity is None


def test_a_duel_compares_writes_and_judges(strop: Strop, out: Path, source: str) -> None:
    remember_source(out, source)
    result = strop(
        "bench", out, "--shapes", "batch=1,4", "--threads", "1,2", "--rounds", 2, "--bouts", 2,
        "--patience", 0, "--json", "a.json", "--html", "a.html", "--fail-if", "speedup<0.001",
        "--fail-if", "max_abs<1",
    )  # fmt: skip
    assert result.code == 3, result.err
    assert "max_abs<1: it is" in result.err
    assert "speedup" not in result.err
    record = read_record(Path("a.json"))
    assert [c.label for c in record.cases] == [
        "batch=1 threads=1", "batch=4 threads=1", "batch=1 threads=2", "batch=4 threads=2",
    ]  # fmt: skip
    assert (record.baseline, record.peers, record.subjects) == (
        "eager",
        ["eager", "ort"],
        ["strop"],
    )
    found = record.cases[0].results["strop"]
    assert [len(bout) for bout in found.samples] == [2, 2]
    assert found.fidelity is not None
    assert found.fidelity.max_abs is not None
    assert found.fidelity.max_abs < 1e-5
    assert record.engine("ort").bytes
    assert record.engine("eager").peak_memory_bytes
    assert "<svg" in Path("a.html").read_text()
    assert not [p for p in Path().iterdir() if p.name.startswith(".")]
    same = strop("bench", "compare", "a.json", "a.json")
    assert (same.code, "nothing got worse" in same.out) == (0, True)


def test_a_regression_is_exit_3_and_nothing_in_common_is_exit_2(
    strop: Strop, out: Path, tmp_path: Path
) -> None:
    strop("bench", out, "--rounds", 1, "--bouts", 1, "--patience", 0, "--json", "a.json")
    values = json.loads(Path("a.json").read_text())
    values["engines"][0]["bytes"] *= 2
    Path("b.json").write_text(json.dumps(values))
    result = strop("bench", "compare", "a.json", "b.json")
    assert result.code == 3
    assert "worse than before: strop, size_mb" in result.err
    assert strop("bench", "compare", "b.json", "a.json").code == 0
    values["engines"], values["cases"] = [], []
    Path("c.json").write_text(json.dumps(values))
    result = strop("bench", "compare", "a.json", "c.json")
    assert (result.code, "no engine and case in common" in result.err) == (2, True)


@pytest.mark.slow
def test_a_missing_or_broken_engine_costs_its_row(
    strop: Strop, out: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone = Peer(peers._eager, (), ("no_such_package",), "pip install 'strop[nothing]'")
    broken = Peer(peers._onnx("nothing.onnx"), ())
    monkeypatch.setitem(peers.PEERS, "gone", gone)
    monkeypatch.setitem(peers.PEERS, "broken", broken)
    result = strop(
        "bench", out, "--source", source, "--against", "gone,broken,eager", "--rounds", 1,
        "--bouts", 1, "--patience", 0, "--json", "a.json", "--fail-if", "speedup<0.1",
    )  # fmt: skip
    record = read_record(Path("a.json"))
    assert [e.outcome for e in record.engines] == ["missing", "failed", "ran", "ran"]
    assert record.engine("gone").reason == (
        "no_such_package not installed: pip install 'strop[nothing]'"
    )
    assert "does not load" in (record.engine("broken").reason or "")
    assert record.baseline == "eager"
    assert "gone is missing: no_such_package" in result.out
    assert (result.code, "cannot be told, gone did not run" in result.err) == (3, True)


@pytest.mark.slow
def test_a_preparation_that_crashes_costs_its_rows(
    strop: Strop, out: Path, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    crashing = write(
        SMALL
        + """
    import os, signal

    class Trap(Small):
        def forward(self, x):
            if torch.compiler.is_exporting():
                os.kill(os.getpid(), signal.SIGSEGV)
            return super().forward(x)

    def trap():
        model = make()
        model.module = Trap().eval()
        return model
    """,
        "trap",
    )
    strop(
        "bench", out, "--source", crashing, "--against", "eager,ort,ort-dynamic,hf",
        "--rounds", 1, "--bouts", 1, "--patience", 0, "--json", "a.json",
    )  # fmt: skip
    record = read_record(Path("a.json"))
    assert record.peers == ["eager"]
    for name in ("ort", "ort-dynamic"):
        assert record.engine(name).reason == "export onnx: its process was ended by SIGSEGV"
    assert "models of transformers only" in (record.engine("hf").reason or "")


def test_a_source_of_another_model_is_refused(strop: Strop, out: Path, write: Write) -> None:
    other = write(SMALL.replace("def forward(self, x)", "def forward(self, z)").replace("x}", "z}")
                  .replace('{"x":', '{"z":').replace("(x)", "(z)"))  # fmt: skip
    result = strop("bench", out, "--source", other, "--rounds", 1, "--patience", 0)
    assert result.code == 2
    assert "it has the inputs z, the artifact has x" in result.err


def test_a_broken_source_is_the_users_own(strop: Strop, out: Path, write: Write) -> None:
    result = strop("bench", out, "--source", write("def make(): raise ValueError('no weights')"))
    assert result.code == 2
    assert "no weights" in result.err


def test_the_schema_describes_every_field(strop: Strop) -> None:
    schema = json.loads(strop("bench", "--schema").out)
    for part in (schema, *schema["$defs"].values()):
        assert part["description"]
    told = schema["$defs"]["Result"]["properties"]["samples"]["description"]
    assert told == "Milliseconds of every round, one list for each bout."


def test_sizes_are_combined_and_may_be_separated_by_the_shell() -> None:
    dims = [{"name": "batch", "min": 1, "max": 8}, {"name": "seq", "min": 2, "max": None}]
    cases = [{"batch": b, "seq": s} for b in (1, 8) for s in (16, 999)]
    assert size_combinations(["batch=1,8 seq=16,999"], dims) == cases
    assert size_combinations(["batch=1,8", "seq=16,999"], dims) == cases
    assert size_combinations([], dims) == []
    with pytest.raises(UsageError, match="seq=1 is outside .* 2 to any size"):
        size_combinations(["seq=1"], dims)
    with pytest.raises(UsageError, match="the model was built for fixed sizes"):
        size_combinations(["seq=1"], [])


def test_an_original_with_other_outputs_is_refused(strop: Strop, out: Path, write: Write) -> None:
    other = write(SMALL.replace("Linear(32, 16)", "Linear(32, 10)"))
    result = strop("bench", out, "--source", other, "--rounds", 1, "--patience", 0)
    assert result.code == 2
    assert "its output 'output' has the shape [3, 10]" in result.err


@pytest.mark.slow
def test_the_reason_for_which_an_engine_failed_is_kept(
    strop: Strop, out: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strop.bench.harness import duel

    def fail(bout: Any) -> Any:
        samples = plain(bout)
        bout.failed["eager"] = "does not run: gave no answer within 300 s"
        return {c: {n: t for n, t in of.items() if n != "eager"} for c, of in samples.items()}

    plain = duel.Bout.run
    monkeypatch.setattr(duel.Bout, "run", fail)
    strop(
        "bench", out, "--source", source, "--against", "eager", "--rounds", 1, "--bouts", 2,
        "--patience", 0, "--json", "a.json",
    )  # fmt: skip
    row = read_record(Path("a.json")).engine("eager")
    assert (row.outcome, row.reason) == ("failed", "does not run: gave no answer within 300 s")


def test_rounds_that_do_not_count_are_not_in_the_median(out: Path, source: str) -> None:
    plan = Plan(threads=[1], bouts=1, rounds=3, patience=0)
    setup = DuelSetup({"strop": read_artifact(out)}, source, [], [{"batch": 2}], plan)
    log, case = DuelLog(setup, references_of(setup)), "batch=2"
    log.engines["strop"].samples[1, case] = [[1.0, 9.0, 2.0, 3.0]]
    log.engines["strop"].fidelity[case] = None
    log.looks[1, case] = [[1.0, 1.9, 1.0, 1.1]]
    log.best[1].see(1.0)
    found = log.case(1, case)
    assert (found.calm, found.all_count) == ([[True, False, True, True]], False)
    assert found.results["strop"].milliseconds.median == 2.0
    log.best[1].see(0.5)
    found = log.case(1, case)
    assert found.all_count
    assert found.results["strop"].milliseconds.median == 2.5


@pytest.mark.slow
def test_a_file_in_standard_form_is_also_run_by_openvino(
    strop: Strop, out: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """ONNX Runtime stands in for OpenVINO, which need not be installed here."""
    from strop.bench.harness import duel
    from strop.bench.harness.engines import OnnxFile

    plain = Peer(peers.PEERS["eager"].engine)
    monkeypatch.setitem(peers.PEERS, "openvino", plain)
    monkeypatch.setattr(duel, "OpenVino", OnnxFile)
    build(load_model(source), "standard", target="onnx")
    few = ("--rounds", 1, "--bouts", 1, "--patience", 0, "--json", "a.json")
    for folder, rows in (
        ("standard", {"strop", "strop in openvino", "openvino"}),
        (out, {"strop", "openvino"}),
    ):
        strop("bench", folder, "--source", source, "--against", "openvino", *few)
        record = read_record(Path("a.json"))
        assert {row.name for row in record.engines if row.outcome == "ran"} == rows


def test_the_size_of_an_openvino_file_is_that_of_all_its_parts(tmp_path: Path) -> None:
    from strop.bench.harness.engines import OpenVino

    for name in ("a.xml", "a.bin", "other.bin"):
        (tmp_path / name).write_bytes(b"12")
    assert OpenVino("a", 1, tmp_path / "a.xml").size() == 4


@pytest.mark.parametrize("kind", ["OnnxFile", "OpenVino"])
def test_the_size_of_an_onnx_file_is_that_with_the_weights_that_it_names(
    tmp_path: Path, kind: str
) -> None:
    from strop.bench.harness import engines

    weight = onnx.TensorProto(name="w", data_location=onnx.TensorProto.EXTERNAL)
    weight.external_data.add(key="location", value="model.onnx.data")
    content = onnx.ModelProto(graph=onnx.GraphProto(initializer=[weight])).SerializeToString()
    (tmp_path / "encoder.onnx").write_bytes(content)
    for name in ("model.onnx.data", "encoder.provenance.json", "decoder.onnx"):
        (tmp_path / name).write_bytes(b"12")
    engine = getattr(engines, kind)("a", 1, tmp_path / "encoder.onnx")
    assert engine.size() == len(content) + 2
