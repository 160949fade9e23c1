"""Compiled kernels that are kept: what a key depends on, and what becomes of damaged entries."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from conftest import Strop, run_python

from strop.compiler.lower.triton.store import KernelStore, kernel_cache
from strop.compiler.util.cache import Cache
from strop.kernels import sources, stored
from strop.kernels.architecture import SM80, SM90
from strop.kernels.compiler import Compilers
from strop.kernels.examples import launches
from strop.kernels.gate import Checked, Readers
from strop.kernels.norm import NORM
from strop.kernels.sources import hash_with_imports
from strop.kernels.specialization import variant_of
from strop.kernels.stored import key_of
from strop.kernels.variant import Variant


class Memory(dict[str, bytes]):
    """A store in memory."""

    def put(self, key: str, content: bytes) -> None:
        self[key] = content


def norm_variant() -> Variant:
    example = launches(NORM)["RMSNorm of 1 x 4096, residual"]
    return variant_of(example, NORM.configuration(example.sizes()))


def made(store: stored.Store) -> Checked:
    with Readers(SM90, store) as readers:
        (found,) = readers.try_and_read([norm_variant()])
    assert isinstance(found, Checked)
    return found


@pytest.fixture(scope="module")
def kept() -> tuple[Memory, Checked]:
    """A store with one variant, and what it was when it was compiled."""
    store = Memory()
    return store, made(store)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> list[Variant]:
    """The variants that are compiled from now on."""
    seen: list[Variant] = []
    compile_them = Compilers.try_variants

    def watched(self: Compilers, variants: Sequence[Variant], *rest: object) -> object:
        seen.extend(variants)
        return compile_them(self, variants, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(Compilers, "try_variants", watched)
    return seen


def test_what_is_kept_is_what_was_compiled(
    kept: tuple[Memory, Checked], compiled: list[Variant]
) -> None:
    store, first = kept
    assert made(store) == first
    assert compiled == []


@pytest.mark.parametrize("damage", ["cut", "changed", "empty"])
def test_a_damaged_entry_is_none(kept: tuple[Memory, Checked], damage: str) -> None:
    ((key, content),) = kept[0].items()
    changed = content.replace(b'"registers": ', b'"registers": 1')
    damaged = Memory({key: {"cut": content[:-9], "changed": changed, "empty": b""}[damage]})
    assert stored.recall(kept[0], norm_variant(), SM90) is not None
    assert stored.recall(damaged, norm_variant(), SM90) is None


def test_what_is_damaged_is_compiled_again_and_replaced(
    kept: tuple[Memory, Checked], compiled: list[Variant]
) -> None:
    store, first = kept
    damaged = Memory({key: content[:-9] for key, content in store.items()})
    assert made(damaged) == first
    assert compiled == [norm_variant()]
    assert damaged == store


def test_a_key_depends_on_variant_architecture_and_version(monkeypatch: pytest.MonkeyPatch) -> None:
    variant = norm_variant()
    keys = {
        key_of(variant, SM90),
        key_of(variant, SM80),
        key_of(dataclasses.replace(variant, num_warps=2), SM90),
        key_of(dataclasses.replace(variant, types=variant.types[::-1]), SM90),
    }
    monkeypatch.setattr(stored, "_tools", lambda: ["3.5.0"])
    keys.add(key_of(variant, SM90))
    assert len(keys) == 5


@pytest.fixture
def forgotten() -> Iterator[None]:
    """Hashes of sources are computed anew, before and behind the test."""
    hash_with_imports.cache_clear()
    yield
    hash_with_imports.cache_clear()


@pytest.mark.usefixtures("forgotten")
def test_a_key_depends_on_the_sources_of_all_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    before = {name: hash_with_imports(name) for name in ("norm", "softmax")}
    source = sources._source
    hash_with_imports.cache_clear()
    # The kernel of norms imports it, by way of nothing else.
    monkeypatch.setattr(sources, "_source", lambda n: source(n) + b"\n" * (n == "normalize"))
    assert hash_with_imports("norm") != before["norm"]
    assert hash_with_imports("softmax") == before["softmax"]


def test_the_imports_that_are_found_are_those_that_are_made() -> None:
    said = run_python(
        "-c",
        "import sys; import strop.kernels.gemm_int8; "
        "print(*(n for n in sys.modules if n.startswith('strop.kernels.')))",
    ).out
    loaded = {name.removeprefix("strop.kernels.") for name in said.split()}
    assert {"gemm_int8", "epilogue", "activation", "kernel"} < loaded
    assert hash_with_imports("gemm_int8") == sources._hash(loaded)


def test_a_cache_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    store = KernelStore(Cache(tmp_path / "file" / "kernels"))
    with pytest.warns(RuntimeWarning, match="compiled kernels are not kept: the cache") as told:
        store.put("a", b"1")
        store.put("b", b"2")
    assert len(told) == 1
    assert store.get("a") is None


def test_a_cache_keeps_what_is_put_into_it(tmp_path: Path) -> None:
    store = KernelStore(Cache(tmp_path))
    store.put("a", b"1")
    assert (store.get("a"), store.get("b")) == (b"1", None)
    (tmp_path / "a" / "kernel").unlink()
    assert store.get("a") is None


def test_the_command_shows_how_many_kernels_are_kept_and_removes_them(strop: Strop) -> None:
    KernelStore(kernel_cache()).put("a", b"1")
    assert "1 compiled kernels" in strop("cache").out
    assert strop("cache", "--clear").code == 0
    assert "0 compiled kernels" in strop("cache").out
