"""What users get wrong: one clear sentence each, the right exit code, nothing written."""

from __future__ import annotations

from pathlib import Path
from textwrap import dedent

import pytest
from conftest import SMALL, Result, Strop, Write, leftovers

from strop.compiler.artifact.folder import read_artifact

LINEAR = """
    import torch
    from strop.compiler import Model

    def model(**changes):
        torch.manual_seed(0)
        values = dict(
            module=torch.nn.Sequential(torch.nn.Linear(8, 8)).eval(),
            example_inputs={"input": torch.randn(3, 8)},
        )
        return Model(**(values | changes))
"""


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "built").mkdir()
    return tmp_path / "built" / "out"


def refused(result: Result, code: int, out: Path, *words: str) -> None:
    """The command failed as it should, and left no trace of itself."""
    assert result.code == code, result.err
    assert result.err.startswith("strop: ")
    for word in words:
        assert word in result.err
    assert "Traceback" not in result.err + result.out
    assert list(out.parent.iterdir()) == []


@pytest.mark.parametrize(
    ("factory", "words"),
    [
        ("def other(): pass", ["has no 'make'", "known: other"]),
        ("def maks(): pass", ["has no 'make'", "did you mean 'maks'?"]),
        ("make = 3", ["is int, not a function that returns a Model"]),
        ("def make(): return 3", ["make() returned int", "strop.compiler.Model"]),
        ("def make(): return 1 / 0", ["ZeroDivisionError", ":1: def make(): return 1 / 0"]),
        ("import no_such_module", ["ModuleNotFoundError", "no_such_module", ":1:"]),
        ("def make(:", ["SyntaxError", "line 1"]),
        ("def make(): raise SystemExit(4)", ["SystemExit: 4"]),
    ],
)
def test_a_factory_that_is_missing_or_wrong_is_named_with_its_line(
    strop: Strop, write: Write, out: Path, factory: str, words: list[str]
) -> None:
    refused(strop("build", write(factory), "-o", out), 2, out, *words)


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("nowhere.py:make", "nowhere.py does not exist"),
        ("model.onnx", "write FILE.py:name"),
        ("hf:nowhere", "no config.json"),
    ],
)
def test_a_source_that_does_not_exist_is_refused(
    strop: Strop, out: Path, source: str, words: str
) -> None:
    refused(strop("build", source, "-o", out), 2, out, words)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ("module=3", ["Model.module is int"]),
        ("module=torch.nn.Linear(8, 8)", ["the module is in train mode", "module.eval()"]),
        (
            "module=torch.nn.Sequential(torch.nn.Dropout()).eval().append(torch.nn.Dropout())",
            ["submodule '1' is in train mode"],
        ),
        (
            "example_inputs={'input': torch.randn(3, 9)}",
            ["module fails in case", "3x9"],
        ),
        (
            "example_inputs={'x': torch.randn(3, 8)}",
            ["module fails in case", "'x'"],
        ),
        ("example_inputs=torch.randn(3, 8)", ["example_inputs is Tensor", "(x,)"]),
        ("example_inputs={'input': 3}", ["example_inputs['input'] is int", "takes tensors"]),
        ("example_inputs=()", ["example_inputs is tuple"]),
        ("dynamic={'inputs': {0: 'n'}}", ["dynamic names the input 'inputs'", "mean 'input'?"]),
        ("dynamic={'input': {2: 'n'}}", ["names axis 2", "has 2 axes"]),
        ("dynamic={'input': 'n'}", ["dynamic['input'] is str"]),
        ("dynamic={'input': {0: ('n', 2)}}", ["('n', 2)", "('name', min, max)"]),
        ("dynamic={'input': {0: ('n', 9, 4)}}", ["the range 9 to 4"]),
        ("dynamic={'input': {0: ('n', 4, 9)}}", ["size 3 on axis 0", "4 to 9"]),
        ("dynamic={'input': {0: 'n', 1: 'n'}}", ["dim 'n' is 3 elsewhere"]),
        ("calibration=[{'x': torch.randn(3, 8)}]", ["calibration[0] has x; it lacks 'input'"]),
        (
            "calibration=[(1, 2)]",
            ["calibration[0] is tuple; a batch is a mapping"],
        ),
        ("calibration=[(torch.randn(4, 8),)]", ["calibration[0]['input']", "(4, 8)", "(3, 8)"]),
    ],
)
def test_a_model_that_does_not_fit_its_inputs_is_refused(
    strop: Strop, write: Write, out: Path, changes: str, words: list[str]
) -> None:
    source = write(dedent(LINEAR) + f"def make(): return model({changes})")
    refused(strop("build", source, "-o", out), 2, out, *words)


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_nan_or_inf_in_weights_is_refused_by_name(
    strop: Strop, write: Write, out: Path, value: str
) -> None:
    source = write(
        dedent(LINEAR)
        + dedent(f"""
        def make():
            made = model()
            made.module[0].weight.data[2, 3] = float("{value}")
            return made
        """)
    )
    refused(strop("build", source, "-o", out), 2, out, "weights hold NaN or Inf: 0.weight")


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "return input * int(input.shape[0])",
            ["dim 'batch' is declared dynamic", "one size", "drop it from `dynamic`"],
        ),
        (
            "return input + 1 if input.shape[0] == 3 else input",
            ["differently at batch = 3", "Narrow the ranges in `dynamic`"],
        ),
    ],
)
def test_a_dim_declared_dynamic_that_the_code_fixes_is_named(
    strop: Strop, write: Write, out: Path, body: str, words: list[str]
) -> None:
    source = write(
        dedent(LINEAR)
        + dedent(f"""
        class Fixed(torch.nn.Module):
            def forward(self, input):
                {body}

        def make():
            return model(module=Fixed().eval(), dynamic={{"input": {{0: ("batch", 2, 8)}}}})
        """)
    )
    refused(strop("build", source, "-o", out), 4, out, *words)


