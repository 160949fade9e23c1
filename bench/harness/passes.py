"""Programs behind the passes of a recipe, without a build around them."""

from __future__ import annotations

import torch

from strop.compiler import Model
from strop.compiler.frontend.export.capture import capture
from strop.compiler.frontend.inputs import Signature, read_inputs
from strop.compiler.ir.program import Program
from strop.compiler.ir.running import Inputs
from strop.compiler.recipes.recipe import Recipe
from strop.compiler.rewriting.context import Context
from strop.compiler.rewriting.passes import Pipeline
from strop.compiler.targets.target import get_target


def captured(model: Model) -> tuple[Program, Signature, Inputs]:
    """The program of a model before all passes, how it is called, and its example."""
    signature, example, _ = read_inputs(model)
    with torch.no_grad():
        return capture(model.module, signature, example), signature, example


def behind(program: Program, recipe: Recipe, without: str = "") -> Program:
    """A captured program behind the passes of a recipe, but the step of a name."""
    pipeline = recipe.pipeline().within(Context(target=get_target(recipe.target)))
    kept = tuple(step for step in pipeline.steps if step.name != without)
    return Pipeline(kept).taught_by(program).run(program)
