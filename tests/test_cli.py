"""The command line: what each command prints and writes, and passes of the user's own."""

from __future__ import annotations

import json
import re
from pathlib import Path
from textwrap import dedent

import pytest
import torch
from conftest import Result, Strop, Write, run_python, run_strop

from strop.compiler import build, load, load_recipe
from strop.compiler.cli.summary import checks_text
from strop.compiler.frontend.source import load_model
from strop.compiler.recipes.registry import pass_classes
from strop.compiler.util.user_code import load_object

TANH_GELU = """
    from dataclasses import dataclass

    import torch
    from strop.compiler import Match, Rule, RulePass

    gelu = torch.ops.aten.gelu.default

    class TanhGelu(Rule):
        name = "tanh-gelu"
        roots = (gelu,)

        def match(self, root, program):
            return Match(root, {"x": root.args[0]}, [root])

        def check(self, match, program):
            return "tanh already" if match.root.kwargs else None

        def rewrite(self, match, build):
            return build.call(gelu, match["x"], approximate="tanh")

    RULES = [TanhGelu]

    @dataclass(frozen=True)
    class Cheaper(RulePass):
        name = "cheaper"
        enabled: bool = True

        def rules(self):
            return [TanhGelu()] if self.enabled else []
"""


@pytest.fixture
def mine(write: Write) -> str:
    """The file of a user's own pass."""
    return write(TANH_GELU).rpartition(":")[0]


def steps(result: Result) -> list[str]:
    """The passes of a printed recipe."""
    return re.findall(r'^\[\[passes\]\]\nname = "(.*)"$', result.out, re.MULTILINE)


def manifest(out: Path) -> dict[str, object]:
    values: dict[str, object] = json.loads((out / "manifest.json").read_text())
    return values


def passes(out: Path) -> dict[str, dict[str, object]]:
    return {p["name"]: p for p in manifest(out)["passes"]}  # type: ignore[attr-defined]


# Commands ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["import strop.compiler", "from strop.compiler import cli"])
def test_importing_strop_imports_nothing_heavy(command: str) -> None:
    heavy = ("torch", "onnx", "onnxruntime", "numpy", "pydantic", "transformers")
    result = run_python(
        "-c", f"{command}; import sys; print([m for m in {heavy!r} if m in sys.modules])"
    )
    assert (result.code, result.out) == (0, "[]\n"), result.err


def test_help_takes_less_than_half_a_second() -> None:
    seconds = []
    code = (
        "import time, sys; start = time.perf_counter(); import atexit;"
        "atexit.register(lambda: print(time.perf_counter() - start, file=sys.stderr));"
        "sys.argv = ['strop', '--help']; from strop.compiler.cli.main import main; main()"
    )
    for _ in range(3):
        result = run_python("-c", code)
        assert result.code == 0
        assert "build" in result.out
        seconds.append(float(result.err))
    # The best of three: what else runs on the machine is not what is measured.
    assert min(seconds) < 0.5


