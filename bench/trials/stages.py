"""What the user's metrics were at each stage of a build that recovers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from strop.compiler.artifact.folder import Artifact


def stages(artifact: Artifact) -> Mapping[str, Mapping[str, float]]:
    """The metrics ``before`` and ``after`` recovery, and those of the ``file``."""
    learned = next(p["learned"] for p in artifact.manifest["passes"] if p["name"] == "recover")
    found: dict[str, Any] = dict(learned["facts"]["metrics"])
    return found | {"file": artifact.manifest["metrics"]["artifact"]}
