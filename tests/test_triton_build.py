"""Builds for Triton targets: compiled, run by the interpreter, checked and loaded again."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from conftest import Strop

from strop.compiler import build, load
from strop.compiler.driver.stand_in import affordable
from strop.compiler.frontend.cases import Case
from strop.compiler.frontend.source import load_model
from strop.compiler.ir.contract import Contract
from strop.compiler.targets.isolation import open_isolated
from strop.compiler.targets.runtime import StandIn, runtime_of
from strop.compiler.targets.target import get_target
from strop.compiler.targets.triton.interpreter import interpreting
from strop.compiler.util.errors import RuntimeRefusedError, UsageError
from strop.kernels import selection
from strop.kernels.gate import Checked, Violation

NO_CONTRACT = Contract((), (), ())
BLOCK = """
    import torch
    from strop.compiler import Model

    class Block(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.norm = torch.nn.LayerNorm(16)
            self.up = torch.nn.Linear(16, 32)
            self.down = torch.nn.Linear(32, 16)

        def forward(self, x):
            return x + self.down(torch.nn.functional.gelu(self.up(self.norm(x))))

    def make():
        torch.manual_seed(0)
        dims = {0: ("batch", 1, 4), 1: ("seq", 1, 16)}
        return Model(Block().eval(), {"x": torch.randn(2, 5, 16)}, {"x": dims})
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artifact of a small block."""
    folder = tmp_path_factory.mktemp("triton")
    source = folder / "block.py"
    source.write_text(dedent(BLOCK))
    build(load_model(f"{source}:make"), folder / "out", target="triton:sm90")
    return folder / "out"


def test_a_build_ships_plan_weights_and_kernels(built: Path) -> None:
    files = json.loads((built / "manifest.json").read_text())["files"]
    assert {"plan.json", "weights.safetensors", "gate.json"} < set(files)
    kernels = [name for name in files if name.startswith("kernels/sm90/norm-")]
    assert {Path(name).suffix for name in kernels} == {".cubin", ".ptx"}


def test_the_manifest_says_what_was_interpreted_and_that_nothing_was_timed(built: Path) -> None:
    notes = json.loads((built / "manifest.json").read_text())["notes"]
    assert any("Triton's interpreter ran the files in" in note for note in notes)
    assert json.loads((built / "build.json").read_text())["milliseconds"]["artifact"] is None


@pytest.mark.filterwarnings("ignore:there is no CUDA device")
def test_a_loaded_artifact_gives_what_the_model_gives(built: Path) -> None:
    module = load_model(f"{built.parent / 'block.py'}:make").module
    x = torch.randn(3, 7, 16)
    (found,) = load(built)(x=x.numpy())
    torch.testing.assert_close(torch.from_numpy(found), module(x))


def test_without_a_gpu_loading_says_that_it_is_slow(built: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.warns(RuntimeWarning, match="Triton's interpreter"):
        load(built)


@pytest.mark.parametrize("name", ["plan.json", "kernels"])
def test_a_changed_file_is_refused_by_its_hash(built: Path, tmp_path: Path, name: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    changed = next(copy.rglob("*.cubin")) if name == "kernels" else copy / name
    content = bytearray(changed.read_bytes())
    content[len(content) // 2] ^= 1
    changed.write_bytes(content)
    with pytest.raises(UsageError, match="has changed since it was built"):
        load(copy)


def test_the_text_of_a_plan_has_a_line_for_each_step(built: Path) -> None:
    lines = runtime_of(get_target("triton:sm90")).text(built).splitlines()
    assert lines[0] == (
        "%layer_norm = norm(x=%x, weight=%norm.weight, bias=%norm.bias, y=%layer_norm.y, "
        "rows=batch*seq, columns=16, x_stride=16, residual_stride=0, eps=1e-05) "
        "[cdiv(rows, ROWS)]"
    )
    calls = [line.partition(" = ")[2].partition("(")[0] for line in lines[1:-1]]
    assert calls == [
        "aten.linear.default", "aten.add.Tensor", "aten.gelu.default",
        "aten.linear.default", "aten.add.Tensor",
    ]  # fmt: skip
    assert lines[-1].startswith("return output: %")


def test_all_values_have_the_names_of_the_program(built: Path) -> None:
    target = get_target("triton:sm90")
    with pytest.warns(RuntimeWarning):
        found = runtime_of(target).values(built, {"x": torch.randn(2, 5, 16).numpy()})
    assert found["layer_norm"].shape == (2, 5, 16)


def test_two_builds_are_equal(built: Path, tmp_path: Path, strop: Strop) -> None:
    source = f"{built.parent / 'block.py'}:make"
    assert strop("build", source, "-o", tmp_path / "out", "--target", "triton:sm90").code == 0
    for name in json.loads((built / "manifest.json").read_text())["files"]:
        assert (built / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert (built / "manifest.json").read_bytes() == (
        tmp_path / "out" / "manifest.json"
    ).read_bytes()


def test_a_kernel_that_breaks_a_limit_ends_the_build(
    built: Path, tmp_path: Path, strop: Strop, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spilling(checked: Checked) -> list[Violation]:
        return [Violation("sm90", checked.variant, "registers that are spilled", "7", "none")]

    monkeypatch.setattr(selection, "violations", spilling)
    source = f"{built.parent / 'block.py'}:make"
    ended = strop("build", source, "-o", tmp_path / "out", "--target", "triton:sm90")
    assert ended.code == 5
    assert "kernel norm" in ended.err
    assert "for sm90: registers that are spilled: 7, allowed: none" in ended.err
    assert not (tmp_path / "out").exists()


def test_tuning_needs_a_gpu_of_the_architecture(built: Path, tmp_path: Path, strop: Strop) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    source = f"{built.parent / 'block.py'}:make"
    order = ("build", source, "-o", tmp_path / "out", "--target", "triton:sm90", "--tune")
    ended = strop(*order)
    assert ended.code == 2
    assert "measuring kernels needs a CUDA device" in ended.err


def test_a_stand_in_runs_the_cheapest_cases_up_to_an_allowance() -> None:
    def case(name: str) -> Case:
        return Case(name, {name: torch.zeros(1)}, {})

    seconds = {"a": 50.0, "b": 5.0, "c": 30.0, "d": 20.0}
    stand_in = StandIn("why", "name", lambda _, feeds: seconds[next(iter(feeds))])
    chosen, others = affordable(stand_in, Path(), [case(name) for name in seconds], NO_CONTRACT)
    assert [one.name for one in chosen] == ["b", "c", "d"]
    assert [one.name for one in others] == ["a"]


def test_a_stand_in_runs_one_case_whatever_it_costs() -> None:
    stand_in = StandIn("why", "name", lambda _, feeds: 1e6)
    cases = [Case(name, {name: torch.zeros(1)}, {}) for name in "ab"]
    chosen, _ = affordable(stand_in, Path(), cases, NO_CONTRACT)
    assert [one.name for one in chosen] == ["a"]


def test_times_of_a_stand_in_are_refused(built: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with (
        open_isolated(built, get_target("triton:sm90")) as session,
        pytest.raises(RuntimeRefusedError, match="says nothing of triton:sm90"),
    ):
        session.milliseconds({"x": torch.ones(1, 1, 16).numpy()}, "")


def test_kernels_that_changed_since_are_not_interpreted(built: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built, copy)
    plan = json.loads((copy / "plan.json").read_text())
    (copy / "plan.json").write_text(json.dumps(plan | {"kernels": "0" * 64}))
    with pytest.raises(RuntimeRefusedError, match="the artifact was built with others"):
        interpreting(copy)