def test_build_then_inspect_in_processes_of_their_own(small: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = run_strop("build", small, "-o", out, COLUMNS="200")
    assert result.code == 0, result.err
    assert "4 comparisons with the original" in result.out
    assert result.err == ""
    result = run_strop("inspect", out, COLUMNS="200")
    assert result.code == 0
    for words in ("batch, 16", "1 to 8", "bias-gelu", "all files match their hashes"):
        assert words in result.out


def test_inspect_writes_the_manifest_as_json(strop: Strop, small: str, tmp_path: Path) -> None:
    assert strop("build", small, "-o", tmp_path / "out").code == 0
    assert json.loads(strop("inspect", tmp_path / "out", "--json").out) == manifest(
        tmp_path / "out"
    )


def test_passes_lists_every_pass_and_the_options_of_one(strop: Strop) -> None:
    listed = strop("passes").out
    assert all(name in listed for name in pass_classes())
    one = strop("passes", "quantize")
    assert one.code == 0
    assert "keep = ()" in one.out
    assert "must run before: bias-gelu" in one.out
    assert "must run after: attention" in strop("passes", "packed").out
    wrong = strop("passes", "quantise")
    assert (wrong.code, "did you mean 'quantize'?" in wrong.err) == (2, True)


def test_stop_after_prints_the_program_and_writes_nothing(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    captured = strop("build", small, "--stop-after", "capture")
    assert captured.code == 0
    assert "aten.gelu" in captured.out
    fused = strop("build", small, "--stop-after", "bias-gelu", "-o", tmp_path / "out")
    assert "strop.bias_gelu" in fused.out
    assert not (tmp_path / "out").exists()


def test_dump_ir_writes_the_program_after_each_pass_that_changed_it(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    result = strop("build", small, "-o", tmp_path / "out", "--dump-ir", tmp_path / "ir")
    assert result.code == 0
    dumps = sorted(p.name for p in (tmp_path / "ir").glob("*.txt"))
    assert dumps[0] == "000_capture.txt"
    assert [re.sub(r"^\d+_", "", d) for d in dumps[1:]] == ["bias-gelu.txt"]
    assert "strop.bias_gelu" in (tmp_path / "ir" / dumps[-1]).read_text()


def test_print_recipe_writes_what_recipe_reads(
    strop: Strop, small: str, mine: str, tmp_path: Path
) -> None:
    options = ["--pass", f"{mine}:Cheaper{{enabled=false}}", "--before", "cse-last"]
    options += ["--set", "budget.max_error=0.5", "--set", "quantize.keep=['up']"]
    printed = strop("build", "--recipe", "cpu-int8", *options, "--print-recipe")
    assert printed.code == 0
    assert steps(printed)[-2:] == [f"{mine}:Cheaper", "cse"]
    path = tmp_path / "recipe.toml"
    path.write_text(printed.out)
    assert strop("build", "--recipe", path, "--print-recipe").out == printed.out
    assert strop("build", small, "-o", tmp_path / "out", "--recipe", path).code == 0
    quantize = passes(tmp_path / "out")["quantize"]
    assert quantize["options"]["keep"] == ["up"]  # type: ignore[index]
    assert quantize["rewrites"] == {"linear-w8a8": 1}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["build"], "say what to build"),
        (["build", "model.py:make"], "say where to write: -o OUT"),
        (["inspect", "nowhere"], "nowhere is not a strop artifact"),
    ],
)
def test_what_is_missing_on_the_command_line_is_said(
    strop: Strop, arguments: list[str], words: str
) -> None:
    result = strop(*arguments)
    assert (result.code, words in result.err) == (2, True), result.err


