"""``strop debug``: mistakes of the user's, wrong passes of the user's, damaged files: sentences."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from conftest import SMALL, Strop, Write
from test_debug import BROKEN

INTEGERS = SMALL.replace("(x))), -1)", "(x))), -1).argmax(-1)")

SHRINKING = """
    import torch
    from strop.compiler import Match, Rule

    class Shrinking(Rule):
        name = "shrinking"
        roots = (torch.ops.aten.softmax.int,)

        def match(self, root, program):
            return Match(root, {}, [root])

        def rewrite(self, match, build):
            short = build.call(torch.ops.aten.slice.Tensor, match.root.args[0], 1, 0, 8)
            return build.call(torch.ops.aten.softmax.int, short, -1)
"""

WITH_OPTION = """
    from dataclasses import dataclass
    from typing import ClassVar
    from strop.compiler import Pass

    @dataclass(frozen=True)
    class Optional(Pass):
        name: ClassVar[str] = "optional"
        keep: str | None = None

        def apply(self, program, log):
            raise ValueError("as always")
"""


def crash(strop: Strop, own: str, source: str, folder: Path) -> Path:
    """A build that ends in a crash bundle; where that is."""
    result = strop("build", source, "-o", folder / "out", "--pass", own, "--before", "bias-gelu")
    assert result.code == 2, result.err
    return folder / "out.crash"


def test_a_bundle_is_not_lost_when_it_is_reduced_onto_itself(
    strop: Strop, write: Write, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write(BROKEN, "Broken")
    bundle = crash(strop, own, small, tmp_path)
    result = strop("debug", "reduce", bundle, "--pass", own, "-o", bundle)
    assert result.code == 0, result.err
    assert "fails as recorded" in strop("debug", "replay", bundle, "--pass", own).out
    monkeypatch.chdir(bundle)
    assert strop("debug", "reduce", ".", "--pass", own).code == 0
    assert (tmp_path / "out.crash.reduced" / "crash.json").is_file()


def test_a_foreign_folder_is_refused_before_anything_is_reduced(
    strop: Strop, write: Write, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = write(BROKEN, "Broken")
    bundle = crash(strop, own, small, tmp_path)
    monkeypatch.setattr("strop.compiler.debug.reduce.reduce", pytest.fail)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "crash.json").write_text('{"pass": "mine"}')
    result = strop("debug", "reduce", bundle, "--pass", own, "-o", tmp_path / "mine")
    assert (result.code, "is not a crash bundle" in result.err) == (2, True)


def test_an_option_without_a_value_is_replayed(
    strop: Strop, write: Write, small: str, tmp_path: Path
) -> None:
    own = write(WITH_OPTION, "Optional")
    bundle = crash(strop, own, small, tmp_path)
    replayed = strop("debug", "replay", bundle, "--pass", own)
    assert (replayed.code, "ValueError: as always" in replayed.out) == (0, True), replayed.err


def test_a_bundle_that_cannot_be_written_leaves_nothing(
    strop: Strop, write: Write, small: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("complex128")

    monkeypatch.setattr("strop.compiler.driver.bundle.save_inputs", fail)
    options = ("--pass", write(BROKEN, "Broken"), "--before", "bias-gelu")
    result = strop("build", small, "-o", tmp_path / "out", *options)
    assert result.code == 2
    assert "no crash bundle was written: 'complex128'" in result.err
    assert not [p for p in tmp_path.iterdir() if p.is_dir()]


def test_a_pass_of_the_users_that_changes_a_size_is_blamed(
    strop: Strop, write: Write, small: str, tmp_path: Path
) -> None:
    own = write(SHRINKING, "Shrinking")
    result = strop("build", small, "-o", tmp_path / "out", "--pass", own)
    assert result.code == 2
    assert "pass 'Shrinking' broke the program: 'output' is float32 (3, 8)" in result.err
    assert not (tmp_path / "out").exists()


def test_why_not_of_a_pass_of_the_users_that_fails(strop: Strop, write: Write, small: str) -> None:
    options = ("--pass", write(BROKEN, "Broken"), "--before", "attention")
    result = strop("debug", "why-not", "attention", small, *options)
    assert result.code == 2
    assert "pass 'Broken' raised KeyError" in result.err


def test_why_not_of_a_pass_that_found_nothing_says_so(strop: Strop, small: str) -> None:
    result = strop("debug", "why-not", "cse", small)
    assert (result.code, result.out) == (0, "'cse' found nothing to rewrite\n")


def test_why_not_prints_sizes_in_brackets(strop: Strop, write: Write) -> None:
    source = write("""
        import torch
        from strop.compiler import Model

        class Flat(torch.nn.Module):
            def forward(self, q):
                return torch.nn.functional.scaled_dot_product_attention(q, q, q)

        def make():
            return Model(Flat().eval(), {"q": torch.randn(2, 5, 8)})
    """)
    result = strop("debug", "why-not", "attention", source)
    assert result.code == 0, result.err
    assert "[batch," in result.out


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--check", "python 'x {}"), "cannot be read: No closing quotation"),
        (("--check", " "), "there is no command"),
        (("--before", "cse", "--metric", "cosine", "--min", "1"), "there is no --pass"),
    ],
)
def test_bisect_refuses_what_it_cannot_use(
    strop: Strop, small: str, options: tuple[str, ...], says: str
) -> None:
    result = strop("debug", "bisect", small, *options)
    assert (result.code, says in result.err) == (2, True), result.err


def test_a_check_may_print_anything(strop: Strop, small: str) -> None:
    result = strop("debug", "bisect", small, "--check", r"sh -c 'printf \\377; exit 1'")
    assert (result.code, "before any pass" in result.err) == (2, True), result.err


def test_a_cosine_of_integers_is_refused(strop: Strop, write: Write) -> None:
    source = write(INTEGERS)
    result = strop("debug", "bisect", source, "--metric", "cosine", "--min", "0.9")
    assert (result.code, "no output of floats, and so no cosine" in result.err) == (2, True)


def test_agreement_judges_integers(strop: Strop, write: Write) -> None:
    own = write(
        """
        import torch
        from strop.compiler import Match, Rule

        class Least(Rule):
            name = "least"
            roots = (torch.ops.aten.argmax.default,)

            def match(self, root, program):
                return Match(root, {}, [root])

            def rewrite(self, match, build):
                return build.call(torch.ops.aten.argmin.default, *match.root.args)
        """,
        "Least",
    )
    result = strop(
        "debug", "bisect", write(INTEGERS), "--metric", "agreement", "--min", "1", "--pass", own
    )
    assert result.code == 0, result.err
    assert "pass 'Least' is the first bad one" in result.out
    assert "first value that moved: %argmin" in result.out or "rewrite 1 of 1" in result.out


def test_snapshots_of_two_models_are_not_compared(
    strop: Strop, write: Write, small: str, tmp_path: Path
) -> None:
    other = write(SMALL.replace("16", "12"))
    for name, source in (("a", small), ("b", other)):
        strop("build", source, "-o", tmp_path / name, "--dump-ir", tmp_path / f"{name}-ir")
    first, second = (tmp_path / f"{n}-ir" / "000_capture.json" for n in "ab")
    for pair in ((first, second), (first, tmp_path / "b")):
        result = strop("debug", "diff", *pair)
        assert (result.code, "they are of two models" in result.err) == (2, True), result.err


@pytest.mark.parametrize("part", ["inputs.safetensors", "weights"])
def test_a_cut_file_beside_a_snapshot_is_a_sentence(
    strop: Strop, small: str, tmp_path: Path, part: str
) -> None:
    ir = tmp_path / "ir"
    strop("build", small, "-o", tmp_path / "out", "--dump-ir", ir)
    damaged = ir / part
    for file in damaged.iterdir() if damaged.is_dir() else [damaged]:
        file.write_bytes(file.read_bytes()[:-5])
    snapshot = ir / "000_capture.json"
    result = strop("debug", "diff", snapshot, snapshot)
    assert (result.code, "damaged" in result.err) == (2, True), result.err


def test_a_size_that_does_not_fit_is_damage(strop: Strop, small: str, tmp_path: Path) -> None:
    strop("build", small, "-o", tmp_path / "out", "--dump-ir", tmp_path / "ir")
    snapshot = tmp_path / "ir" / "000_capture.json"
    text = snapshot.read_text()
    wrong = re.sub(r"\b16\b", "15", text)
    assert wrong != text
    snapshot.write_text(wrong)
    result = strop("debug", "diff", snapshot, snapshot)
    assert (result.code, "was damaged" in result.err) == (2, True), result.err


def test_the_count_of_a_rule_that_found_nothing_is_zero(
    strop: Strop, small: str, tmp_path: Path
) -> None:
    result = strop("build", small, "-o", tmp_path / "out", "--expect", "residual-norm=1")
    assert (result.code, "did 0 times" in result.err) == (3, True), result.err
    assert strop("build", small, "-o", tmp_path / "out", "--expect", "residual-norm=0").code == 0


def test_a_dump_goes_with_stop_after(strop: Strop, small: str, tmp_path: Path) -> None:
    done = strop("build", small, "--stop-after", "capture", "--dump-ir", tmp_path / "ir")
    assert done.code == 0, done.err
    assert (tmp_path / "ir" / "000_capture.json").is_file()
    (tmp_path / "file").write_text("mine")
    bad = strop("build", small, "--stop-after", "cse", "--dump-ir", tmp_path / "file" / "ir")
    assert (bad.code, "file is a file" in bad.err) == (2, True)
