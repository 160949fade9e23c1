"""What the user asks of a folder: ``PATH[#task][,ignore=PATTERN...][,max-length=N]``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from strop.compiler.util.errors import UsageError, did_you_mean

OPTIONS = {
    "ignore": "PATTERN: weights that may be unused or random, such as cls.*; repeatable",
    "max-length": "N: the largest number of tokens to build for",
}


@dataclass(frozen=True)
class Request:
    """A folder, and what to make of it.

    Attributes:
        path: of the folder.
        task: by name; None leaves it to the folder.
        ignored: patterns for names of weights that may be unused or newly initialised.
        longest: the largest sequence length to declare; None leaves it to the model.
    """

    path: Path
    task: str | None = None
    ignored: tuple[str, ...] = ()
    longest: int | None = None

    def __str__(self) -> str:
        task = f"#{self.task}" if self.task else ""
        return f"hf:{self.path}{task}"


def parse_request(text: str) -> Request:
    """Read what follows ``hf:``.

    Raises:
        UsageError: an unknown option, or a value that is not of its kind.
    """
    if Path(text).is_dir():  # a folder may have '#' in its name
        return Request(Path(text))
    path, _, rest = text.rpartition("#") if "#" in text else (text, "", "")
    task, *options = rest.split(",")
    ignored: list[str] = []
    longest = None
    for option in options:
        name, equals, value = option.partition("=")
        if name not in OPTIONS or not equals or not value:
            raise UsageError(
                f"hf:{text}: '{option}' is not of the form option=value"
                f"{did_you_mean(name, list(OPTIONS))}"
            )
        if name == "ignore":
            ignored.append(value)
        else:
            longest = _length(value, text)
    return Request(Path(path), task or None, tuple(ignored), longest)


def _length(value: str, text: str) -> int:
    if not value.isdecimal() or not 2 <= int(value) <= 1 << 20:
        raise UsageError(f"hf:{text}: max-length={value} is not a length from 2 to {1 << 20}")
    return int(value)
