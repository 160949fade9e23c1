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
from pathlib import Path
from typing import Literal

Part = Literal["train", "validation", "test"]
# Packages that strop itself needs.
PACKAGES = ("torch", "numpy", "sympy")
# Of a hundred sentences, the first so many are tested on, the next validate, the others train.
_TEST, _VALIDATION = 10, 20
_CODE_OF_OTHERS = {"site-packages", "test", "tests", "idlelib"}


@cache
def prose(part: Part, packages: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Sentences of 30 to 250 characters, each once; a sentence is in the same part everywhere.

    Args:
        part: which of them.
        packages: whose docstrings to take beside those of the standard library.
    """
    roots = [Path(sysconfig.get_paths()["stdlib"]), *map(_folder, packages)]
    texts = (text for root in roots for text in _docstrings(root))
    found = dict.fromkeys(sentence for text in texts for sentence in _sentences(text))
    return tuple(sentence for sentence in found if _part(sentence) == part)


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None, f"{package} is not installed"
    return Path(spec.origin).parent


def _docstrings(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        if _CODE_OF_OTHERS & set(path.relative_to(root).parts):
            continue
        try:
            with warnings.catch_warnings(action="ignore"):
                tree = ast.parse(path.read_text(errors="replace"))
        except (SyntaxError, ValueError):  # some files of lib2to3 are for Python 2
            continue
        for node in ast.walk(tree):
            if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
                yield ast.get_docstring(node) or ""


def _sentences(text: str) -> Iterator[str]:
    for paragraph in re.split(r"\n\s*\n", re.sub(r"[*`_|]+", "", text)):
        for sentence in re.split(r"(?<=[.!?]) (?=[A-Z])", " ".join(paragraph.split())):
            if re.fullmatch(r"[A-Z][\w ,;:'\"()/-]{28,248}[.!?]", sentence):
                yield sentence


def _part(sentence: str) -> Part:
    number = hashlib.sha256(sentence.encode()).digest()[0] * 100 // 256
    return "test" if number < _TEST else "validation" if number < _VALIDATION else "train"
