"""A kind of folder as simple as can be, for tests of how folders are written.

The file ``seal`` names the folder's own files, one a line. Run as a program, it writes one.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Mapping
from pathlib import Path

from strop.compiler.util.files.holdings import Kind
from strop.compiler.util.files.staging import staged


def named(folder: Path) -> Collection[str] | None:
    try:
        return {"seal", *(folder / "seal").read_text().split()}
    except (OSError, UnicodeDecodeError):
        return None


KIND = Kind("a folder of the tests", "seal", named, "Name another folder.")


def write(out: Path, files: Mapping[str, str], force: bool = False) -> None:
    """Write a folder with these files, and the seal that names them."""
    with staged(out, KIND, force) as new:
        fill(new, {**files, "seal": "\n".join(files)})


def fill(folder: Path, files: Mapping[str, str]) -> None:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)


def content(folder: Path) -> dict[str, str]:
    """Every file below a folder."""
    files = (p for p in folder.rglob("*") if p.is_file() and not p.is_symlink())
    return {p.relative_to(folder).as_posix(): p.read_text() for p in files}


def is_whole(folder: Path) -> bool:
    """Whether there is a seal, and every file it names is of one and the same writing."""
    files = content(folder)
    own = files.get("seal", "").split()
    return bool(own) and len({files.get(name) for name in own}) == 1


def main(out: Path, text: str, times: int) -> None:
    """Write the folder again and again, files with this text and one more of this name."""
    for _ in range(times):
        write(out, {"a": text, "b": text, f"only/{text}": text})


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
