"""Several programs in one artifact: shared weights, all or nothing, and each one checked."""

from __future__ import annotations

import gc
import json
import re
import shutil
import signal
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pairs
import pytest
import torch
from conftest import Full, Strop, leftovers, run_python

from strop.compiler import Model, Programs, Recipe, build, load
from strop.compiler.artifact.folder import Artifact, read_artifact
from strop.compiler.artifact.output import require_output
from strop.compiler.driver.driver import compile_programs
from strop.compiler.recipes.entry import PassEntry
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.rewriting.dump import require_dump_place
from strop.compiler.util.errors import BudgetError, UnsupportedError, UsageError

BOTH = {"encoder", "decoder"}
IDS = np.ones((1, 3), np.int64)
TABLE = pairs.VOCABULARY * pairs.HIDDEN * 4
TESTS = Path(__file__).parent
BARE = Recipe(name="bare")


class Enough(Exception):
    """Ends a build from within."""


def bare(*settings: str) -> Recipe:
    """A recipe without passes."""
    return BARE.override(*settings)


MEASURED = load_recipe("cpu-fp32").override("budget.metrics.right.min=1")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    return build(measured(), tmp_path_factory.mktemp("two") / "out", MEASURED)


def measured() -> Programs:
    """Programs of which one has a metric."""
    made = pairs.make(notes=["Both read one table."])
    made.models["decoder"].evaluate = lambda run: {"right": 1.0}
    return made


def places(folder: Path, program: str) -> set[tuple[int, int]]:
    """Offsets and lengths of the weights of a program in the file that all share."""
    found = set()
    for tensor in onnx.load(
        str(folder / f"{program}.onnx"), load_external_data=False
    ).graph.initializer:
        entries = {e.key: e.value for e in tensor.external_data}
        if entries:
            assert entries["location"] == "model.onnx.data"
            found.add((int(entries["offset"]), int(entries["length"])))
    return found


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


# What is written --------------------------------------------------------------------------------


def test_a_folder_holds_each_program_and_one_file_of_weights(built: Artifact) -> None:
    assert sorted(content(built.path)) == [
        "build.json", "decoder.onnx", "decoder.provenance.json", "encoder.onnx",
        "encoder.provenance.json", "manifest.json", "model.onnx.data", "report.html",
    ]  # fmt: skip
    assert built.damaged() == []
    assert built.file_names() == set(content(built.path))


