"""The passes that come with strop."""

from __future__ import annotations

from strop.compiler.passes import Pass

PASSES: tuple[type[Pass], ...] = ()
