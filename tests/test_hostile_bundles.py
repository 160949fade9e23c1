"""What a stranger's bundles, artifacts and records name is not run, imported or shown raw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from conftest import Write
from hostile_tools import Stranger, stranger  # noqa: F401

from strop.compiler.driver.bundle import read_bundle
from strop.compiler.util.errors import UsageError

OWN = ("--pass", "broken.py:Broken")
CANARY = "from pathlib import Path\nPath(__file__).with_name('canary').touch()\n"
NASTY = ("[/red]", "[x]", ":a:", "\x1b]52;c;eA==\x07", "\x9b2J", "\u202eevil", "a\nb", "[link=x]")


@pytest.mark.parametrize(
    "name",
    [
        "evil.py:a/b", "evil.py:Evil", "./evil.py:Evil", "../given/evil.py:Evil",
        "{given}/evil.py:Evil", "{given}/evil.py:a/b", "sub/evil.py:Evil", "evil.py:a:b",
        "evil", "/evil", "../evil", "", "\0", "a" * 5000, "os:system",
        "strop.passes.cleanup.cse:CSE",
    ],
)  # fmt: skip
@pytest.mark.parametrize("command", ["replay", "reduce"])
def test_a_bundle_names_no_code(stranger: Stranger, name: str, command: str) -> None:  # noqa: F811
    """Whatever its pass is called, the user says where it is, or it does not run."""
    bundle = stranger.given / "out.crash"
    for folder in (stranger.given, bundle, bundle / "sub"):
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(CANARY)
    text = json.dumps(name.format(given=stranger.given)).replace("\\u0000", "\\u0001")
    (bundle / "pass.toml").write_text(f'name = "x"\n[[passes]]\nname = {text}\n')
    said = stranger.refused("debug", command, "out.crash")
    assert "is not strop's: say where it is with --pass" in said


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("prune", 'importance = "evil.py:score"'),
        ("prune", 'importance = "{given}/evil.py:score"'),
        ("prune", 'importance = "./sub/evil.py:a:b"'),
        ("recover", 'own = 1.0\nown_loss = "evil.py:score"'),
        ("recover", 'own_loss = "hf:out.crash"'),
    ],
)
@pytest.mark.parametrize("command", ["replay", "reduce"])
def test_options_of_a_bundles_pass_name_no_code(
    stranger: Stranger,  # noqa: F811
    name: str,
    options: str,
    command: str,
) -> None:
    bundle = stranger.given / "out.crash"
    for folder in (stranger.given, bundle, bundle / "sub"):
        folder.mkdir(exist_ok=True)
        (folder / "evil.py").write_text(CANARY)
    entry = f'name = "{name}"\n{options.format(given=stranger.given)}\n'
    (bundle / "pass.toml").write_text(f'name = "x"\n[[passes]]\n{entry}')
    said = stranger.refused("debug", command, "out.crash")
    assert f"which is not strop's: say where it is with --pass '{name}{{" in said


def test_the_pass_that_the_user_names_is_run(stranger: Stranger) -> None:  # noqa: F811
    assert "fails as recorded" in stranger.read("debug", "replay", "out.crash", *OWN).out
    result = stranger.read("debug", "reduce", "out.crash", *OWN, "-o", "out.crash/../out.crash")
    assert result.code == 0, result.err


@pytest.mark.parametrize(
    "options",
    ["nothing = 1", "__class__ = 1", "keep = [[[1]]]", "name_ = 1", '"a b" = 1', "log_ = {a = 1}"],
)
def test_options_that_a_pass_does_not_have_are_refused(stranger: Stranger, options: str) -> None:  # noqa: F811
    path = stranger.given / "out.crash" / "pass.toml"
    path.write_text(f'name = "x"\n[[passes]]\nname = "cse"\n{options}\n')
    assert "no option" in stranger.refused("debug", "replay", "out.crash")


@pytest.mark.parametrize("count", [0, 2, 1000])
def test_a_bundle_has_one_pass(stranger: Stranger, count: int) -> None:  # noqa: F811
    passes = '[[passes]]\nname = "cse"\n' * count
    (stranger.given / "out.crash" / "pass.toml").write_text(f'name = "x"\n{passes}')
    assert "a bundle has one" in stranger.refused("debug", "replay", "out.crash")


@pytest.mark.parametrize(
    "name", ["recipe.toml", "program.txt", "more", "weights/more.safetensors", "sub/deep/link"]
)
@pytest.mark.parametrize("target", ["{outside}/secret", "pass.toml", "/dev/zero", "nothing", "."])
def test_links_in_bundles_are_refused(stranger: Stranger, name: str, target: str) -> None:  # noqa: F811
    path = stranger.given / "out.crash" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target.format(outside=stranger.folder / "outside"))
    for command in ("replay", "reduce"):
        assert "is a link" in stranger.refused("debug", command, "out.crash", *OWN)
    assert not (stranger.given / "out.crash.reduced").exists()


def test_a_folder_of_links_in_a_bundle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "crash.json").symlink_to(tmp_path / "crash.json")
    with pytest.raises(UsageError, match="cannot be read"):
        read_bundle(tmp_path)


def test_a_pass_that_ends_its_process_is_a_sentence(stranger: Stranger, write: Write) -> None:  # noqa: F811
    own = write(
        """
        from dataclasses import dataclass
        from typing import ClassVar
        from strop.compiler import Pass

        @dataclass(frozen=True)
        class Crashing(Pass):
            name: ClassVar[str] = "crashing"

            def apply(self, program, log):
                import ctypes
                ctypes.string_at(0)
        """,
        "Crashing",
    )
    path = Path(own.rpartition(":")[0])
    path.rename(stranger.given / "own.py")
    said = stranger.refused("debug", "replay", "out.crash", "--pass", "own.py:Crashing")
    assert "it crashes (SIGSEGV)" in said


def rename(values: Any, names: dict[str, str]) -> Any:
    """Other texts in the place of some, wherever they are."""
    if isinstance(values, dict):
        return {names.get(k, k): rename(v, names) for k, v in values.items()}
    if isinstance(values, list):
        return [rename(v, names) for v in values]
    return names.get(values, values) if isinstance(values, str) else values


@pytest.mark.parametrize("name", NASTY)
def test_names_in_a_manifest_are_shown_as_they_are(stranger: Stranger, name: str) -> None:  # noqa: F811
    def change(values: dict[str, Any]) -> dict[str, Any]:
        values["notes"].append(f"note {name}")
        values["metrics"] = {"original": {name: 1.0}, "artifact": {name: 1.0}}
        values["passes"][0]["rewrites"] = {name: 3}
        return rename(values, {"y": name, "x": f"in {name}", "batch": f"dim {name}"})

    stranger.edit("artifact/manifest.json", change)
    result = stranger.read("inspect", "artifact")
    assert result.code == 0, result.err
    if name.isprintable():
        assert result.out.count(name) >= 7
    assert stranger.read("inspect", "artifact", "--json").code == 0
    assert stranger.read("debug", "why-not", "dtypes", "artifact").code == 0


@pytest.mark.parametrize("name", NASTY)
def test_names_in_records_are_shown_as_they_are(stranger: Stranger, name: str) -> None:  # noqa: F811
    def change(values: dict[str, Any]) -> dict[str, Any]:
        return rename(values, {"eager": name, "batch": f"dim {name}", "A CPU": name})

    stranger.edit("record.json", change)
    result = stranger.read("bench", "compare", "record.json", "record.json")
    assert result.code == 0, result.err
    if name.isprintable():
        assert name in result.out


@pytest.mark.parametrize("name", NASTY)
def test_names_in_messages_are_shown_as_they_are(stranger: Stranger, name: str) -> None:  # noqa: F811
    (stranger.given / "recipe.toml").write_text(f"name = 3\n{json.dumps(name)} = 1\n")
    result = stranger.read("build", "--recipe", "recipe.toml", "--print-recipe")
    assert result.code == 2
    if name.isprintable():
        assert name in result.err
    text = json.dumps(name, ensure_ascii=False) if name.isprintable() else json.dumps(name)
    (stranger.given / "recipe.toml").write_text(f"name = {text}\n")
    result = stranger.read("build", "--recipe", "recipe.toml", "--print-recipe")
    assert (result.code, "name = " in result.out) == (0, True)


@pytest.mark.parametrize("name", NASTY)
def test_names_in_programs_are_shown_as_they_are(stranger: Stranger, name: str) -> None:  # noqa: F811
    def change(values: dict[str, Any]) -> dict[str, Any]:
        weights = {key: f"{name}.{key}" for key in values["weights"]}
        return rename(values, {"y": name, "batch": f"dim {name}", **weights})

    for snapshot in sorted((stranger.given / "ir").glob("*.json"))[:1]:
        stranger.edit(f"ir/{snapshot.name}", change)
        result = stranger.read("debug", "diff", snapshot, snapshot, "--node", "%linear")
        assert result.code == 0, result.err
        if name.isprintable():
            assert f"@{name}.up.weight" in result.out
