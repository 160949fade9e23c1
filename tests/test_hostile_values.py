"""Files as strop writes them with one value changed: read all the same, or refused in a sentence.

Every place in a file is dropped, replaced by values of other types and sizes, and nested. Some of
these, chosen by a seed, are tried each time; the slow test tries all.
"""

from __future__ import annotations

import copy
import json
import random
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hostile_tools import Stranger, stranger  # noqa: F401

SNAPSHOT = "ir/000_capture.json"
PROVENANCE = "artifact/provenance.json"
OWN = ("--pass", "broken.py:Broken")
READERS: dict[str, tuple[str, ...]] = {
    "artifact/manifest.json": ("inspect", "artifact"),
    "artifact/build.json": ("inspect", "artifact"),
    PROVENANCE: ("debug", "profile", "artifact", "--runs", "1"),
    SNAPSHOT: ("debug", "diff", SNAPSHOT, SNAPSHOT),
    "out.crash/crash.json": ("debug", "replay", "out.crash", *OWN),
    "out.crash/program.json": ("debug", "replay", "out.crash", *OWN),
    "record.json": ("bench", "compare", "record.json", "record.json"),
}
DROPPED = object()
VALUES: tuple[Any, ...] = (
    DROPPED, None, True, 0, -1, 2**63 - 1, 2**64, 1e308, -0.5, "", "12", "cuda", "\x1b]52;", [],
    {}, [[]], {"node": "x"}, {"": None}, [None], {"a": {"a": {"a": 1}}},
)  # fmt: skip
QUICK = 12

Place = tuple[str | int, ...]


def places(values: Any, here: Place = ()) -> Iterator[Place]:
    """Every place in a value but the whole of it."""
    inside = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in inside:
        yield (*here, key)
        if isinstance(value, (dict, list)):
            yield from places(value, (*here, key))


def changed(values: Any, place: Place, new: Any) -> Any:
    """A copy with another value at a place, or without it."""
    whole = copy.deepcopy(values)
    owner = whole
    for key in place[:-1]:
        owner = owner[key]
    if new is DROPPED:
        del owner[place[-1]]
    else:
        owner[place[-1]] = new
    return whole


def alike(place: Place) -> Place:
    """Places of one kind: entries of a list are."""
    return tuple("" if isinstance(key, int) else key for key in place)


def check(stranger: Stranger, name: str, values: Any, place: Place, new: Any) -> None:  # noqa: F811
    """Read one changed file: it is as good as before, or one sentence says what is wrong."""
    (stranger.given / name).write_text(json.dumps(changed(values, place, new)))
    if name == PROVENANCE:
        stranger.vouch("provenance.json", "side_files")
    result = stranger.read(*READERS[name])
    said = f"{name} with {new!r} at {place}: {result.err}"
    assert result.code in (0, 2, 5), said
    if result.code:
        assert re.match("strop: ", result.err), said
        assert len(result.err) < 2000, said


@pytest.mark.parametrize("seed", range(QUICK))
@pytest.mark.parametrize("name", READERS)
def test_a_value_that_is_changed_is_no_bug(stranger: Stranger, name: str, seed: int) -> None:  # noqa: F811
    file = stranger.given / name
    values = json.loads(file.read_text())
    chosen = random.Random(f"{name} {seed}")
    kinds = sorted({alike(place) for place in places(values)})
    kind = chosen.choice(kinds)
    place = chosen.choice([p for p in places(values) if alike(p) == kind])
    check(stranger, name, values, place, chosen.choice(VALUES))


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_value_that_is_changed_is_a_bug(stranger: Stranger, name: str) -> None:  # noqa: F811
    values = json.loads((stranger.given / name).read_text())
    seen: set[Place] = set()
    for place in places(values):
        if alike(place) not in seen or random.Random(str(place)).random() < 0.1:
            seen.add(alike(place))
            for new in VALUES:
                check(stranger, name, values, place, new)


@pytest.mark.slow
@pytest.mark.parametrize("name", READERS)
def test_no_byte_that_is_changed_is_a_bug(stranger: Stranger, name: str) -> None:  # noqa: F811
    file: Path = stranger.given / name
    content = file.read_bytes()
    chosen = random.Random(name)
    for _ in range(200):
        damaged = bytearray(content)
        damaged[chosen.randrange(len(damaged))] = chosen.randrange(256)
        file.write_bytes(damaged)
        assert stranger.read(*READERS[name]).code in (0, 2, 5)
