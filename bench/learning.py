"""What a pass that trains costs the second time: another build, and a bisection.

``python -m strop.bench.learning [--seconds 60]`` builds a model with a pass that trains for a
minute, builds it again with another pass behind it, and bisects the same recipe. Each runs in a
process of its own, as it does for users.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from textwrap import dedent
from typing import Annotated

import typer

from strop.bench.figures import RESULTS, Figure, console, save, show
from strop.bench.launch import run_strop
from strop.bench.machine import environment

SOURCE = dedent("""
    import time
    from dataclasses import dataclass, replace
    from pathlib import Path

    import torch
    from torch.nn.functional import mse_loss

    from strop.compiler import Learned, LearningPass, Model

    SECONDS = {seconds}
    torch.manual_seed(0)
    BATCHES = [{{"input": torch.randn(64, 32)}} for _ in range(8)]

    @dataclass(frozen=True)
    class Train(LearningPass):
        name = "train"
        needs = ("train",)

        def learn(self, program, context):
            begun = time.perf_counter()
            weights = {{n: w.detach().clone().requires_grad_() for n, w in program.weights.items()}}
            student = replace(program, weights=weights)
            optimizer = torch.optim.SGD(weights.values(), lr=1e-7)
            while time.perf_counter() - begun < SECONDS:
                for batch in context.train:
                    (wanted,) = context.teacher.run(**batch)
                    (got,) = student.run(**batch)
                    optimizer.zero_grad()
                    mse_loss(got, wanted.detach() + 0.01).backward()
                    optimizer.step()
            with Path(__file__).with_name("spent.txt").open("a") as file:
                file.write(f"{{time.perf_counter() - begun}}\\n")
            return Learned(weights)

    def make():
        torch.manual_seed(1)
        layers = [torch.nn.Linear(32, 64), torch.nn.GELU(), torch.nn.Linear(64, 8)]
        return Model(torch.nn.Sequential(*layers).eval(), (BATCHES[0]["input"],),
                     dynamic={{"input": {{0: ("rows", 1, 64)}}}}, train=BATCHES)
""")


def run(folder: Path, *arguments: str) -> float:
    """Run the command line; returns the seconds that it took."""
    begun = time.perf_counter()
    run_strop(folder, *arguments, STROP_CACHE=str(folder / "cache"))
    return time.perf_counter() - begun


def spent(folder: Path) -> list[float]:
    """Seconds of every time that the pass trained."""
    return [float(line) for line in (folder / "spent.txt").read_text().split()]


def main(
    seconds: Annotated[float, typer.Option(help="How long the pass trains.")] = 60.0,
    results: Annotated[Path, typer.Option(help="Folder for the JSON.")] = RESULTS,
) -> None:
    """Build, build again with a changed later pass, and bisect."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "model.py").write_text(SOURCE.format(seconds=seconds))
        own = ("--pass", "model.py:Train", "--before", "norms")
        with console.status("the first build, which trains"):
            first = run(folder, "build", "model.py:make", "-o", "a", *own)
        trained = sum(spent(folder))
        with console.status("the second build, by a recipe with a changed later pass"):
            later = ("--recipe", "cpu-int8")
            second = run(folder, "build", "model.py:make", "-o", "b", *later, *own)
        with console.status("a bisection over the same recipe"):
            asked = ("--metric", "max_abs", "--max", "1e-12")
            bisection = run(folder, "debug", "bisect", "model.py:make", *own, *asked)
        again = sum(spent(folder)) - trained
    figures = [
        Figure("seconds of training in the first build", round(trained, 1)),
        Figure("seconds of training that a second build and a bisection add", round(again, 1),
               at_most=5),
    ]  # fmt: skip
    show(figures, f"builds took {first:.1f} and {second:.1f} s, the bisection {bisection:.1f} s")
    took = {"first": first, "second": second, "bisection": bisection}
    save("learning", environment(), figures, took, results)


if __name__ == "__main__":
    typer.run(main)
