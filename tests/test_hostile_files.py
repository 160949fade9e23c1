"""Files of every format that strop reads, damaged in every way a file can be: one sentence each."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import pytest
from _pytest.mark.structures import ParameterSet
from hostile_tools import DAMAGE, JSON_DAMAGE, TOML_DAMAGE, Stranger, stranger  # noqa: F401

from strop.compiler.artifact.folder import PROVENANCE
from strop.compiler.artifact.history import recall_source, remember_source
from strop.compiler.lower.choices import Choices
from strop.compiler.targets.target import ONNX_FILE
from strop.compiler.util.errors import UsageError

OWN = ("--pass", "broken.py:Broken")
SNAPSHOT = "ir/000_capture.json"
DIFF = ("debug", "diff", SNAPSHOT, SNAPSHOT)
REPLAY = ("debug", "replay", "out.crash", *OWN)
REDUCE = ("debug", "reduce", "out.crash", "-o", "new", *OWN)
# By file, a command that reads it.
READERS: dict[str, tuple[str, ...]] = {
    "artifact/manifest.json": ("inspect", "artifact"),
    "artifact/build.json": ("inspect", "artifact"),
    "artifact/model.onnx": ("debug", "diff", "artifact", "artifact"),
    "artifact/provenance.json": ("debug", "profile", "artifact", "--runs", "1"),
    SNAPSHOT: DIFF,
    "ir/inputs.safetensors": DIFF,
    "ir/weights/*": DIFF,
    "out.crash/crash.json": REPLAY,
    "out.crash/pass.toml": REPLAY,
    "out.crash/program.json": REPLAY,
    "out.crash/recipe.toml": REDUCE,
    "record.json": ("bench", "compare", "record.json", "record.json"),
    "recipe.toml": ("build", "--recipe", "recipe.toml", "--print-recipe"),
}
JSON = [name for name in READERS if name.endswith(".json")]
TOML = [name for name in READERS if name.endswith(".toml")]


def pairs(names: Iterable[str], damages: Iterable[str]) -> list[ParameterSet]:
    """Every damage of every file; of two, one is quick, so that all names and damages are."""
    return [
        pytest.param(name, damage, marks=pytest.mark.slow if (i + j) % 2 else ())
        for i, name in enumerate(names)
        for j, damage in enumerate(damages)
    ]


def one(stranger: Stranger, name: str) -> Path:  # noqa: F811
    return sorted(stranger.given.glob(name))[0]


def test_good_files_are_read(stranger: Stranger) -> None:  # noqa: F811
    for command in set(READERS.values()):
        result = stranger.read(*command)
        assert result.code == 0, (command, result.err)


@pytest.mark.parametrize(("name", "damage"), pairs(READERS, DAMAGE))
def test_a_file_that_is_none_is_refused(stranger: Stranger, name: str, damage: str) -> None:  # noqa: F811
    DAMAGE[damage](one(stranger, name))
    stranger.refused(*READERS[name])


@pytest.mark.parametrize(("name", "damage"), pairs(JSON, JSON_DAMAGE))
def test_json_of_another_kind_is_refused(stranger: Stranger, name: str, damage: str) -> None:  # noqa: F811
    one(stranger, name).write_text(JSON_DAMAGE[damage])
    if name == "artifact/provenance.json":
        stranger.vouch(PROVENANCE, "side_files")
    if name == "artifact/build.json" and damage == "an empty object":
        assert stranger.read(*READERS[name]).code == 0  # nothing of it is needed
        return
    stranger.refused(*READERS[name])


@pytest.mark.parametrize("damage", [*DAMAGE, *JSON_DAMAGE])
def test_a_config_of_a_checkpoint_that_is_none_is_refused(stranger: Stranger, damage: str) -> None:  # noqa: F811
    config = stranger.given / "checkpoint" / "config.json"
    config.parent.mkdir()
    config.write_text('{"model_type": "bert"}')
    if damage in DAMAGE:
        DAMAGE[damage](config)
    else:
        # What is an object is transformers' to judge, which takes long to load.
        config.write_text(JSON_DAMAGE[damage].replace("{}", '{"model_type": 3}'))
    stranger.refused("build", "hf:checkpoint", "-o", "new")


@pytest.mark.parametrize(("name", "damage"), pairs(TOML, TOML_DAMAGE))
def test_toml_of_another_kind_is_refused(stranger: Stranger, name: str, damage: str) -> None:  # noqa: F811
    one(stranger, name).write_text(TOML_DAMAGE[damage])
    stranger.refused(*READERS[name])


@pytest.mark.parametrize("command", ["diff", "profile"])
@pytest.mark.parametrize("damage", ["empty", "a cut", "noise", "zeros"])
def test_a_model_that_is_none_is_refused_though_its_hash_is_right(
    stranger: Stranger,  # noqa: F811
    command: str,
    damage: str,
) -> None:
    DAMAGE[damage](stranger.given / "artifact" / ONNX_FILE)
    stranger.vouch(ONNX_FILE, "files")
    artifacts = ("artifact", "artifact") if command == "diff" else ("artifact",)
    result = stranger.read("debug", command, *artifacts)
    # Nothing at all is a model without a graph, which the runtime refuses.
    assert result.code in ((2, 5) if damage == "empty" else (2,)), result.err


@pytest.mark.parametrize(
    "name",
    [
        "../outside/secret",
        "/etc/hostname",
        "a/../../outside/secret",
        "\0",
        "x" * 255,
        "x" * 256,
        "",
        ".",
    ],
)
@pytest.mark.parametrize("part", ["files", "side_files", "assets"])
def test_a_manifest_that_names_what_is_not_in_its_folder(
    stranger: Stranger,  # noqa: F811
    name: str,
    part: str,
) -> None:
    def change(values: dict[str, dict[str, object]]) -> None:
        values[part][name] = {"sha256": "0" * 64, "bytes": 10}

    stranger.edit("artifact/manifest.json", change)
    result = stranger.read("inspect", "artifact")
    left_out = part == "side_files" and name == "x" * 255
    assert result.code == (0 if left_out else 2), result.out


@pytest.mark.parametrize("name", ["weights", "inputs.safetensors"])
def test_tensors_that_lie_elsewhere_are_not_read(stranger: Stranger, name: str) -> None:  # noqa: F811
    outside = stranger.folder / "outside" / name
    shutil.move(stranger.given / "ir" / name, outside)
    (stranger.given / "ir" / name).symlink_to(outside)
    assert "leads out of" in stranger.refused(*DIFF)


def test_a_folder_of_an_artifact_may_itself_be_a_link(stranger: Stranger) -> None:  # noqa: F811
    (stranger.given / "linked").symlink_to("artifact")
    assert stranger.read("inspect", "linked").code == 0


@pytest.mark.parametrize("damage", DAMAGE)
def test_what_is_remembered_and_damaged_is_forgotten(
    stranger: Stranger,  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
    damage: str,
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(stranger.given))
    artifact = stranger.given / "artifact"
    remember_source(artifact, "model.py:make")
    assert recall_source(artifact) == f"{stranger.given / 'model.py'}:make"
    (entry,) = (stranger.given / "strop" / "sources").iterdir()
    DAMAGE[damage](entry)
    assert recall_source(artifact) is None


@pytest.mark.parametrize("damage", JSON_DAMAGE)
def test_a_table_of_measurements_that_is_none_is_refused(damage: str) -> None:
    with pytest.raises(UsageError, match="the cache"):
        Choices.from_json(JSON_DAMAGE[damage], "the cache")


@pytest.mark.parametrize("times", ["{}", '{"1x1": 0}', '{"1x1": -1}', '{"1x1": "2"}', '{"1": NaN}'])
def test_a_table_without_times_is_refused(times: str) -> None:
    text = '{"milliseconds": {"strop.gated": {"default": %s}}}' % times  # noqa: UP031
    with pytest.raises(UsageError, match="the cache"):
        Choices.from_json(text, "the cache")