def test_the_owners_measure_is_taken_of_the_original_and_of_the_artifact(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    file = Path(small.rpartition(":")[0])
    file.write_text(
        file.read_text()
        + dedent("""
        def measured():
            model = make()
            x = torch.eye(16)[:4]
            model.evaluate = lambda run: {"top": run(x=x)[0].max(), "rows": len(run(x=x)[0])}
            return model
        """)
    )
    result = strop("build", f"{file}:measured", "-o", tmp_path / "out")
    assert result.code == 0, result.err
    metrics = manifest(tmp_path / "out")["metrics"]
    assert metrics["original"]["rows"] == metrics["artifact"]["rows"] == 4  # type: ignore[index]
    assert metrics["artifact"]["top"] == pytest.approx(metrics["original"]["top"])  # type: ignore[index]
    assert "rows: 4 original, 4 artifact" in result.out


# Passes of the user's own -----------------------------------------------------------------------


@pytest.mark.parametrize("name", ["Cheaper", "Cheaper{enabled=true}", "TanhGelu", "RULES"])
def test_a_users_pass_or_rules_run_at_the_place_named(
    strop: Strop, small: str, mine: str, tmp_path: Path, name: str
) -> None:
    out = tmp_path / "out"
    result = strop(
        "build", small, "-o", out, "--pass", f"{mine}:{name}", "--after", "cse",
        "--set", "budget.max_error=0.01",
    )  # fmt: skip
    assert result.code == 0, result.err
    ran = list(passes(out))
    step = "cheaper" if "Cheaper" in name else name
    assert ran.index(step) == ran.index("cse") + 1
    assert passes(out)[step]["rewrites"] == {"tanh-gelu": 1}
    assert str(tmp_path) not in (out / "manifest.json").read_text()


def test_two_passes_on_one_command_line_keep_their_order(strop: Strop, mine: str) -> None:
    result = strop(
        "build", "--print-recipe", "--after", "cse",
        "--pass", f"{mine}:Cheaper", "--pass", "noops", "--pass", f"{mine}:RULES",
    )  # fmt: skip
    at = steps(result).index("cse")
    assert steps(result)[at + 1 : at + 4] == [f"{mine}:Cheaper", "noops", f"{mine}:RULES"]


def test_a_users_pass_runs_from_python(small: str, mine: str, tmp_path: Path) -> None:
    cheaper = load_object(f"{mine}:Cheaper", "a pass")
    recipe = load_recipe("cpu-fp32").insert(cheaper(), after="cse").override("budget.max_error=0.1")
    artifact = build(load_model(small), tmp_path / "out", recipe)
    assert passes(tmp_path / "out")["cheaper"]["rewrites"] == {"tanh-gelu": 1}
    assert load(artifact.path)(x=torch.ones(2, 16).numpy())[0].shape == (2, 16)


def test_a_users_pass_that_costs_accuracy_is_the_suspect(
    strop: Strop, small: str, mine: str, tmp_path: Path
) -> None:
    result = strop(
        "build", small, "-o", tmp_path / "out", "--pass", f"{mine}:Cheaper", "--after", "cse",
        "--set", "budget.max_error=1e-7",
    )  # fmt: skip
    assert result.code == 3
    assert "Suspected: pass 'cheaper'" in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("        return 1 / 0", ["pass 'mine' raised ZeroDivisionError", "return 1 / 0"]),
        ("        program.output", ["pass 'mine' raised AttributeError", "'output'"]),
        (
            "        for n in program.calls(): n.meta.clear()",
            ["pass 'mine' broke the program", "has no meta['val']"],
        ),
        (
            "        log.rewrites.append(None)",
            ["pass 'mine' broke the program", "reports 1 rewrites but did not change"],
        ),
        (
            "        program.weights.clear()",
            ["pass 'mine' broke the program", "names the weight 'up.weight'"],
        ),
    ],
)
def test_a_users_pass_that_fails_is_named_and_exits_with_2(
    strop: Strop, small: str, tmp_path: Path, body: str, words: list[str]
) -> None:
    file = tmp_path / "mine.py"
    head = "from strop.compiler import Pass\nclass Mine(Pass):\n    name = 'mine'\n"
    file.write_text(f"{head}    def apply(self, program, log):\n{body}\n")
    result = strop("build", small, "-o", tmp_path / "out", "--pass", f"{file}:Mine")
    assert result.code == 2, result.err
    for word in words:
        assert word in result.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ("{file}:Missing", "has no 'Missing'"),
        ("{file}:CONSTANT", "is neither a Pass, nor a Rule, nor a list of rules"),
        ("{file}:Unnamed", "has no name"),
        ("{file}:Mine{{x=1}}", "has no option 'x'"),
        ("{file}:RULES{{x=1}}", "is a set of rules, which has no options"),
        ("nowhere.py:Mine", "nowhere.py does not exist"),
    ],
)
def test_something_that_is_no_pass_is_refused(
    strop: Strop, write: Write, spec: str, words: str
) -> None:
    file = write("""
        from strop.compiler import Pass, Rule
        CONSTANT = 3
        class Unnamed(Pass):
            def apply(self, program, log): pass
        class Mine(Unnamed):
            name = "mine"
        class Mute(Rule):
            name = "mute"
            def rewrite(self, match, build): pass
        RULES = [Mute]
    """).rpartition(":")[0]
    result = strop("build", "--print-recipe", "--pass", spec.format(file=file))
    assert (result.code, words in result.err) == (2, True), result.err


def test_a_file_that_holds_model_and_pass_runs_once(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    """It may register operators, which torch takes only once."""
    file = Path(small.rpartition(":")[0])
    count = tmp_path / "count"
    file.write_text(
        file.read_text() + dedent(TANH_GELU) + f"\nopen({str(count)!r}, 'a').write('x')\n"
    )
    out = tmp_path / "out"
    result = strop(
        "build", small, "-o", out, "--pass", f"{file}:Cheaper", "--set", "budget.max_error=1"
    )
    assert result.code == 0, result.err
    assert count.read_text() == "x"


def test_a_factory_may_import_its_neighbours_when_it_is_called(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    (tmp_path / "neighbour.py").write_text("size = 4")
    file = Path(small.rpartition(":")[0])
    file.write_text(file.read_text() + "\ndef late():\n    import neighbour\n    return make()\n")
    assert strop("build", f"{file}:late", "-o", tmp_path / "out").code == 0


def test_mismatches_of_labels_are_no_error_of_floats() -> None:
    score = {"case": "small", "output": "score", "max_error": 1e-7, "cosine": 0.5}
    label = {"case": "large", "output": "label", "max_error": 0.25, "cosine": None}
    said = "1 comparisons with the original: at most 25.00% of elements differ (label, large)"
    assert checks_text([label]) == said
    assert checks_text([score, label]) == (
        "2 comparisons with the original: worst error 1.0e-07 (score, small), "
        "lowest cosine 0.50000, at most 25.00% of elements differ (label, large)"
    )
