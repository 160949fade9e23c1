"""The files whose conditions must be needed by a test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    # rewrites
    "passes/**/*.py",
    # the lowering's rules
    "compiler/lower/onnx/rules/**/*.py",
    "compiler/lower/onnx/emitter.py",
    "compiler/lower/onnx/sizes.py",
    # the check
    "compiler/check.py",
    "compiler/check/**/*.py",
    "compiler/numerics.py",
    "compiler/holds.py",
    # staging
    "compiler/staging.py",
    "compiler/staging/**/*.py",
    "compiler/holdings.py",
    "compiler/publish.py",
    "compiler/artifact.py",
    "compiler/artifact/**/*.py",
    # readers of what comes from outside
    "compiler/reading.py",
    "compiler/parsing.py",
    "compiler/snapshot.py",
    "compiler/bundle.py",
    "compiler/recipe.py",
    "bench/record.py",
)


def target_files(root: Path = ROOT, only: str = "") -> list[str]:
    """Paths within the checkout, sorted; ``only`` keeps those that contain it."""
    found = {path.relative_to(root).as_posix() for p in PATTERNS for path in root.glob(p)}
    return sorted(name for name in found if only in name)


def module_name(file: str) -> str:
    """The import name of a file of the checkout: ``passes/__init__.py`` is ``strop.passes``."""
    parts = ("strop", *Path(file).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")
