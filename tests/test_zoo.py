"""Every model of the zoo is built, and its file agrees with the original module."""

from __future__ import annotations

from pathlib import Path

import pytest
from zoo_families import one_of_each_family

from strop.bench.models.zoo import ZOO, attention_found
from strop.bench.pages.markers import replace_between
from strop.bench.sweeps.zoo.rows import ZooRow, table
from strop.compiler import Model, build

TOLERANCE = 1e-4
# One of each kind at fixed sizes; the rest are held to that by `make test-all`.
STATIC_ALWAYS = ("bert", "llama", "textbook", "resnet")


def check(model: Model, out: Path, attention: int) -> None:
    manifest = build(model, out=out, recipe="cpu-fp32").manifest
    worst = max(manifest["checks"], key=lambda c: c["max_error"])
    assert worst["max_error"] <= TOLERANCE, worst
    misses = [m for p in manifest["passes"] if p["name"] == "attention" for m in p["misses"]]
    assert attention_found(manifest) == attention, misses


@pytest.mark.parametrize("name", one_of_each_family())
def test_dynamic(name: str, tmp_path: Path) -> None:
    check(ZOO[name].make(), tmp_path / "out", ZOO[name].attention)


@pytest.mark.parametrize(
    "name",
    [n if n in STATIC_ALWAYS else pytest.param(n, marks=pytest.mark.slow) for n in ZOO],
)
def test_static(name: str, tmp_path: Path) -> None:
    check(ZOO[name].static(), tmp_path / "out", ZOO[name].attention)


def test_table_has_a_row_for_each_model_and_the_reason_of_a_refusal() -> None:
    rows = [
        ZooRow("good", 20, 12, 2, 2, 3.14e-7, None),
        ZooRow("bad", None, None, None, 4, None, "no lowering for 1 operator calls:"),
    ]
    lines = table(rows).markdown().splitlines()[2:]
    assert lines == [
        "| good | 20 | 12 | 2 / 2 | 3.1e-07 |",
        "| bad | – | – | – / 4 | no lowering for 1 operator calls: |",
    ]


def test_only_what_stands_between_the_markers_is_replaced() -> None:
    text = "a\n<!-- zoo:begin -->\nold\n<!-- zoo:end -->\nb\n"
    new = replace_between(text, "zoo", "| x |")
    assert new == "a\n<!-- zoo:begin -->\n| x |\n<!-- zoo:end -->\nb\n"
    with pytest.raises(ValueError, match="zoo:begin"):
        replace_between("nothing", "zoo", "")
