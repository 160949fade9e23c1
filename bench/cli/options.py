"""The options of ``strop bench``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Words = Annotated[list[str] | None, typer.Argument(metavar="OUT", help="An artifact folder.")]
Source = Annotated[
    str, typer.Option(help="The original, FILE.py:make or hf:PATH, if it was built elsewhere.")
]
Program = Annotated[str, typer.Option(help="Which one, where the artifact holds several.")]
Against = Annotated[
    str | None,
    typer.Option(
        help="Peers, by commas; the first is the baseline. Default: eager,ort or eager,genai."
    ),
]
Shapes = Annotated[
    list[str] | None,
    typer.Option(
        help="Sizes of dims, batch=1,8 seq=16,128; of prompts where texts are made. "
        "Default: the example's; prompts of 128 and 1024 tokens."
    ),
]
Threads = Annotated[str, typer.Option(help="Of every engine, 1,2. Default: all cores.")]
Rounds = Annotated[
    int | None,
    typer.Option(min=1, help="How often each engine is timed at a case in a bout. Default: 5."),
]
Bouts = Annotated[
    int | None, typer.Option(min=1, help="How often all engines start anew. Default: 5.")
]
Timeout = Annotated[
    float | None,
    typer.Option(min=1, help="Seconds after which an engine is given up. Default: 300."),
]
Patience = Annotated[
    float | None,
    typer.Option(min=0, help="Seconds a bout may wait for a disturbed machine. Default: 30."),
]
Json = Annotated[Path | None, typer.Option(resolve_path=True, help="Write the record here.")]
Html = Annotated[Path | None, typer.Option(resolve_path=True, help="Write a page with plots here.")]
FailIf = Annotated[
    list[str] | None, typer.Option(help="Exit 3 if it holds, 'speedup<1.5'; repeatable.")
]
Suite = Annotated[
    str, typer.Option(help="Measure the README's: encoders, vision, decoders or build.")
]
Results = Annotated[
    Path | None, typer.Option(resolve_path=True, help="Where --suite writes its JSON.")
]
Schema = Annotated[bool, typer.Option(help="Print the JSON schema of --json.")]
Before = Annotated[Path, typer.Argument(help="What --json wrote.")]
After = Annotated[Path, typer.Argument(help="The same, later.")]
