"""``strop generate``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from strop.compiler.cli.prompts import PromptIds, PromptText, given_prompt
from strop.compiler.util.terminal import write

if TYPE_CHECKING:
    from strop.compiler.generate.generator import Token


def generate(
    out: Annotated[Path, typer.Argument(help="An artifact folder.")],
    prompt: PromptText = None,
    ids: PromptIds = None,
    max_new: Annotated[int | None, typer.Option(help="The most tokens to make.")] = None,
    temperature: Annotated[
        float, typer.Option(help="Draw tokens by their scores over this; 0: the most likely.")
    ] = 0.0,
    top_k: Annotated[int, typer.Option(help="Draw among so many tokens only; 0: all.")] = 0,
    top_p: Annotated[
        float, typer.Option(help="Draw among the tokens that have this probability together.")
    ] = 1.0,
    seed: Annotated[int, typer.Option(help="Of what is drawn.")] = 0,
    stop: Annotated[
        list[str], typer.Option(help="Text before which the text ends; repeatable.")
    ] = [],  # noqa: B006  (typer copies it)
    beams: Annotated[int, typer.Option(help="Search with so many beams.")] = 1,
) -> None:
    """Let an artifact go on with a text; the text appears as it is made."""
    given = given_prompt(prompt, ids)
    from strop.compiler.artifact.loaded import load

    tokens = load(out).generate(
        given, max_new=max_new, temperature=temperature, top_k=top_k, top_p=top_p, seed=seed,
        stop=stop, beams=beams,
    )  # fmt: skip
    _print(tokens, as_text=prompt is not None)


def _print(tokens: Iterator[Token], as_text: bool) -> None:
    """Write each piece at once; the line ends whatever happens."""
    try:
        for number, token in enumerate(tokens):
            write(token.text if as_text else f"{',' if number else ''}{token.id}")
            sys.stdout.flush()
    finally:
        write("\n")