def test_a_branch_on_a_tensors_value_is_shown_in_the_users_source(
    strop: Strop, write: Write, out: Path
) -> None:
    source = write(
        dedent(LINEAR)
        + dedent("""
        class Branch(torch.nn.Module):
            def forward(self, input):
                if input.sum() > 0:
                    return input
                return -input

        def make():
            return model(module=Branch().eval())
        """)
    )
    refused(
        strop("build", source, "-o", out),
        4,
        out,
        "decides on a tensor's value",
        "if input.sum() > 0",
        "torch.where",
    )


def test_operators_that_nothing_lowers_are_all_listed_with_their_lines(
    strop: Strop, write: Write, out: Path
) -> None:
    source = write("""
        import torch
        from strop.compiler import Model

        @torch.library.custom_op("bad_input::swirl", mutates_args=())
        def swirl(x: torch.Tensor) -> torch.Tensor:
            return x + 1

        @torch.library.custom_op("bad_input::twist", mutates_args=())
        def twist(x: torch.Tensor) -> torch.Tensor:
            return x * 2

        for op in (swirl, twist):
            op.register_fake(torch.empty_like)

        class Custom(torch.nn.Module):
            def forward(self, x):
                x = swirl(x)
                return twist(x)

        def make():
            return Model(Custom().eval(), {"x": torch.randn(3, 4)})
        """)
    file = Path(source.rpartition(":")[0]).name
    refused(
        strop("build", source, "-o", out),
        4,
        out,
        "2 operator calls",
        f"bad_input.swirl ({file}:18)",
        f"bad_input.twist ({file}:19)",
    )


