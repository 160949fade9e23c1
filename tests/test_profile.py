"""Where milliseconds come from: every node of the file has an origin, every node run its place."""

from __future__ import annotations

import dataclasses
import io
import json
import shutil
from pathlib import Path
from textwrap import dedent

import onnx
import pytest
from conftest import SMALL
from rich.console import Console

from strop.bench.models.zoo import ZOO
from strop.compiler import Model, build, load
from strop.compiler.artifact.folder import PROVENANCE, Artifact, read_artifact
from strop.compiler.artifact.provenance import decode, encode, read_provenance
from strop.compiler.cli.debug.profile import profile as profile_command
from strop.compiler.debug.profile import (
    BETWEEN,
    RUNTIME,
    Profile,
    attribute,
    by_line,
    by_module,
    by_op,
    by_rule,
    profile,
)
from strop.compiler.debug.profile_view import record, render
from strop.compiler.frontend.source import load_model
from strop.compiler.lower.provenance import Provenance
from strop.compiler.targets.runtime import Trace, TracedNode
from strop.compiler.util.errors import UsageError

RECIPES = ("cpu-fp32", "cpu-int8")
RUNS = 4


@pytest.fixture(scope="module", params=RECIPES)
def bert(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp(request.param) / "out"
    return build(ZOO["bert"].make(), out, request.param)


@pytest.fixture(scope="module")
def profiled(bert: Artifact) -> Profile:
    return profile(bert.path, ["batch=2 seq=8"], runs=RUNS)


@pytest.fixture(scope="module")
def convolutions(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    out = tmp_path_factory.mktemp("convnext") / "out"
    return build(ZOO["convnext"].make(), out)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    folder = tmp_path_factory.mktemp("small")
    source = folder / "model.py"
    source.write_text(dedent(SMALL))
    build(load_model(f"{source}:make"), folder / "out")
    return folder / "out", f"{source}:make"


@pytest.fixture
def small(built: tuple[Path, str], tmp_path: Path) -> tuple[Path, str]:
    """A copy, to damage."""
    out = shutil.copytree(built[0], tmp_path / "out")
    return Path(out), built[1]


def test_every_node_of_the_file_and_every_value_it_makes_is_in_the_provenance(
    bert: Artifact,
) -> None:
    found = [(n.name, n.op_type, tuple(n.output)) for n in onnx.load(bert.model_path).graph.node]
    kept = [(r.name, r.op, r.values) for r in read_provenance(bert)]
    assert kept == found


def test_a_fused_attention_comes_from_its_rule_in_its_layer(bert: Artifact) -> None:
    records = [r for r in read_provenance(bert) if r.op == "Attention"]
    assert [r.rule for r in records] == ["attention-sdpa"] * 2
    layers = [f"encoder.layer.{i}.attention.self" for i in (0, 1)]
    assert [r.module for r in records] == layers
    assert all(r.line and r.line.startswith("modeling_bert.py:") for r in records)


def test_the_provenance_holds_no_path_and_is_the_same_every_time(
    bert: Artifact, tmp_path: Path
) -> None:
    text = (bert.path / PROVENANCE).read_text()
    assert "/" not in text
    again = build(ZOO["bert"].make(), tmp_path / "again", bert.manifest["recipe"]["name"])
    assert (again.path / PROVENANCE).read_text() == text


def test_the_provenance_is_hashed_but_is_no_part_of_the_models_size(bert: Artifact) -> None:
    assert bert.size == bert.model_path.stat().st_size
    assert list(bert.manifest["side_files"]) == [PROVENANCE]
    assert bert.damaged() == []


def test_an_artifact_may_be_shipped_without_its_provenance_but_not_with_another(
    small: tuple[Path, str],
) -> None:
    out, _ = small
    (out / PROVENANCE).write_text((out / PROVENANCE).read_text() + " ")
    assert read_artifact(out).damaged() == [f"{PROVENANCE} has changed since it was built"]
    (out / PROVENANCE).unlink()
    assert load(out) is not None
    with pytest.raises(UsageError, match=f"no {PROVENANCE}.*[Bb]uild it again"):
        profile(out)


def test_what_is_written_is_what_is_read() -> None:
    records = [
        Provenance("a", "Shape", ("a",), "x", "capture", None, None),
        Provenance("b", "Split", ("b", "b.1"), "x", "packed-qkv", "m.py:1", ""),
    ]
    assert decode(encode(records), "the text") == records


@pytest.mark.parametrize(
    "text", ["", "{}", '{"strop_provenance": 2}',
             '{"strop_provenance": 1, "texts": [], "ir": [], "nodes": [["a", 0, 0, []]]}']
)  # fmt: skip
def test_a_damaged_provenance_is_an_error_not_a_crash(text: str, small: tuple[Path, str]) -> None:
    out, _ = small
    (out / PROVENANCE).write_text(text)
    with pytest.raises(UsageError, match="damaged"):
        read_provenance(read_artifact(out))


def test_every_node_that_ran_is_attributed(profiled: Profile) -> None:
    assert len(profiled.nodes) > 20
    assert [n.name for n in profiled.nodes if n.ir is None] == []


def test_the_shares_of_every_grouping_sum_to_one_run(profiled: Profile) -> None:
    assert 0 < profiled.between < profiled.milliseconds
    for key in (by_op, by_rule, by_line, by_module(3)):
        groups = profiled.all_of(key)
        assert groups[-1].name == BETWEEN
        assert sum(g.share for g in groups) == pytest.approx(1)
        assert sum(g.nodes for g in groups) == len(profiled.nodes)
        assert sum(g.milliseconds for g in groups) == pytest.approx(profiled.milliseconds)


def test_a_fused_attention_is_attributed_to_its_pass_and_its_layer(profiled: Profile) -> None:
    nodes = [n for n in profiled.nodes if n.op == "Attention"]
    assert [by_rule(n) for n in nodes] == ["attention: attention-sdpa"] * 2
    assert [by_module(3)(n) for n in nodes] == ["encoder.layer.0", "encoder.layer.1"]


def test_what_only_moves_data_is_listed_by_itself(profiled: Profile) -> None:
    moving = {n.op for n in profiled.moving}
    assert moving and not moving & {"Attention", "LayerNormalization", "DynamicQuantizeMatMul"}
    times = [n.milliseconds for n in profiled.moving]
    assert times == sorted(times, reverse=True)


def test_nodes_of_the_runtimes_own_are_listed_as_such(convolutions: Artifact) -> None:
    found = profile(convolutions.path, runs=RUNS)
    own = {n.op for n in found.nodes if n.ir is None}
    assert "ReorderInput" in own and not own & {"Conv", "Add"}
    assert RUNTIME in {g.name for g in found.groups(by_rule)}
    layers = [n for n in found.nodes if n.op == "Conv"]
    assert layers and all(n.ir and n.module for n in layers)


def _traced(*nodes: TracedNode) -> Trace:
    return Trace(nodes, (10.0,), 9.0)


def test_a_fused_node_is_attributed_by_the_value_it_makes_and_shown_with_what_was_written() -> None:
    records = [
        Provenance("add", "Add", ("add",), "linear", "bias", "m.py:1", "up"),
        Provenance("gelu", "Gelu", ("out",), "gelu", "capture", "m.py:2", "act"),
    ]
    trace = _traced(
        TracedNode("BiasGelu_token_3", "BiasGelu", ("out",), (2.0,)),
        TracedNode("add_nchwc", "Add", ("reorder_1",), (1.0,)),
        TracedNode("ReorderOutput", "ReorderOutput", ("reorder_2",), (0.5,)),
    )
    passes = [{"name": "first", "rewrites": {"bias": 1}}]
    gelu, add, own = attribute(trace, records, passes)
    assert (by_op(gelu), by_rule(gelu), by_line(gelu)) == (
        "BiasGelu (for Gelu)", "capture", "m.py:2",
    )  # fmt: skip
    assert (by_op(add), by_rule(add), by_module(1)(add)) == ("Add", "first: bias", "up")
    assert {by_rule(own), by_line(own), by_module(1)(own)} == {RUNTIME}


def test_a_stall_at_another_node_in_each_run_counts_for_none() -> None:
    first = TracedNode("a", "Add", ("a",), (1.0, 1.0, 9.0))
    second = TracedNode("b", "Mul", ("b",), (9.0, 2.0, 2.0))
    trace = Trace((first, second), (10.5, 3.5, 11.5), 3.0)
    assert [n.milliseconds for n in attribute(trace, [], [])] == [1.0, 2.0]
    assert trace.between() == [0.5, 0.5, 0.5]


def test_inputs_come_from_the_source_and_are_made_up_without_one(small: tuple[Path, str]) -> None:
    out, source = small
    given = profile(out, ["batch=5"], source=source, runs=RUNS)
    assert (given.inputs, given.sizes) == (f"inputs of {source}", {"batch": 5})
    invented = profile(out, ["batch=2"], runs=RUNS)
    assert invented.inputs.startswith("made-up inputs") and invented.sizes == {"batch": 2}


@pytest.mark.parametrize(
    ("words", "problem"),
    [
        ("batch=9", "outside the range .* 1 to 8"),
        ("bach=2", "did you mean 'batch'"),
        ("batch", "write batch=1,8 seq=16,128"),
    ],
)
def test_sizes_that_the_artifact_does_not_take_are_refused(
    small: tuple[Path, str], words: str, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        profile(small[0], [words])


def test_a_source_of_another_model_is_refused(small: tuple[Path, str], tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(dedent(SMALL).replace('"x"', '"y"').replace("x)", "y)").replace("x:", "y:"))
    other.write_text(other.read_text().replace("self, x", "self, y"))
    with pytest.raises(UsageError, match="the artifact takes"):
        profile(small[0], source=f"{other}:make")


def test_a_damaged_model_is_refused(small: tuple[Path, str]) -> None:
    out, _ = small
    (out / "model.onnx").write_bytes(b"something else")
    with pytest.raises(UsageError, match="model.onnx has changed"):
        profile(out)


def test_a_place_that_cannot_be_written_is_refused_before_the_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--json: .* cannot be written: there is no folder"):
        profile_command(tmp_path / "no artifact", as_json=tmp_path / "missing" / "profile.json")


def _rendered(found: Profile, width: int, top: int) -> str:
    said = io.StringIO()
    console = Console(width=width, file=said)
    for part in render(found, top=top):
        console.print(part)
    return said.getvalue()


def test_the_tables_name_everything_and_leave_nothing_out(profiled: Profile) -> None:
    text = _rendered(profiled, width=200, top=3)
    for words in ("attention: attention-sdpa", "encoder.layer.1", "between nodes", "more"):
        assert words in text
    assert text.count("100.0 %") == 4


def test_it_is_said_when_runs_stall(profiled: Profile) -> None:
    quiet = dataclasses.replace(profiled, whole=profiled.milliseconds)
    stalled = dataclasses.replace(profiled, whole=2 * profiled.milliseconds)
    assert "the machine is busy" not in _rendered(quiet, width=200, top=1)
    assert "the machine is busy" in _rendered(stalled, width=200, top=1)


def test_the_json_is_the_whole_profile(profiled: Profile) -> None:
    found = json.loads(json.dumps(record(profiled)))
    assert len(found["nodes"]) == len(profiled.nodes)
    shares = sum(n["share"] for n in found["nodes"])
    between = found["milliseconds"]["between_nodes"] / found["milliseconds"]["nodes_and_between"]
    assert shares + between == pytest.approx(1)
    assert str(profiled.out.parent) not in json.dumps(found)


def test_a_model_at_fixed_sizes_takes_no_shapes(tmp_path: Path) -> None:
    model: Model = ZOO["bert"].static()
    artifact = build(model, tmp_path / "out")
    with pytest.raises(UsageError, match="built for fixed sizes"):
        profile(artifact.path, ["batch=2"])
