"""English text that is on every machine: docstrings of the standard library and of packages."""

from __future__ import annotations

import ast
import hashlib
import re
import sysconfig
import warnings
from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from typing import Literal

Part = Literal["train", "validation", "test"]
# Packages that strop itself needs.
PACKAGES = ("torch", "numpy", "sympy")
# Of a hundred sentences, the first so many are tested on, the next validate, the others train.
_TEST, _VALIDATION = 10, 20
_CODE_OF_OTHERS = {"site-packages", "test", "tests", "idlelib"}
_SENTENCE_END = re.compile(r"(?<=[.!?]) (?=[A-Z])")
STDLIB = Path(sysconfig.get_paths()["stdlib"])


@cache
def prose(part: Part, packages: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Sentences of 30 to 250 characters, each once; a sentence is in the same part everywhere.

    Args:
        part: which of them.
        packages: whose docstrings to take beside those of the standard library.
    """
    found = dict.fromkeys(sentence for run in _runs(packages) for sentence in run)
    return tuple(sentence for sentence in found if part_of(sentence) == part)


@cache
def passages(part: Part, packages: tuple[str, ...] = ()) -> tuple[tuple[str, ...], ...]:
    """Two and more sentences that follow each other, each passage once.

    A passage is in the part of its first sentence. No sentence of one that validates or is tested
    on is in one that trains.

    Args:
        part: which of them.
        packages: whose docstrings to take beside those of the standard library.
    """
    whole = dict.fromkeys(run for run in _runs(packages) if len(run) > 1)
    found = tuple(run for run in whole if part_of(run[0]) == part)
    if part == "train":
        return found
    known = {sentence for run in passages("train", packages) for sentence in run}
    return tuple(run for run in found if known.isdisjoint(run))


@cache
def _runs(packages: tuple[str, ...]) -> tuple[tuple[str, ...], ...]:
    """Sentences of a paragraph that follow each other, in the order of the files."""
    roots = [STDLIB, *map(_folder, packages)]
    texts = (text for root in roots for text in _docstrings(root))
    return tuple(run for text in texts for run in _sentences(text))


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is not installed"
    return Path(spec.origin).parent


def _docstrings(root: Path) -> Iterator[str]:
    for _, tree in trees(root):
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield ast.get_docstring(node) or ""


def trees(root: Path) -> Iterator[tuple[Path, ast.Module]]:
    """Every module under a folder that is no test: its file, and its syntax tree."""
    for path in sorted(root.rglob("*.py")):
        if _CODE_OF_OTHERS & set(path.relative_to(root).parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                yield path, ast.parse(path.read_text(errors="replace"))
        except (SyntaxError, ValueError):  # some files of lib2to3 are for Python 2
            continue


def first_sentence(paragraph: str) -> str:
    """The sentence that a paragraph in one line begins with; "" where it begins with none."""
    first = _SENTENCE_END.split(paragraph, maxsplit=1)[0]
    return first if re.fullmatch(r"[A-Z][\w ,;:'\"()/-]{8,118}[.!?]?", first) else ""


def _sentences(text: str) -> Iterator[tuple[str, ...]]:
    """Runs of whole sentences; what is no sentence, such as code, ends one."""
    for paragraph in re.split(r"\n\s*\n", re.sub(r"[*`_|]+", "", text)):
        pieces = _SENTENCE_END.split(" ".join(paragraph.split()))
        for whole, run in groupby(pieces, _is_sentence):
            if whole:
                yield tuple(run)


def _is_sentence(piece: str) -> bool:
    return re.fullmatch(r"[A-Z][\w ,;:'\"()/-]{28,248}[.!?]", piece) is not None


def part_of(text: str) -> Part:
    """The part that a sentence, or whatever has a name, is in: by its hash, the same everywhere."""
    number = hashlib.sha256(text.encode()).digest()[0] * 100 // 256
    return "test" if number < _TEST else "validation" if number < _VALIDATION else "train"
