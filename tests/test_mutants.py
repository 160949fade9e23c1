"""The mutation tester itself, on a module whose mutants are known."""

from __future__ import annotations

import ast
import os
import time
from functools import partial
from pathlib import Path
from textwrap import dedent

import pytest
from cosmic_ray.mutating import mutate_code

from strop.bench.mutants.__main__ import nearest, outcome
from strop.bench.mutants.equivalent import Equivalent, read_equivalent
from strop.bench.mutants.index import Index, read_index
from strop.bench.mutants.operators import FROM_THE_LIBRARY, DropOperand, FixCondition, operators
from strop.bench.mutants.population import Mutant, draw, places
from strop.bench.mutants.report import MutantOutcome, figure, survivor
from strop.bench.mutants.spans import function_at, statement_span
from strop.bench.mutants.targets import PATTERNS, ROOT, TABLES, module_name, target_files
from strop.bench.mutants.trace import LineTrace, Traced, digest
from strop.bench.mutants.trial import try_mutant
from strop.bench.processes.forks import ForkedCall, forked

TOY = '''from dataclasses import dataclass
LIMIT = 3


def clamp(value: int | None, low: int) -> int:
    """No mutant changes this line, nor the annotations."""
    if value is None or value < low:
        return low
    return value


def count(limit: int) -> int:
    total = 0
    while total < limit:
        total += 1
    return total


def untested(value: int) -> int:
    return value + 1


@dataclass(frozen=True)
class Guarded:
    value: int | None
'''
TOY_TESTS = """
from strop.toy import LIMIT, clamp, count

def test_clamp():
    assert clamp(None, 2) == 2 and clamp(1, 2) == 2 and clamp(3, 2) == 3

def test_count():
    assert count(LIMIT) == LIMIT
"""
CONFTEST = """
import strop
from pathlib import Path

strop.__path__.append(str(Path(__file__).parent.parent))
"""


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A checkout with one module, imported as ``strop.toy``, and its tests."""
    (tmp_path / "tests").mkdir()
    (tmp_path / "toy.py").write_text(TOY)
    (tmp_path / "tests" / "test_toy.py").write_text(TOY_TESTS)
    (tmp_path / "tests" / "conftest.py").write_text(CONFTEST)
    return tmp_path


def drawn(root: Path, seed: int = 0, equivalent: list[Equivalent] | None = None) -> list[Mutant]:
    return list(draw(["toy.py"], seed, equivalent or [], root))


def test_own_operators_do_what_their_examples_say() -> None:
    for operator in (DropOperand, FixCondition):
        for example in operator.examples():
            made = mutate_code(example.pre_mutation_code, operator(), example.occurrence)
            assert made == example.post_mutation_code


def test_dropping_an_operand_leaves_the_others_in_place() -> None:
    code = "if a and (b or c) and not d:\n    pass\n"
    found = [mutate_code(code, DropOperand(), i) for i in range(5)]
    assert found == [
        "if (b or c) and not d:\n    pass\n",
        "if a and not d:\n    pass\n",
        "if a and (b or c):\n    pass\n",
        "if a and (c) and not d:\n    pass\n",
        "if a and (b) and not d:\n    pass\n",
    ]


def test_every_operator_of_the_library_that_is_named_exists() -> None:
    assert len(operators()) == len(FROM_THE_LIBRARY) + 2


def test_a_place_is_drawn_once_and_only_where_something_runs(toy: Path) -> None:
    found = drawn(toy)
    assert len({(m.line, m.operator, m.after) for m in found}) == len(found)
    assert "int | None" in TOY
    assert not any("def clamp" in m.before or "annotations" in m.before for m in found)
    assert [m.operator for m in found if "frozen" in m.before] == ["RemoveDecorator"]
    assert {m.before for m in found} >= {"LIMIT = 3", "return value + 1", "total += 1"}
    for mutant in found:
        assert TOY.splitlines()[mutant.line - 1].strip() in mutant.before
        assert mutant.after.partition(" class ")[0] in mutant.source


def test_a_seed_gives_the_same_mutants_and_another_gives_others(toy: Path) -> None:
    first, again, other = drawn(toy), drawn(toy), drawn(toy, seed=1)
    assert first == again != other


def test_mutants_stay_the_same_while_other_lines_change(toy: Path) -> None:
    before = [(m.before, m.after) for m in drawn(toy)]
    (toy / "toy.py").write_text("NAME = ''\n" + TOY)
    assert [(m.before, m.after) for m in drawn(toy)] == before


def test_mutants_that_are_listed_as_equivalent_are_not_drawn(toy: Path) -> None:
    first = drawn(toy)[0]
    known = [Equivalent("toy.py", first.before, first.after, "a reason")]
    assert drawn(toy, equivalent=known) == drawn(toy)[1:]


def test_lines_belong_to_statements_and_functions() -> None:
    source = dedent("""
        @wrapped
        def outer(a,
                  b):
            def inner():
                return [
                    a,
                    b,
                ]
            return inner
    """)
    tree = ast.parse(source)
    assert statement_span(tree, 2) == statement_span(tree, 4) == (2, 4)
    assert statement_span(tree, 7) == (6, 9)
    assert statement_span(tree, 1) == (1, 1)
    assert function_at(tree, 7) == "outer.inner"
    assert function_at(tree, 10) == function_at(tree, 2) == "outer"
    assert function_at(tree, 1) is None


def toy_index(root: Path, source: str = TOY) -> Index:
    """A trace by hand of three tests, the second the fastest."""
    lines = {"7": [0, 1], "8": [1], "9": [0], "13": [2], "14": [2]}
    traced = Traced(digest(source), {"clamp": (5, 9), "count": (12, 16)}, lines)
    tests = [("t::slow", 2.0), ("t::fast", 0.1), ("t::count", 1.0)]
    return Index([LineTrace("", tests, {"toy.py": traced})], root)


def names(index: Index, line: int) -> list[str]:
    return [name for name, _ in index.tests_for("toy.py", line)]


def test_a_line_is_tried_with_the_tests_that_execute_it_the_fastest_first(toy: Path) -> None:
    index = toy_index(toy)
    assert names(index, 7) == ["t::fast", "t::slow"]
    assert names(index, 9) == ["t::slow"]
    assert names(index, 20) == []


def test_a_line_that_runs_on_import_is_tried_with_all_tests_of_its_file(toy: Path) -> None:
    assert names(toy_index(toy), 2) == ["t::fast", "t::count", "t::slow"]


def test_the_test_that_imported_the_file_first_is_not_the_only_one_of_such_a_line(
    toy: Path,
) -> None:
    index = toy_index(toy)
    index.traces[0].sources["toy.py"].lines.update({"2": [1], "5": [1]})
    assert names(index, 2) == ["t::fast", "t::count", "t::slow"]
    assert names(index, 5) == ["t::fast", "t::slow"]


def test_a_function_that_its_file_calls_on_import_is_tried_with_all_tests_of_the_file(
    toy: Path,
) -> None:
    source = toy / "toy.py"
    source.write_text(f"{source.read_text()}\n\ndef made():\n    return 1\n\n\nMADE = made()\n")
    line = source.read_text().splitlines().index("    return 1") + 1
    index = toy_index(toy)
    index.traces[0].sources["toy.py"].lines.update({str(line): [1]})
    assert names(index, line) == ["t::fast", "t::count", "t::slow"]


def test_lines_of_a_changed_file_are_looked_up_by_function(toy: Path) -> None:
    index = toy_index(toy, source="something older")
    assert names(index, 9) == ["t::fast", "t::slow"]
    assert names(index, 15) == ["t::count"]


def test_a_budget_keeps_the_fastest_tests_and_always_one(toy: Path) -> None:
    mutant = Mutant("toy.py", 7, "", "", "", "")
    index = toy_index(toy)
    assert [n for n, _ in nearest(index, mutant, 10.0)] == ["t::fast", "t::slow"]
    assert [n for n, _ in nearest(index, mutant, 1.0)] == ["t::fast"]
    assert [n for n, _ in nearest(index, mutant, 0.0)] == ["t::fast"]


def _crash() -> None:
    os.kill(os.getpid(), 9)


def _spin() -> None:
    while True:
        pass


def test_copies_of_the_process_return_raise_crash_or_run_out_of_time() -> None:
    calls = [
        ForkedCall(partial(int, "7"), 20.0, "a number"),
        ForkedCall(partial(int, "seven"), 20.0, "no number"),
        ForkedCall(_crash, 20.0, "a crash"),
        ForkedCall(partial(time.sleep, 60), 0.1, "a long sleep"),
        ForkedCall(_spin, 0.5, "an endless loop"),
    ]
    found = {ended.about: ended for ended in forked(calls, 2)}
    assert {about: ended.how for about, ended in found.items()} == {
        "a number": "returned",
        "no number": "raised",
        "a crash": "crashed",
        "a long sleep": "timeout",
        "an endless loop": "timeout",
    }
    assert found["a number"].value == 7
    assert "ValueError" in found["no number"].value
    fates = [outcome(found[about]).fate for about in ("a crash", "a long sleep", "no number")]
    assert fates == ["killed", "timeout", "not tried"]


CASES = {
    ("if value is None or value < low:", "if value is None:"): "test_clamp",
    ("if value is None or value < low:", "if value is None or value <= low:"): "",
    ("total += 1", "total += 0"): "timeout",
    ("LIMIT = 3", "LIMIT = 4"): "",
}


@pytest.mark.slow
def test_known_mutants_of_a_module_meet_the_fate_they_should(toy: Path) -> None:
    index = read_index(["tests/test_toy.py"], ["toy.py"], toy / "kept", 1, toy)
    every = {(m.before, m.after): m for seed in range(20) for m in drawn(toy, seed)}
    calls = []
    for change in CASES:
        # A replaced word has a second space before it.
        mutant = {(a, " ".join(b.split())): m for (a, b), m in every.items()}[change]
        tests = [name for name, _ in index.tests_for("toy.py", mutant.line)]
        limit = 3.0 if CASES[change] == "timeout" else 60.0
        calls.append(ForkedCall(partial(try_mutant, mutant, tests, toy), limit, change))
    for ended in forked(calls, 1):
        fate = ended.value if ended.how == "returned" else ended.how
        assert fate.rpartition("::")[2] == CASES[ended.about]
    assert (toy / "toy.py").read_text() == TOY


def test_a_trace_is_kept_until_its_tests_change(toy: Path) -> None:
    arguments = (["tests/test_toy.py"], ["toy.py"], toy / "kept", 1, toy)
    read_index(*arguments)
    place = toy / "kept" / "test_toy.json"
    made = place.stat().st_mtime_ns
    read_index(*arguments)
    assert place.stat().st_mtime_ns == made
    with (toy / "tests" / "test_toy.py").open("a") as tests:
        tests.write("\ndef test_third():\n    assert clamp(2, 2) == 2\n")
    index = read_index(*arguments)
    assert any(name.endswith("test_third") for name, _ in index.tests_for("toy.py", 7))


def test_tests_that_cannot_be_traced_are_named_and_left_out(
    toy: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (toy / "tests" / "test_crash.py").write_text("import os\n\nos._exit(3)\n")
    tests = ["tests/test_crash.py", "tests/test_toy.py"]
    index = read_index(tests, ["toy.py"], toy / "kept", 1, toy)
    assert len(index.traces) == 1
    assert "tests/test_crash.py was not traced: crashed" in capsys.readouterr().err


def test_the_figure_counts_survivors_and_what_no_test_executes() -> None:
    mutant = Mutant("toy.py", 2, "NumberReplacer", "LIMIT = 3", "LIMIT = 4", "")
    fates = ["killed", "timeout", "survived", "no test"]
    outcomes = [MutantOutcome(mutant, fate, "", 1.0) for fate in fates]
    assert figure(outcomes).value == 0.5 and not figure(outcomes).hit
    assert survivor(outcomes[2]).splitlines() == [
        "survived: toy.py:2 NumberReplacer",
        "  - LIMIT = 3",
        "  + LIMIT = 4",
    ]


def test_every_equivalent_mutant_still_has_its_line_and_a_reason() -> None:
    for entry in read_equivalent():
        lines = {line.strip() for line in (ROOT / entry.file).read_text().splitlines()}
        assert entry.before in lines, f"{entry.file} has no line '{entry.before}' any more"
        assert entry.file in target_files() and len(entry.why.split()) > 3


def test_the_targets_are_modules_of_this_checkout() -> None:
    files = target_files()
    assert len(files) > 30 and all((ROOT / file).is_file() for file in files)
    assert module_name("passes/__init__.py") == "strop.passes"
    assert module_name("compiler/check/comparison.py") == "strop.compiler.check.comparison"
    assert places(target_files(only="compiler/check/limits")[0])


def test_tables_without_a_condition_are_not_mutated() -> None:
    for name in TABLES:
        tree = ast.parse((ROOT / name).read_text())
        assert not [n for n in ast.walk(tree) if isinstance(n, (ast.FunctionDef, ast.If))]
        assert name not in target_files()


@pytest.mark.parametrize("pattern", PATTERNS)
def test_every_target_names_a_file(pattern: str) -> None:
    assert list(ROOT.glob(pattern))
