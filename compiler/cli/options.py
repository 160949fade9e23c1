"""Options that more than one command has, and the long ones of ``strop build``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

# Shared by `strop build` and `strop debug`.
RecipeName = Annotated[str, typer.Option("--recipe", help="A built-in recipe or a TOML file.")]
Passes = Annotated[
    list[str], typer.Option("--pass", help="name{option=value}, FILE.py:Class{...}; repeatable.")
]
Settings = Annotated[
    list[str], typer.Option("--set", help="ID.option=value or budget.key=value; repeatable.")
]
Before = Annotated[str, typer.Option(help="Put --pass before the step of this id.")]
After = Annotated[str, typer.Option(help="Put --pass after the step of this id.")]

Program = Annotated[
    str, typer.Option("--program", help="Which one, where there are several: encoder, decoder.")
]

Target = Annotated[str, typer.Option(help="Where it will run; the recipe's by default.")]
Out = Annotated[Path | None, typer.Option("-o", "--out", help="Folder to write.")]
StopAfter = Annotated[str, typer.Option(help="Print the IR after the step of this id and stop.")]
DumpIr = Annotated[
    Path | None, typer.Option(file_okay=False, help="Folder for the IR after each pass.")
]
Expect = Annotated[
    list[str], typer.Option(help="NAME=COUNT: rewrites that a pass or rule must make; else exit 3.")
]
Instruments = Annotated[
    Literal["off", "cheap", "full"], typer.Option(help="What to measure after every pass.")
]
Check = Annotated[
    Literal["bounded", "full"],
    typer.Option(help="Sizes to check at: as many as take seconds, or all corners."),
]
PrintRecipe = Annotated[bool, typer.Option(help="Print the recipe as TOML, with all settings.")]
Force = Annotated[
    bool, typer.Option(help="Write into a folder that is not an artifact, and keep its files.")
]
Tune = Annotated[bool, typer.Option(help="Measure on this machine which ONNX nodes are fastest.")]