def test_a_shared_table_is_stored_once(built: Artifact, tmp_path: Path) -> None:
    both = places(built.path, "encoder") & places(built.path, "decoder")
    assert [length for _, length in both] == [TABLE]
    apart = build(pairs.make(tied=False), tmp_path / "apart", BARE)
    assert not places(apart.path, "encoder") & places(apart.path, "decoder")
    larger = (apart.path / "model.onnx.data").stat().st_size
    # Weights begin on pages of 4,096 bytes.
    assert larger - (built.path / "model.onnx.data").stat().st_size == -(-TABLE // 4096) * 4096


@pytest.mark.slow
def test_tables_that_come_out_equal_are_stored_once_without_being_one(tmp_path: Path) -> None:
    given = pairs.make(tied=False)
    encoder, decoder = (given.models[name].module for name in ("encoder", "decoder"))
    decoder.table.load_state_dict(encoder.table.state_dict())
    found = build(given, tmp_path / "out", BARE).path
    assert len(places(found, "encoder") & places(found, "decoder")) == 1


def test_originals_are_let_go_of_once_they_are_captured(tmp_path: Path) -> None:
    alive: list[weakref.ref[torch.nn.Module]] = []

    def watched() -> Programs:
        made = pairs.make()
        alive.extend(weakref.ref(model.module) for model in made.models.values())
        return made

    def progress(stage: str) -> None:
        if stage == "encoder: passes":
            gc.collect()  # torch leaves cycles behind a capture
            seen.extend(one() is not None for one in alive)
            raise Enough

    seen: list[bool] = []
    with pytest.raises(Enough):
        build(watched(), tmp_path / "out", BARE, progress=progress)
    assert seen == [False, False]


@pytest.mark.parametrize("recipe", ["cpu-int8", pytest.param("cpu-int4", marks=pytest.mark.slow)])
@pytest.mark.slow
def test_a_quantized_table_is_shared_or_a_note_says_what_it_costs(
    tmp_path: Path, recipe: str
) -> None:
    artifact = build(pairs.make(), tmp_path / "out", recipe)
    notes = [note for note in artifact.manifest["notes"] if "stored more than once" in note]
    if recipe == "cpu-int4":
        assert notes == []
        assert places(artifact.path, "encoder") & places(artifact.path, "decoder")
    else:  # the head wants the table transposed
        assert notes == [
            f"{TABLE // 4:,} bytes of the weights that programs share are stored more than once: "
            "the passes gave them other values or another form in each program"
        ]


@pytest.mark.slow
def test_no_note_where_no_weight_is_shared(tmp_path: Path) -> None:
    artifact = build(pairs.make(tied=False), tmp_path / "out", "cpu-int8")
    assert artifact.manifest["notes"] == []


def test_each_file_computes_what_its_module_does(built: Artifact) -> None:
    given = pairs.make()
    key, value = given.models["encoder"].module(torch.from_numpy(IDS)).values()
    want = given.models["decoder"].module(torch.from_numpy(IDS), key, value).detach().numpy()
    found = ort.InferenceSession(str(built.path_of("encoder"))).run(None, {"input_ids": IDS})
    feeds = {"input_ids": IDS, "cross_key": found[0], "cross_value": found[1]}
    (got,) = ort.InferenceSession(str(built.path_of("decoder"))).run(None, feeds)
    np.testing.assert_allclose(got, want, atol=1e-5)


def test_the_manifest_has_a_section_for_each_program(built: Artifact) -> None:
    manifest = json.loads((built.path / "manifest.json").read_text())
    assert manifest["notes"] == ["Both read one table."]
    assert not {"contract", "passes", "checks", "metrics"} & set(manifest)
    assert set(manifest["programs"]) == {"encoder", "decoder"}
    outputs = manifest["programs"]["encoder"]["contract"]["outputs"]
    assert [spec["name"] for spec in outputs] == ["key", "value"]
    assert all(one["checks"] and one["passes"] for one in manifest["programs"].values())
    assert set(manifest["side_files"]) == {"encoder.provenance.json", "decoder.provenance.json"}
    record = json.loads((built.path / "build.json").read_text())
    assert set(record["programs"]) == {"encoder", "decoder"}
    assert record["programs"]["decoder"]["milliseconds"]["artifact"] > 0


def test_the_manifest_says_how_the_programs_generate(built: Artifact) -> None:
    manifest = json.loads((built.path / "manifest.json").read_text())
    assert manifest["generation"] == {
        "caches": {}, "context": 8, "eos": [], "pad": 0, "bos": None, "start": [],
        "suppressed": [], "suppressed_first": [], "last": None,
        "ids": "input_ids", "mask": "attention_mask", "logits": "logits",
        "cross": {"cross_key": "key", "cross_value": "value"}, "family": "", "sizes": {},
        "shared_buffers": False, "prefill": "",
    }  # fmt: skip
    assert built.manifest["generation"] == manifest["generation"]


def test_the_same_input_gives_the_same_bytes(built: Artifact, tmp_path: Path) -> None:
    again = content(build(measured(), tmp_path / "out", MEASURED).path)
    for name, found in content(built.path).items():
        if name not in ("build.json", "report.html"):
            assert again[name] == found, name


@pytest.mark.slow
def test_one_program_that_is_named_model_is_a_model(tmp_path: Path) -> None:
    def one() -> Model:
        torch.manual_seed(0)
        return Model(torch.nn.Linear(4, 2).eval(), {"input": torch.ones(1, 4)})

    plain = content(build(one(), tmp_path / "plain", BARE).path)
    named = content(build(Programs({"model": one()}), tmp_path / "named", BARE).path)
    for name in ("manifest.json", "model.onnx", "provenance.json"):
        assert plain[name] == named[name]


# Reading it -------------------------------------------------------------------------------------


def test_a_loaded_artifact_runs_each_of_its_programs(built: Artifact) -> None:
    run = load(built.path)
    key, value = run.programs["encoder"](input_ids=IDS)
    (scores,) = run.programs["decoder"](input_ids=IDS, cross_key=key, cross_value=value)
    assert scores.shape == (1, 3, pairs.VOCABULARY)
    with pytest.raises(UsageError, match="2 programs: decoder, encoder; call one of them"):
        run(input_ids=IDS)


def test_inspect_shows_each_program(strop: Strop, built: Artifact) -> None:
    shown = strop("inspect", built.path)
    assert shown.code == 0, shown.err
    for text in ("program encoder", "program decoder", "cross_key", "Both read one table."):
        assert text in shown.out


def test_the_report_has_sections_for_each_program(built: Artifact) -> None:
    page = (built.path / "report.html").read_text()
    for program in ("encoder", "decoder"):
        for section in ("summary", "passes", "error", "graph", "misses", "checks"):
            assert page.count(f'id="{section}-{program}"') == 1
    assert page.count('id="time"') == page.count('id="programs"') == 1
    ids, links = re.findall(r' id="([^"]+)"', page), re.findall(r' href="#([^"]+)"', page)
    assert len(ids) == len(set(ids)) and set(links) <= set(ids)
    assert "strop debug profile OUT --program encoder" in page


@pytest.mark.parametrize(
    "change, what",
    [
        (lambda m: m["programs"].pop("encoder"), None),
        (lambda m: m["programs"].clear(), "damaged at 'programs'"),
        (lambda m: m["programs"]["encoder"].pop("contract"), "'programs.encoder.contract'"),
        (lambda m: m["programs"].update({"../x": m["programs"]["encoder"]}), "damaged at 'program"),
        (lambda m: m["files"].pop("decoder.onnx"), "does not name decoder.onnx"),
        (lambda m: m["generation"].update({"context": 0}), "damaged at 'generation.context'"),
        (lambda m: m["generation"].update({"caches": 3}), "damaged at 'generation.caches'"),
    ],
)
def test_a_damaged_manifest_is_refused_with_the_place(
    built: Artifact, tmp_path: Path, change: Callable[[Any], object], what: str | None
) -> None:
    manifest = json.loads((built.path / "manifest.json").read_text())
    change(manifest)
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    if what is None:
        assert read_artifact(tmp_path).programs == ("decoder",)
        return
    with pytest.raises(UsageError, match=what):
        read_artifact(tmp_path)


def test_the_ir_of_each_program_is_dumped_and_replaced(tmp_path: Path) -> None:
    dumps, recipe = tmp_path / "ir", Recipe(name="short", passes=[PassEntry(name="noops")])
    for _ in range(2):
        assert set(compile_programs(pairs.make(), recipe, "noops", dumps)) == BOTH
        require_dump_place(dumps)
    assert {p.name for p in dumps.iterdir()} == BOTH
    (dumps / "mine.txt").write_text("")
    with pytest.raises(UsageError, match="holds other files than a dump"):
        require_dump_place(dumps)


@pytest.mark.parametrize(
    "command",
    [
        ("debug", "profile", "OUT"),
        ("debug", "diff", "OUT", "OUT"),
        ("debug", "why-not", "linears", "OUT"),
        ("debug", "bisect", "SOURCE", "--metric", "cosine", "--min", "2"),
        ("debug", "why-not", "linears", "SOURCE"),
        ("bench", "OUT"),
    ],
)
def test_commands_that_look_at_one_program_want_its_name(
    strop: Strop, built: Artifact, tmp_path: Path, command: tuple[str, ...]
) -> None:
    (tmp_path / "two.py").write_text("import pairs\n\ndef make():\n    return pairs.make()\n")
    places = {"OUT": built.path, "SOURCE": f"{tmp_path}/two.py:make"}
    ended = strop(*(places.get(word, word) for word in command))
    assert ended.code == 2
    assert "has 2 programs" in ended.err
    assert "say which one: --program NAME" in ended.err


def test_one_program_is_profiled_compared_and_asked(strop: Strop, built: Artifact) -> None:
    out = built.path
    profiled = strop("debug", "profile", out, "--program", "decoder", "--runs", "1")
    assert "Attention" in profiled.out
    compared = strop("debug", "diff", out, out, "--program", "encoder")
    assert "%key" in compared.out and "0 in the first only" in compared.out
    asked = strop("debug", "why-not", "attention", out, "--program", "decoder")
    assert "it rewrote: 1 attention-sdpa" in asked.out
    asked = strop("debug", "why-not", "attention", out, "--program", "encoder")
    assert "it rewrote: nothing" in asked.out


# What goes wrong --------------------------------------------------------------------------------


def test_a_program_that_misses_its_budget_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    given = pairs.make()
    given.models["decoder"].evaluate = lambda run: {"right": 1.0}
    recipe = bare("budget.metrics.right.min=2")
    with pytest.raises(BudgetError, match=r"^program 'decoder': 1 of 1 metrics miss"):
        build(given, tmp_path / "out", recipe)
    assert list(tmp_path.iterdir()) == []


def test_a_metric_that_no_program_has_is_refused(tmp_path: Path) -> None:
    given = pairs.make()
    given.models["decoder"].evaluate = lambda run: {"right": 1.0}
    recipe = bare("budget.metrics.wrong.min=2")
    with pytest.raises(UsageError, match="budget for 'wrong', which evaluate did not return"):
        build(given, tmp_path / "out", recipe)


def test_a_metric_is_held_to_its_budget_in_the_program_that_has_it(built: Artifact) -> None:
    assert built.manifest["recipe"]["budget"]["metrics"] == {"right": {"min": 1.0}}
    assert built.program("decoder")["metrics"]["artifact"] == {"right": 1.0}
    assert built.program("encoder")["metrics"] == {}


@pytest.mark.parametrize("name", ["encoder", "decoder"])
def test_a_program_that_cannot_be_captured_is_named(tmp_path: Path, name: str) -> None:
    given = pairs.make()
    given.models[name].module.training = True
    with pytest.raises(UsageError, match=rf"^program '{name}': the module is in train mode"):
        build(given, tmp_path / "out", BARE)
    assert list(tmp_path.iterdir()) == []


def test_a_file_with_the_name_of_a_program_is_refused(tmp_path: Path) -> None:
    for name in ("decoder.onnx", "encoder.provenance.json", "model.onnx.data"):
        (tmp_path / name).write_text("")
        with pytest.raises(UsageError, match=f"Programs.files: .* strop's own \\('{name}'\\)"):
            build(pairs.make(files=[tmp_path / name]), tmp_path / "out")


def test_a_file_that_is_given_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("a")
    with pytest.raises(UsageError, match="another of Programs.files"):
        build(pairs.make(files=[tmp_path / "vocab.txt"] * 2), tmp_path / "out")


def test_a_file_of_the_users_with_the_name_of_a_program_stays(tmp_path: Path) -> None:
    out = tmp_path / "out"
    build(Model(torch.nn.Linear(4, 2).eval(), {"input": torch.ones(1, 4)}), out, BARE)
    (out / "decoder.onnx").write_text("mine")
    with pytest.raises(UsageError, match="'decoder.onnx', which is not strop's"):
        build(pairs.make(), out, BARE)
    assert (out / "decoder.onnx").read_text() == "mine"


def test_a_target_of_one_program_refuses_several(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="triton:sm90 takes one program at a time"):
        build(pairs.make(), tmp_path / "out", "triton-fp16", "triton:sm90")


def test_generation_of_other_types_is_refused(tmp_path: Path) -> None:
    given = pairs.make()
    object.__setattr__(given.generation, "context", "8")
    with pytest.raises(UsageError, match=r"^Generation.context: "):
        build(given, tmp_path / "out")


def test_a_full_disk_leaves_the_old_artifact(built: Artifact, tmp_path: Path, full: Full) -> None:
    out = tmp_path / "out"
    shutil.copytree(built.path, out)
    before = content(out)

    def progress(stage: str) -> None:
        if stage == "write":
            limit.__enter__()

    limit = full(20_000)  # less than the file of weights
    try:
        with pytest.raises(UsageError, match="could not be written"):
            build(pairs.make(1), out, BARE, progress=progress)
    finally:
        limit.__exit__(None, None, None)
    assert content(out) == before
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("encoder: lower", marks=pytest.mark.slow),
        pytest.param("write", marks=pytest.mark.slow),
        pytest.param("encoder: check", marks=pytest.mark.slow),
        "decoder: check",
    ],
)
def test_a_kill_leaves_the_old_artifact(built: Artifact, tmp_path: Path, stage: str) -> None:
    out = tmp_path / "out"
    shutil.copytree(built.path, out)
    before = content(out)
    code = f"""
import os, signal, sys
sys.path.insert(0, {str(TESTS)!r})
import pairs
from strop.compiler import Recipe, build

def progress(stage):
    if stage == {stage!r}:
        os.kill(os.getpid(), signal.SIGKILL)

build(pairs.make(1), {str(out)!r}, Recipe(name="bare"), progress=progress)
"""
    assert run_python("-c", code).code == -signal.SIGKILL
    assert content(out) == before
    require_output(out, force=False)  # as the next build does, which sweeps up
    assert leftovers(tmp_path) == []
