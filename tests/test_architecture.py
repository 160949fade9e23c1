"""What the project's files promise about each other; who imports whom is `make layers`."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ("bench", "compiler", "kernels", "passes")


def modules() -> list[Path]:
    return [p for room in ROOMS for p in sorted((ROOT / room).rglob("*.py"))]


def dotted(path: Path) -> str:
    parts = ("strop", *path.relative_to(ROOT).with_suffix("").parts)
    return ".".join(p for p in parts if p != "__init__")


def used(path: Path) -> set[str]:
    """Every dotted name that a module imports or reads, as far as it is written out."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Attribute):
            names.add(ast.unparse(node))
    return names


def users_of(name: str) -> set[str]:
    return {
        dotted(path)
        for path in modules()
        if any(n == name or n.startswith(f"{name}.") for n in used(path))
    }


def test_the_package_list_equals_the_tree() -> None:
    found = {dotted(p.parent / "__init__.py") for p in modules() if p.name == "__init__.py"}
    folders = {dotted(p.parent / "__init__.py") for p in modules()}
    assert set(PYPROJECT["tool"]["setuptools"]["packages"]) == found == folders


def test_every_data_file_is_packaged() -> None:
    data = PYPROJECT["tool"]["setuptools"]["package-data"]
    for room in ROOMS:
        packaged = {p for pattern in data[f"strop.{room}"] for p in (ROOT / room).glob(pattern)}
        present = {
            p for p in (ROOT / room).rglob("*") if p.is_file() and p.suffix not in (".py", ".pyc")
        }
        assert packaged == present


def test_the_compiler_has_few_rooms() -> None:
    present = {p.name for p in (ROOT / "compiler").iterdir()} - {"__pycache__"}
    assert len(present) <= 16
    assert len(PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]) <= 16


def test_every_module_stands_on_a_floor() -> None:
    """The layering check says nothing about a module that it does not know."""
    floors = PYPROJECT["tool"]["importlinter"]["contracts"][0]["layers"]
    rooms = [room for floor in floors for room in re.split(r" [|:] ", floor)]
    for name in map(dotted, modules()):
        if name != "strop.compiler":
            assert any(name == room or name.startswith(f"{room}.") for room in rooms), name


@pytest.mark.parametrize(
    ("name", "rooms"),
    [
        (
            "torch.export",
            ("strop.compiler.frontend.export.capture", "strop.compiler.lower.", "strop.bench."),
        ),
        ("torch.onnx", ("strop.compiler.lower.", "strop.bench.")),
        ("onnx_ir", ("strop.compiler.lower.", "strop.bench.")),
        (
            "onnx",
            ("strop.compiler.targets.onnxruntime.", "strop.compiler.lower.", "strop.bench."),
        ),
        (
            "onnxruntime",
            ("strop.compiler.targets.onnxruntime.", "strop.compiler.lower.", "strop.bench."),
        ),
        ("transformers", ("strop.compiler.frontend.huggingface", "strop.bench.")),
    ],
)
def test_a_library_is_used_in_its_own_rooms_only(name: str, rooms: tuple[str, ...]) -> None:
    users = users_of(name)
    assert users, f"nothing uses {name} any more"
    assert {u for u in users if not u.startswith(rooms)} == set()


def test_nothing_of_ours_unpickles() -> None:
    for name in ("pickle", "torch.load", "torch.export.load", "joblib", "dill"):
        assert users_of(name) == set()


def test_every_dependency_is_pinned_for_ci() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = {line.partition("==")[0].lower().replace("_", "-") for line in lines if "==" in line}
    extras = PYPROJECT["project"]["optional-dependencies"].values()
    wanted = [*PYPROJECT["project"]["dependencies"], *(d for extra in extras for d in extra)]
    names = {re.split(r"[\[<>=;~ ]", requirement)[0].lower() for requirement in wanted}
    # The plain packages stand in where there is no wheel of those with CUDA.
    assert names - {"strop", "onnxruntime", "onnxruntime-genai"} <= pinned
    assert "torch==2.13.0" in lines


def test_ci_runs_the_same_test_command_as_people_do() -> None:
    makefile = (ROOT / "Makefile").read_text()
    assert re.search(r"^check: .*\btest\b", makefile, re.MULTILINE)
    assert "make check" in (ROOT / ".ci" / "run").read_text()
