"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

from strop.compiler import Model, build
from strop.compiler.recipes.loading import load_recipe
from strop.compiler.recipes.registry import make_pass

README = (Path(__file__).parent.parent / "README.md").read_text()


class HardSwish(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * F.relu6(x + 3) / 6


def test_the_rule_in_the_readme_is_exact_within_the_default_budget(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", README, re.DOTALL)
    file = tmp_path / "hard_swish.py"
    file.write_text(code)
    assert len(code.splitlines()) <= 22
    model = Model(HardSwish().eval(), (torch.linspace(-5, 5, 41),))
    recipe = load_recipe("cpu-fp32").insert(f"{file}:HardSwish", before="bias-gelu")
    artifact = build(model, tmp_path / "out", recipe)
    counted = {rule: n for r in artifact.manifest["passes"] for rule, n in r["rewrites"].items()}
    assert counted["hard-swish"] == 1
    assert max(check["max_error"] for check in artifact.manifest["checks"]) < 1e-6


def test_every_recipe_and_pass_the_readme_names_exists() -> None:
    for name in set(re.findall(r"--recipe (\S+)", README)):
        load_recipe(name)
    for name in set(re.findall(r"(?:strop passes|--stop-after|--before) (\S+)", README)):
        make_pass(name, {})
