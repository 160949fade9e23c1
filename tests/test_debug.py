"""Snapshots, diffs, why-not, crash bundles and what a build expects of its passes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Strop, Write
from hypothesis import given
from hypothesis import strategies as st
from program_tools import program_of

from strop.bench.models.zoo import ZOO
from strop.compiler import Model, build, load_recipe
from strop.compiler.debug.diff import diff
from strop.compiler.debug.reduce import minimize
from strop.compiler.debug.why_not import why_not
from strop.compiler.driver.driver import compile_program
from strop.compiler.ir.footprint import footprint
from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots.reader import load_program
from strop.compiler.ir.snapshots.weight_store import WeightStore
from strop.compiler.ir.snapshots.writer import WEIGHTS, save_program
from strop.compiler.ir.stale import verify_types
from strop.compiler.ir.subgraph import extract
from strop.compiler.ir.verifier import verify
from strop.compiler.recipes.registry import make_pass
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.errors import BudgetError, UsageError, VerifyError
from strop.compiler.util.numerics import drift

aten = torch.ops.aten

BROKEN = """
    import torch
    from strop.compiler import Match, Rule

    class Broken(Rule):
        name = "broken"
        roots = (torch.ops.aten.gelu.default,)

        def match(self, root, program):
            return Match(root, {}, [root])

        def rewrite(self, match, build):
            return {}[match.root.name]
"""

WRONG = """
    import torch
    from strop.compiler import Match, Rule

    class Wrong(Rule):
        name = "wrong"
        roots = (torch.ops.aten.softmax.int,)

        def match(self, root, program):
            return Match(root, {}, [root])

        def rewrite(self, match, build):
            return build.call(torch.ops.aten.softmax.int, match.root.args[0], 0)