def test_a_runtime_that_refuses_the_model_is_quoted(strop: Strop, write: Write, out: Path) -> None:
    source = write("""
        import torch
        from strop.compiler import Model
        from strop.compiler.lower.onnx.table import lowers

        @torch.library.custom_op("bad_input::unheard", mutates_args=())
        def unheard(x: torch.Tensor) -> torch.Tensor:
            return x + 1

        unheard.register_fake(torch.empty_like)

        @lowers(torch.ops.bad_input.unheard.default)
        def emit(on, x):
            return on.op("NoSuchOperator", on.value(x))

        class Custom(torch.nn.Module):
            def forward(self, x):
                return unheard(x)

        def make():
            return Model(Custom().eval(), {"x": torch.randn(3, 4)})
        """)
    refused(
        strop("build", source, "-o", out),
        5,
        out,
        "ONNX Runtime does not load the model",
        "NoSuchOperator",
    )


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--recipe", "cpu-int9"], "unknown recipe 'cpu-int9'; did you mean 'cpu-int8'?"),
        (["--recipe", "nowhere.toml"], "nowhere.toml cannot be read"),
        (["--target", "cpux"], "unknown target 'cpux'; did you mean 'cpu'?"),
        (["--pass", "noop"], "unknown pass 'noop'; did you mean 'noops'?"),
        (["--pass", "noops{x=1}"], "pass 'noops' has no option 'x'; it has none"),
        (["--pass", "noops{x}"], "'x' in 'noops{x}' is not of the form option=value"),
        (["--pass", "noops{x=[1}"], "not of the form name{option=value,...}"),
        (["--pass", "noops", "--after", "cses"], "no pass 'cses'; did you mean 'cse'?"),
        (["--pass", "noops", "--after", "cse", "--before", "cse"], "not both"),
        (["--after", "cse"], "there is no --pass"),
        (["--stop-after", "cses"], "no pass 'cses'; did you mean 'cse'?"),
        (["--set", "budget.max_eror=1"], "unknown key 'max_eror'; did you mean 'max_error'?"),
        (["--set", "budget.max_error=much"], "budget.max_error"),
        (["--set", "budget.max_error=-1"], "greater than or equal to 0"),
        (["--set", "max_error=1"], "not of the form pass.option=value"),
        (["--set", "cses.x=1"], "no pass 'cses'; did you mean 'cse'?"),
        (["--set", "cse.name=x"], "has no option 'name'"),
        (["--recipe", "cpu-int8", "--set", "quantize.sheme=x"], "has no option 'sheme'"),
    ],
)
def test_a_wrong_option_is_refused_with_the_nearest_right_one(
    strop: Strop, small: str, out: Path, options: list[str], words: str
) -> None:
    refused(strop("build", small, "-o", out, *options), 2, out, words)


def test_an_unknown_command_line_option_exits_with_2(strop: Strop, small: str, out: Path) -> None:
    result = strop("build", small, "-o", out, "--recipee", "cpu-fp32")
    assert result.code == 2
    assert "--recipe" in result.err
    assert not out.exists()


@pytest.mark.parametrize(
    ("recipe", "words"),
    [
        ('name = "x"\ntargets = "cpu"', ["unknown key 'targets'", "did you mean 'target'?"]),
        ('name = "x"\n[budget]\nmincosine = 1', ["'mincosine'", "did you mean 'min_cosine'?"]),
        ('name = "x"\n[[passes]]\nx = 1', ["passes.0.name", "Field required"]),
        ('name = "x"\n[[passes]]\nname = "cse"\nlimit = 1', ["'cse' has no option 'limit'"]),
        ("name = x", ["x.toml", "line 1"]),
    ],
)
def test_a_wrong_recipe_file_is_refused_with_the_nearest_right_key(
    strop: Strop, small: str, tmp_path: Path, out: Path, recipe: str, words: list[str]
) -> None:
    path = tmp_path / "x.toml"
    path.write_text(recipe)
    refused(strop("build", small, "-o", out, "--recipe", path), 2, out, *words)


def test_an_option_of_the_wrong_type_is_refused(strop: Strop, small: str, out: Path) -> None:
    result = strop("build", small, "-o", out, "--recipe", "cpu-int8", "--set", "quantize.keep=7")
    refused(result, 2, out, "pass 'quantize', option 'keep'")


@pytest.mark.parametrize("recipe", ["cpu-fp32", "cpu-int8"])
def test_a_missed_budget_names_the_worst_output_and_the_suspect(
    strop: Strop, small: str, out: Path, recipe: str
) -> None:
    result = strop("build", small, "-o", out, "--recipe", recipe, "--set", "budget.max_error=0")
    suspect = {"cpu-fp32": "the lowering or the runtime", "cpu-int8": "pass 'quantize'"}[recipe]
    refused(result, 3, out, "miss the budget", "output is off by", f"Suspected: {suspect}")


