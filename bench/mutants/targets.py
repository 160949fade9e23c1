"""The files whose conditions must be needed by a test."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATTERNS = (
    # rewrites
    "passes/**/*.py",
    # the lowering's rules, the formulas that stand for operators without one, and what they share
    "compiler/lower/onnx/rules/**/*.py",
    "compiler/lower/onnx/formulas/**/*.py",
    "compiler/lower/onnx/emitter.py",
    "compiler/lower/onnx/lowering.py",
    "compiler/lower/onnx/positions.py",
    "compiler/lower/onnx/products.py",
    "compiler/lower/onnx/promotion.py",
    "compiler/lower/onnx/sizes.py",
    # the check
    "compiler/check/*.py",
    "compiler/driver/departure.py",
    "compiler/driver/metric_blame.py",
    "compiler/frontend/cases.py",
    "compiler/frontend/original.py",
    "compiler/targets/runtime.py",
    "compiler/util/numerics.py",
    # staging
    "compiler/artifact/folder.py",
    "compiler/artifact/output.py",
    # readers of what comes from outside, and writers of what is strop's own
    "bench/records/record.py",
    "compiler/driver/bundle.py",
    "compiler/ir/snapshots/*.py",
    "compiler/recipes/*.py",
    "compiler/util/files/*.py",
)

# Published coefficients, without a condition: which tests need one cannot be told by its line.
TABLES = {"compiler/lower/onnx/formulas/cephes.py"}


def target_files(root: Path = ROOT, only: str = "") -> list[str]:
    """Paths within the checkout, sorted; ``only`` keeps those that contain it."""
    found = {path.relative_to(root).as_posix() for p in PATTERNS for path in root.glob(p)}
    return sorted(name for name in found - TABLES if only in name)


def module_name(file: str) -> str:
    """The import name of a file of the checkout: ``passes/__init__.py`` is ``strop.passes``."""
    parts = ("strop", *Path(file).with_suffix("").parts)
    return ".".join(part for part in parts if part != "__init__")
