"""What the README shows runs as it stands there."""

from __future__ import annotations

import re
from pathlib import Path

import torch
from torch import nn

from strop.compiler import Model, build
from strop.compiler.recipes.recipe import load_recipe
from strop.compiler.recipes.registry import make_pass

README = (Path(__file__).parent.parent / "README.md").read_text()


class QuickGelu(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * torch.sigmoid(1.702 * x)


def test_the_pass_in_the_readme_is_found_and_rewrites(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(import torch\n.*?)```", README, re.DOTALL)
    file = tmp_path / "quick_gelu.py"
    file.write_text(code)
    assert len(code.splitlines()) <= 22
    model = Model(QuickGelu().eval(), (torch.linspace(-3, 3, 7),))
    recipe = load_recipe("cpu-fp32").insert(f"{file}:QuickGelu", before="bias-gelu")
    recipe.budget.max_error = 0.05
    artifact = build(model, tmp_path / "out", recipe)
    counted = {rule: n for r in artifact.manifest["passes"] for rule, n in r["rewrites"].items()}
    assert counted["quick-gelu"] == 1


def test_every_recipe_and_pass_the_readme_names_exists() -> None:
    for name in set(re.findall(r"--recipe (\S+)", README)):
        load_recipe(name)
    for name in set(re.findall(r"(?:strop passes|--stop-after|--before) (\S+)", README)):
        make_pass(name, {})
