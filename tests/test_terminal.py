"""Text from outside on a terminal: it is shown as it is, and commands nothing."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from strop.compiler.util.moving import Progress
from strop.compiler.util.shown import shown
from strop.compiler.util.terminal import Console, Table, write

ROOT = Path(__file__).parents[1]
FOREIGN = {
    "markup": ("[/red]", "[/red]"),
    "a tag": ("[x]", "[x]"),
    "a link": ("[link=http://a]b[/link]", "[link=http://a]b[/link]"),
    "an emoji code": (":a: :smile:", ":a: :smile:"),
    "a clipboard command": ("\x1b]52;c;eA==\x07", r"\x1b]52;c;eA==\x07"),
    "a clearing command": ("\x1b[2J", r"\x1b[2J"),
    "a command in one byte": ("\x9b2J", r"\x9b2J"),
    "a turn of direction": ("\u202eevil", r"\u202eevil"),
    "a backspace": ("good\b\b", r"good\x08\x08"),
    "half a character": ("\ud800", r"\ud800"),
    "a backslash": ("\\[bold]", "\\[bold]"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_foreign_text_is_shown_as_it_is(kind: str) -> None:
    text, wanted = FOREIGN[kind]
    console = Console(file=io.StringIO())
    console.print(text)
    console.say(f"note: {text}", "red")
    console.rule(text)
    table = Table("name", text, title=text, caption=text)
    table.add_column(text)
    table.add_row(text, shown(text, "bold"), text)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    said = console.file.getvalue()
    assert said.count(wanted) == 10
    assert set(re.findall(r"[^\n\w\W]|[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e]", said)) == set()


def test_what_moves_is_foreign_text_too() -> None:
    stream = io.StringIO()
    console = Console(file=stream)
    with console.status("[/red] one") as status:
        status.update("[/red] \x1b]52;two")
    with Progress(console=console) as progress:
        task = progress.add_task("[/red] \x1b]52;three")
        progress.update(task, description="[/red] \x1b]52;four")
    said = stream.getvalue()
    assert r"[/red] \x1b]52;four" in said
    assert "\x1b]52" not in said


def test_text_for_programs_is_not_wrapped(capsys: pytest.CaptureFixture[str]) -> None:
    write("x" * 500 + "\n\x1b]52;\n")
    assert capsys.readouterr().out == "x" * 500 + "\n\\x1b]52;\n"


def test_nothing_else_writes_to_a_terminal() -> None:
    found = [
        f"{file.relative_to(ROOT)}: {line.strip()}"
        for room in ("bench", "compiler", "passes")
        for file in (ROOT / room).rglob("*.py")
        if file.name not in ("terminal.py", "moving.py", "shown.py")
        for line in file.read_text().splitlines()
        if re.search(r"^\s*(from|import) rich\b|\bprint\(|\bstd(out|err)\.write|typer\.(echo|secho)"
                     r"|click\.(echo|secho)", line)
        and not re.search(r"[\w.]*(console|_console)\.print\(|def print\(", line)
    ]  # fmt: skip
    # What a process of the benchmarks' own says to the one that started it.
    allowed = [line for line in found if "sys.stdout.write(json.dumps(" in line]
    assert found == allowed