"""


def round_trip(program: Program, folder: Path) -> Program:
    folder.mkdir(exist_ok=True)
    save_program(program, folder / "program.json", WeightStore(folder / WEIGHTS))
    return load_program(folder / "program.json")


# Snapshots --------------------------------------------------------------------------------------


def models_and_stops() -> Iterator[Any]:
    """Models of different operators, as captured and as quantized; most as captured are slow."""
    for name in ("bert", "llama", "t5", "swin", "textbook"):
        for stop in ("capture", "cse-last"):
            quick = name == "bert" or (stop == "cse-last" and name != "textbook")
            yield pytest.param(name, stop, marks=() if quick else pytest.mark.slow)


@pytest.mark.parametrize(("name", "stop"), list(models_and_stops()))
def test_a_program_comes_back_as_it_was(name: str, stop: str, tmp_path: Path) -> None:
    model = ZOO[name].make()
    program = compile_program(model, load_recipe("cpu-int8"), stop)
    again = round_trip(program, tmp_path)
    assert str(again) == str(program)
    verify(again)
    verify_types(again)
    inputs = dict(model.example_inputs)  # type: ignore[arg-type]
    for got, want in zip(again.run(**inputs), program.run(**inputs)):
        assert torch.equal(got, want)


def test_equal_weights_are_written_once(tmp_path: Path) -> None:
    weight = torch.randn(4, 4)
    program = program_of(lambda x, a, b: x @ a + x @ b, torch.ones(4), a=weight, b=weight.clone())
    round_trip(program, tmp_path)
    assert len(list((tmp_path / WEIGHTS).iterdir())) == 1


def test_a_changed_weight_is_noticed(tmp_path: Path) -> None:
    program = program_of(lambda x, a: x @ a, torch.ones(4), a=torch.randn(4, 4))
    round_trip(program, tmp_path)
    (file,) = (tmp_path / WEIGHTS).iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(UsageError, match="has changed since it was written"):
        load_program(tmp_path / "program.json")


@pytest.mark.parametrize(
    "target",
    [
        "os.system",
        "aten.from_file.default",
        "aten.save.default",
        "builtins.eval",
        "operator.attrgetter",
    ],
)
def test_a_snapshot_calls_nothing_but_operators(target: str, tmp_path: Path) -> None:
    round_trip(program_of(lambda x: x.relu(), torch.ones(4)), tmp_path)
    file = tmp_path / "program.json"
    file.write_text(file.read_text().replace("aten.relu.default", target))
    with pytest.raises(UsageError, match="snapshot"):
        load_program(file)


@given(cut=st.integers(0, 10_000))
def test_a_damaged_snapshot_is_a_sentence(
    cut: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("snapshot")
    round_trip(program_of(lambda x: (x + 1).relu(), torch.ones(4)), folder)
    file = folder / "program.json"
    text = file.read_text()
    file.write_text(text[: cut % (len(text) - 2)])
    with pytest.raises(UsageError, match="the snapshot .* damaged"):
        load_program(file)


def test_a_stale_type_is_found_with_its_line() -> None:
    program = program_of(lambda x: x.relu() + 1, torch.ones(4))
    (node,) = program.find(aten.relu.default)
    node.meta["val"] = node.meta["val"][:2]
    with pytest.raises(VerifyError, match=r"%relu = aten.relu \(.+\) is typed f32\[2\], and is"):
        verify_types(program)


# Sizes and numbers ------------------------------------------------------------------------------


def test_a_quantized_weight_counts_in_the_bytes_it_will_take() -> None:
    x, weight = torch.randn(2, 32), torch.randn(64, 32)
    program = program_of(lambda x, w: torch.nn.functional.linear(x, w), x, w=weight)
    before = footprint(program)
    after = footprint(make_pass("quantize", {}).run(program).program)
    assert (before.parameters, before.bytes) == (64 * 32, 4 * 64 * 32)
    assert after.bytes == 64 * 32 + 4 * 64


def test_drift_is_the_worst_outputs() -> None:
    want = {"a": torch.eye(4).numpy(), "b": torch.ones(4).numpy()}
    got = {"a": torch.eye(4).numpy(), "b": 1.1 * torch.ones(4).numpy()}
    found = drift(got, want)
    assert (found.output, found.agreement, found.finite) == ("b", 1.0, True)
    assert found.max_abs == pytest.approx(0.1)
    assert found.sqnr_db == pytest.approx(20.0, abs=0.01)
    assert drift(want, want).sqnr_db is None
    assert not drift({"a": want["a"] * float("nan"), "b": want["b"]}, want).finite


def test_a_build_records_what_each_pass_did_to_the_outputs(small: str, tmp_path: Path) -> None:
    from strop.compiler.frontend.source import load_model

    artifact = build(load_model(small), tmp_path / "out", "cpu-int8")
    steps = {p["name"]: p for p in artifact.manifest["passes"]}
    quantize = steps["quantize"]
    assert quantize["modified"]
    assert 10 < quantize["previous"]["sqnr_db"] < 80
    assert quantize["original"]["cosine"] > 0.99
    assert quantize["bytes_after"] < quantize["bytes_before"] / 2
    assert steps["conv-bn"]["previous"] is None
    assert set(artifact.build_record()["pass_peak_bytes"]) == set(steps)
    off = build(load_model(small), tmp_path / "off", "cpu-int8", instruments="off")
    assert all(p["previous"] is None for p in off.manifest["passes"])


# Rewrites one by one ----------------------------------------------------------------------------


@given(limit=st.integers(0, 12))
def test_a_pass_stopped_after_any_rewrite_leaves_a_valid_program(limit: int) -> None:
    program = program_of(
        lambda x: torch.dropout(x * 1.0, 0.1, False).clone().relu() + 0, torch.ones(4)
    )
    for name in ("noops", "constants", "cse"):
        log = Log(limit=limit)
        result = make_pass(name, {}).run(program, log)
        assert len(log.rewrites) <= limit
        verify(result.program)
        verify_types(result.program)
        assert torch.equal(result.program.run(input_0=torch.ones(4))[0], torch.ones(4))


# Why not ----------------------------------------------------------------------------------------


class SumTwice(torch.nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = torch.nn.functional.gelu(x + 1)
        return y + (x + 1).softmax(-1)


LINE = SumTwice.forward.__code__.co_firstlineno + 2


def test_why_not_tells_what_happened_at_a_line() -> None:
    program = program_of(SumTwice(), torch.ones(4))
    pipeline = Pipeline.of([make_pass("cse", {}), make_pass("bias-gelu", {})])
    answer = why_not(program, pipeline, "bias-gelu", f"test_debug.py:{LINE}")
    assert [step for step, _ in answer.earlier] == ["cse"]
    assert any("softmax" in text for text in answer.present)
    assert "aten.gelu" in answer.looked_for["bias-gelu"]
    gelu = why_not(program, pipeline, "bias-gelu", f"test_debug.py:{LINE - 1}")
    assert gelu.misses[0].rule == "bias-gelu"
    assert gelu.misses[0].lines == (f"test_debug.py:{LINE - 1}",)


def test_why_not_of_an_unknown_line_names_the_nearest() -> None:
    program = program_of(SumTwice(), torch.ones(4))
    with pytest.raises(UsageError, match="nothing was captured from 'test_debug.py:1'"):
        why_not(program, Pipeline.of([make_pass("cse", {})]), "cse", "test_debug.py:1")


def test_why_not_of_an_artifact_is_in_its_manifest(
    strop: Strop, write: Write, tmp_path: Path
) -> None:
    source = write("""
        import torch
        from strop.compiler import Model

        class Shared(torch.nn.Module):
            def __init__(self):
                super().__init__()
                self.up = torch.nn.Linear(8, 8)

            def forward(self, x):
                y = self.up(x)
                return torch.nn.functional.gelu(y) + y

        def make():
            return Model(Shared().eval(), (torch.ones(2, 8),))
    """)
    assert strop("build", source, "-o", tmp_path / "out").code == 0
    for result in (
        strop("debug", "why-not", "bias-gelu", tmp_path / "out"),
        strop("debug", "why-not", "bias-gelu", source),
    ):
        assert result.code == 0, result.err
        assert "bias-gelu" in result.out
        assert "an inner value is used" in " ".join(result.out.split())
    assert strop("debug", "why-not", "bias-gel", tmp_path / "out").code == 2


# Diffs ------------------------------------------------------------------------------------------


def test_a_diff_puts_the_value_that_moved_most_first() -> None:
    def of(scale: float) -> Program:
        return program_of(lambda x: ((x * 2).relu() * scale).exp(), torch.linspace(-1, 1, 8))

    found = diff(of(1.0), of(3.0), {"input_0": torch.linspace(-1, 1, 8)})
    assert [s.name for s in found.shared][-2:] == ["mul", "relu"]
    assert found.shared[0].name == "exp"
    assert found.shared[-1].drift is not None
    assert found.shared[-1].drift.sqnr_db is None
    assert "-  %mul_1" in found.text
    assert "3.0" in found.text


def test_diff_on_the_command_line(strop: Strop, small: str, tmp_path: Path) -> None:
    for recipe in ("cpu-fp32", "cpu-int8"):
        dump = tmp_path / f"{recipe}-ir"
        done = strop("build", small, "-o", tmp_path / recipe, "--recipe", recipe, "--dump-ir", dump)
        assert done.code == 0, done.err
    ir = tmp_path / "cpu-int8-ir"
    names = sorted(p.name for p in ir.glob("*.json"))
    assert names[0] == "000_capture.json"
    assert all((ir / n).with_suffix(".txt").is_file() for n in names)
    result = strop("debug", "diff", ir / names[0], ir / names[-1], "--node", "%linear")
    assert result.code == 0, result.err
    assert "values are in both" in result.out
    result = strop("debug", "diff", tmp_path / "cpu-fp32", tmp_path / "cpu-int8")
    assert result.code == 0, result.err
    assert "DynamicQuantize" in result.out
    result = strop("debug", "diff", ir / names[-1], tmp_path / "cpu-int8")
    assert result.code == 0, result.err
    assert "%gelu" in result.out
    assert strop("debug", "diff", small.partition(":")[0], ir / names[0]).code == 2
    assert strop("debug", "diff", tmp_path / "cpu-int8", ir / names[0]).code == 2


# Crashes ----------------------------------------------------------------------------------------


def test_a_crash_leaves_a_bundle_that_replays_and_reduces(
    strop: Strop, write: Write, small: str, tmp_path: Path
) -> None:
    own = write(BROKEN, "Broken")
    result = strop("build", small, "-o", tmp_path / "out", "--pass", own, "--before", "bias-gelu")
    assert result.code == 2
    assert "KeyError" in result.err
    assert f"strop debug replay {tmp_path}/out.crash" in result.err
    assert not (tmp_path / "out").exists()
    bundle = tmp_path / "out.crash"
    assert str(tmp_path) not in "".join(p.read_text() for p in bundle.glob("*.[jt][sox]*"))
    assert "which is not strop's" in strop("debug", "replay", bundle).err
    replayed = strop("debug", "replay", bundle, "--pass", own)
    assert replayed.code == 0, replayed.err
    assert "fails as recorded: KeyError" in replayed.out
    reduced = strop("debug", "reduce", bundle, "--pass", own)
    assert reduced.code == 0, reduced.err
    assert "1 calls are left" in reduced.out
    assert "aten.gelu" in (tmp_path / "out.crash.reduced" / "program.txt").read_text()


def test_a_bundle_holds_no_large_weights(write: Write, strop: Strop, tmp_path: Path) -> None:
    source = write("""
        import torch
        from strop.compiler import Model
        def make():
            net = torch.nn.Sequential(torch.nn.Linear(100, 100), torch.nn.GELU()).eval()
            torch.nn.init.constant_(net[0].weight, 0.125)
            return Model(net, (torch.randn(2, 100),))
    """)
    own = write(BROKEN, "Broken")
    strop("build", source, "-o", tmp_path / "out", "--pass", own, "--before", "bias-gelu")
    program = load_program(tmp_path / "out.crash" / "program.json")
    assert not any((t == 0.125).all() for t in program.weights.values())


def test_a_folder_that_is_no_bundle_is_left_alone(
    strop: Strop, write: Write, small: str, tmp_path: Path
) -> None:
    (tmp_path / "out.crash").mkdir()
    (tmp_path / "out.crash" / "mine.txt").write_text("mine")
    own = write(BROKEN, "Broken")
    result = strop("build", small, "-o", tmp_path / "out", "--pass", own, "--before", "bias-gelu")
    assert "no crash bundle was written" in result.err
    assert (tmp_path / "out.crash" / "mine.txt").read_text() == "mine"
    assert "not a crash bundle" in strop("debug", "replay", tmp_path / "out.crash").err


def test_extracted_parts_run() -> None:
    program = program_of(
        lambda x: x.reshape(x.shape[0] * 2, -1).split(2, 1)[0].relu() + 1,
        torch.randn(4, 8),
        dims={0: {0: "batch"}},
    )
    calls = list(program.calls())
    for i in range(len(calls)):
        part = extract(program, calls[i : i + 2])
        verify(part)
        inputs = {
            s.name: torch.ones([8 if isinstance(d, str) else d for d in s.shape])
            for s in part.contract.inputs
        }
        if all(isinstance(d, int) for s in part.contract.inputs for d in s.shape):
            part.run(**inputs)


@given(st.sets(st.integers(0, 40), min_size=1, max_size=3))
def test_minimizing_keeps_exactly_what_it_takes(needed: set[int]) -> None:
    asked = []

    def still_fails(part: object) -> bool:
        asked.append(part)
        return needed <= set(part)  # type: ignore[call-overload]

    assert set(minimize(list(range(41)), still_fails)) == needed


# What a build expects ---------------------------------------------------------------------------


def test_a_missed_fusion_can_be_an_error(strop: Strop, small: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert strop("build", small, "-o", out, "--expect", "bias-gelu=1").code == 0
    result = strop("build", small, "-o", tmp_path / "no", "--expect", "attention=12")
    assert result.code == 3
    assert "expected to rewrite 12 times and did 0" in result.err
    assert not (tmp_path / "no").exists()
    result = strop("build", small, "-o", tmp_path / "no", "--expect", "atention=12")
    assert (result.code, "did you mean 'attention'" in result.err) == (2, True)
    assert strop("build", small, "-o", tmp_path / "no", "--expect", "attention=x").code == 2


def test_expectations_can_stand_in_a_recipe() -> None:
    recipe = load_recipe("cpu-fp32").override("expect.activations=3")
    model = Model(torch.nn.Linear(4, 4).eval(), (torch.ones(2, 4),))
    with pytest.raises(BudgetError, match="'activations' was expected to rewrite 3 times"):
        build(model, "unused", recipe)


# Bisection on the command line ------------------------------------------------------------------


def test_bisect_names_pass_rewrite_and_line(strop: Strop, write: Write, small: str) -> None:
    own = write(WRONG, "Wrong")
    options = ("--pass", own, "--before", "bias-gelu", "--metric", "cosine", "--min", "0.99")
    result = strop("debug", "bisect", small, *options)
    assert result.code == 0, result.err
    assert "pass 'Wrong' is the first bad one" in result.out
    assert "rewrite 1 of 1: rule 'wrong' at %softmax (model_" in result.out
    assert "+  %softmax_int" in result.out


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ((), "either --check"),
        (("--metric", "cosine"), "takes --min"),
        (("--metric", "cosin", "--min", "1"), "did you mean 'cosine'"),
        (("--metric", "max_abs", "--max", "1"), "there is no pass to blame"),
        (("--check", "false"), "before any pass"),
        (("--check", "no-such-command {}"), "cannot be run"),
        (("--check", "sh -c 'exit 125'"), "cannot tell"),
    ],
)
def test_a_bisection_that_makes_no_sense_is_refused(
    strop: Strop, small: str, options: tuple[str, ...], words: str
) -> None:
    result = strop("debug", "bisect", small, *options)
    assert result.code == 2
    assert words in result.err


def test_a_dump_that_cannot_be_written_is_refused_before_the_build(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    result = strop("build", small, "-o", tmp_path / "out", "--dump-ir", tmp_path / "file" / "ir")
    assert (result.code, "file is a file" in result.err) == (2, True)
    assert not (tmp_path / "out").exists()


def test_json_of_a_dump_has_no_path(strop: Strop, small: str, tmp_path: Path) -> None:
    strop("build", small, "-o", tmp_path / "out", "--dump-ir", tmp_path / "ir")
    files = list((tmp_path / "ir").glob("*.json"))
    assert files
    for file in files:
        assert str(tmp_path) not in file.read_text()
        assert json.loads(file.read_text())["strop_snapshot"] == 1
