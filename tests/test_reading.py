"""The one reader of outside files: what it takes, and what it refuses in a sentence."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from typing import Any

import pydantic
import pytest

from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.parsing import MOST_DEPTH, Strict, parse_json, parse_toml, validated
from strop.compiler.util.files.reading import file_hash, read_bytes, read_json, read_text, read_toml


def test_a_regular_file_is_read(tmp_path: Path) -> None:
    file = tmp_path / "values.json"
    file.write_text('{"a": [1, 2.5, null, true, "b"]}')
    assert read_json(file, "the file") == {"a": [1, 2.5, None, True, "b"]}
    file.write_text("a.b = 1\n[c]\nd = [1, {e = 'f.g.h'}]")
    assert read_toml(file, "the file") == {"a": {"b": 1}, "c": {"d": [1, {"e": "f.g.h"}]}}
    assert read_bytes(file, "the file", within=tmp_path) == file.read_bytes()


def _fifo(path: Path) -> None:
    os.mkfifo(path)


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


def _loop(path: Path) -> None:
    path.symlink_to(path)


def _holes(path: Path) -> None:
    with path.open("wb") as stream:
        stream.truncate(1 << 40)


ODD: dict[str, Any] = {
    "a pipe": _fifo,
    "a socket": _socket,
    "a folder": Path.mkdir,
    "a loop of links": _loop,
    "a file of holes": _holes,
    "an endless device": lambda path: path.symlink_to("/dev/zero"),
    "a terminal": lambda path: path.symlink_to("/dev/tty"),
    "nothing": lambda path: None,
}


@pytest.mark.parametrize("kind", ODD)
def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "odd"
    ODD[kind](path)
    for read in (read_bytes, read_text, read_json, read_toml, file_hash):
        with pytest.raises(UsageError, match=r"the thing .*/odd (cannot be read|is )"):
            read(path, "the thing")


def test_a_name_with_a_zero_byte_is_refused() -> None:
    with pytest.raises(UsageError, match="cannot be read"):
        read_bytes(Path("a\0b"), "the thing")
    with pytest.raises(UsageError, match="cannot be read"):
        read_bytes(Path("a\0b"), "the thing", within=Path())


def test_a_file_is_read_up_to_its_bound(tmp_path: Path) -> None:
    file = tmp_path / "large"
    file.write_bytes(b"x" * 100)
    assert len(read_bytes(file, "the file", most_bytes=100)) == 100
    with pytest.raises(UsageError, match="is larger than 99 bytes"):
        read_bytes(file, "the file", most_bytes=99)


def test_a_file_that_grows_without_end_is_bounded(tmp_path: Path) -> None:
    # It says that it has no bytes, and gives more than asked for.
    with pytest.raises(UsageError, match="is larger than 2 bytes"):
        read_bytes(Path("/proc/self/maps"), "the map", most_bytes=2)


@pytest.mark.parametrize("name", ["../secret", "link", "sub/link"])
def test_a_file_that_leads_out_of_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder = tmp_path / "folder"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "secret").write_text("secret")
    (folder / "link").symlink_to(tmp_path / "secret")
    (folder / "sub" / "link").symlink_to("../../secret")
    with pytest.raises(UsageError, match="leads out of"):
        read_text(folder / name, "the file", within=folder)


def test_a_link_that_stays_in_its_folder_is_read(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("text")
    (tmp_path / "link").symlink_to("file")
    assert read_text(tmp_path / "link", "the file", within=tmp_path) == "text"


def test_text_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match="is not text in UTF-8"):
        read_text(tmp_path / "file", "the file")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "is not JSON"),
        ("{", "is not JSON"),
        ('{"a": 1, "a": 2}', "the key 'a' is there twice"),
        ('[{"b": {"a": 1, "a": 2}}]', "the key 'a' is there twice"),
        ("NaN", "NaN is no number"),
        ("[-Infinity]", "-Infinity is no number"),
        ("1e999", "larger than any number"),
        ("9" * 25, "more than 64 bits"),
        ("9" * 10_000, "more than 64 bits"),
        (r'"\ud800"', "is not JSON, or damaged"),
        ("[" * 100_000 + "]" * 100_000, "nests deeper"),
        ('{"a":' * 100_000 + "1" + "}" * 100_000, "nests deeper"),
        ("[" * (MOST_DEPTH + 1) + "]" * (MOST_DEPTH + 1), "nests deeper"),
    ],
)
def test_json_that_nothing_should_have_to_deal_with_is_refused(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says) as refusal:
        parse_json(text, "the text")
    assert str(refusal.value).startswith("the text ")


def test_json_of_the_bounds_is_read() -> None:
    deep = "[" * (MOST_DEPTH - 1) + "]" * (MOST_DEPTH - 1)
    assert json.dumps(parse_json(deep, "the text")).replace(" ", "") == deep
    assert parse_json(str(2**64 - 1), "the text") == 2**64 - 1
    assert parse_json(r'"\ud83d\ude00"', "the text") == "\U0001f600"


@pytest.mark.parametrize(
    "text",
    [
        "a = " + "[" * 100_000 + "]" * 100_000,
        "a = " + "{a=" * 100_000 + "1" + "}" * 100_000,
        ".".join("a" * 100_000) + " = 1",
        " . ".join(["'a'"] * 100_000) + " = 1",
        f"[{'.'.join('a' * 100_000)}]",
        f"b = {{{'.'.join(['a.b'] * 50_000)} = 1}}",
        "a = " + "[" * MOST_DEPTH + "]" * MOST_DEPTH,
    ],
)
def test_toml_that_nests_deep_is_refused_at_once(text: str) -> None:
    with pytest.raises(UsageError, match="the text nests deeper than"):
        parse_toml(text, "the text")


@pytest.mark.parametrize("text", ["a = ", "a = 1\na = 2", "a = " + "9" * 10_000, "\0"])
def test_toml_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="the text: "):
        parse_toml(text, "the text")


class _Numbers(Strict):
    count: int
    share: float
    more: dict[str, list[int]] = {}


class _Whole(Strict):
    numbers: list[_Numbers] = pydantic.Field(min_length=1)


@pytest.mark.parametrize(
    ("values", "place"),
    [
        ({"numbers": [{"count": "12", "share": 1.0}]}, "numbers.0.count"),
        ({"numbers": [{"count": True, "share": 1.0}]}, "numbers.0.count"),
        ({"numbers": [{"count": 1.0, "share": 1.0}]}, "numbers.0.count"),
        ({"numbers": [{"count": 1, "share": "1.0"}]}, "numbers.0.share"),
        ({"numbers": [{"count": 1, "share": float("inf")}]}, "numbers.0.share"),
        ({"numbers": [{"count": 1}]}, "numbers.0.share"),
        ({"numbers": []}, "numbers"),
        ({"numbers": {}}, "numbers"),
        ({}, "numbers"),
    ],
)
def test_types_are_taken_as_they_are(values: dict[str, Any], place: str) -> None:
    with pytest.raises(UsageError, match=f"the text is damaged at '{place}': "):
        validated(_Whole, values, "the text")


@pytest.mark.parametrize("values", [[], 3, None, "text"])
def test_values_of_another_kind_are_refused(values: Any) -> None:
    with pytest.raises(UsageError, match="the text is damaged: "):
        validated(_Whole, values, "the text")


def test_what_was_validated_is_given_back() -> None:
    made = validated(_Whole, {"numbers": [{"count": 1, "share": 2}]}, "the text")
    assert made.numbers[0].share == 2.0
