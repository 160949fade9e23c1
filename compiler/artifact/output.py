"""Check that an artifact can be written to a place, before anything is compiled.

An artifact's own files are those that its manifest names. Whatever else lies in its folder is
kept; a folder that is not an artifact is written into with ``force`` only, and keeps what the new
files do not replace. What a build reads is never replaced, ``force`` or not.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path

from strop.compiler.artifact.folder import MANIFEST, OWN_NAMES, read_artifact
from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.holdings import Kind, holdings
from strop.compiler.util.files.staging import real_path, require_place


def _named(folder: Path) -> Collection[str] | None:
    try:
        return read_artifact(folder).file_names()
    except UsageError:
        return None


ARTIFACT = Kind(
    "a strop artifact",
    MANIFEST,
    _named,
    "Name another folder, or give --force: it keeps all but what the new files replace.",
)


def require_output(
    out: Path, force: bool, more: Collection[str] = (), sources: Sequence[Path] = ()
) -> None:
    """Refuse an output path before the work for it begins.

    Args:
        out: where the artifact will stand.
        force: a folder that is not an artifact may be written into.
        more: files that will be written beside those of every artifact.
        sources: files and folders that the build reads.

    Raises:
        UsageError: it holds something that is not strop's to replace, cannot be written, or is
            the working folder or holds it.
    """
    out = real_path(out)
    read = [real_path(source) for source in sources]
    if out in read:
        raise UsageError(f"{out} is what is built; name another folder for the artifact")
    wanted = OWN_NAMES.union(more)
    require_place(out, ARTIFACT, wanted, force)
    if out.exists():
        _require_kept(read, out, wanted.union(holdings(out, ARTIFACT).own))


def _require_kept(read: Sequence[Path], out: Path, written: Collection[str]) -> None:
    for source in read:
        if source.is_relative_to(out):
            inside = source.relative_to(out).as_posix()
            if any(name == inside or name.startswith(f"{inside}/") for name in written):
                raise UsageError(
                    f"{out} holds '{inside}', which this build reads and would replace; "
                    "name another folder for the artifact"
                )