def test_a_model_that_changes_from_call_to_call_is_blamed_on_the_capture(
    strop: Strop, write: Write, out: Path
) -> None:
    source = write(
        dedent(LINEAR)
        + dedent("""
        class Counts(torch.nn.Module):
            calls = 0
            def forward(self, input):
                self.calls += 1
                return input + self.calls

        def make():
            return model(module=Counts().eval())
        """)
    )
    refused(strop("build", source, "-o", out), 3, out, "Suspected: capture")


@pytest.mark.parametrize(
    ("measure", "words"),
    [
        ("lambda run: 1 / 0", "evaluate raised ZeroDivisionError"),
        ("lambda run: 0.9", "evaluate returned 0.9; it must return numbers by name"),
        ("lambda run: {'accuracy': 'high'}", "it must return numbers by name"),
        ("lambda run: {'accuracy': float('nan')}", "evaluate returned nan for 'accuracy'"),
        ("lambda run: {'accuracy': float('-inf')}", "evaluate returned -inf for 'accuracy'"),
    ],
)
def test_a_measure_that_fails_is_refused(
    strop: Strop, write: Write, out: Path, measure: str, words: str
) -> None:
    source = write(dedent(LINEAR) + f"def make(): return model(evaluate={measure})")
    refused(strop("build", source, "-o", out), 2, out, words)


def test_a_missed_budget_leaves_the_artifact_that_was_there(
    strop: Strop, small: str, out: Path
) -> None:
    assert strop("build", small, "-o", out).code == 0
    before = {p.name: p.read_bytes() for p in out.iterdir()}
    assert strop("build", small, "-o", out, "--set", "budget.max_error=0").code == 3
    assert {p.name: p.read_bytes() for p in out.iterdir()} == before
    assert leftovers(out.parent) == []


def test_an_output_folder_that_is_not_ours_needs_force(strop: Strop, small: str, out: Path) -> None:
    out.mkdir()
    (out / "thesis.txt").write_text("years of work")
    result = strop("build", small, "-o", out)
    assert result.code == 2
    assert "exists and is not a strop artifact: it holds 'thesis.txt'" in result.err
    assert sorted(p.name for p in out.iterdir()) == ["thesis.txt"]
    assert strop("build", small, "-o", out, "--force").code == 0
    assert (out / "thesis.txt").read_text() == "years of work"
    assert read_artifact(out).damaged() == []
    assert leftovers(out.parent) == []


def test_the_working_folder_is_never_replaced(
    strop: Strop, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    for out in (".", ".."):
        result = strop("build", small, "-o", out, "--force")
        assert result.code == 2
        assert "is the working folder or holds it" in result.err


def test_a_place_that_cannot_be_written_is_refused(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    result = strop("build", small, "-o", tmp_path / "file" / "out")
    assert result.code == 2
    assert f"cannot be written: {tmp_path / 'file'} is not a folder" in result.err


def test_a_bug_in_strop_is_one_sentence_and_exit_code_1(
    strop: Strop, small: str, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from strop.passes.cleanup.cse import CommonSubexpressions

    monkeypatch.setattr(CommonSubexpressions, "apply", lambda self, program, log: [][0])
    result = strop("build", small, "-o", out)
    assert result.code == 1
    for words in ("a bug in strop, while pass 'cse' ran: IndexError", "report it", "debug replay"):
        assert words in result.err
    assert [p.name for p in out.parent.iterdir()] == [f"{out.name}.crash"]
    monkeypatch.setenv("STROP_TRACEBACK", "1")
    with pytest.raises(IndexError):
        strop("build", small, "-o", out)


def test_the_small_model_itself_is_fine(strop: Strop, write: Write, out: Path) -> None:
    """Else the tests above could pass for the wrong reason."""
    assert strop("build", write(SMALL), "-o", out).code == 0
    assert strop("build", write(dedent(LINEAR) + "make = model"), "-o", out).code == 0
