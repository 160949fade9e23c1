"""Text of prompts and tokens, by the tokenizer that lies beside the model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from strop.compiler.util.errors import UsageError
from strop.compiler.util.files.reading import MOST_JSON, is_there, read_bytes

TOKENIZER = "tokenizer.json"
# What stands for bytes that are not yet a whole character.
_INCOMPLETE = "\N{REPLACEMENT CHARACTER}"


class Tokenizer:
    """A ``tokenizer.json``, without its truncation and padding."""

    def __init__(self, folder: Path, vocabulary: int) -> None:
        """Read it.

        Args:
            folder: the artifact's, which the file may not lead out of.
            vocabulary: how many tokens the model scores.

        Raises:
            UsageError: it cannot be read, or has more tokens than the model.
        """
        from tokenizers import Tokenizer as Library

        path = folder / TOKENIZER
        content = read_bytes(path, "the tokenizer", most_bytes=MOST_JSON, within=folder)
        try:
            self._library: Any = Library.from_buffer(content)
        except Exception as error:  # the library raises plain exceptions
            raise UsageError(
                f"{path} is no tokenizer of the library tokenizers: {error}"
            ) from error
        self._library.no_truncation()
        self._library.no_padding()
        tokens = self._library.get_vocab_size()
        if tokens > vocabulary:
            raise UsageError(
                f"{path} has {tokens} tokens and the model scores {vocabulary}: it is the "
                "tokenizer of another model"
            )

    def ids(self, text: str) -> list[int]:
        """Token ids of a prompt, with those that the tokenizer puts around every text."""
        return list(self._library.encode(text).ids)

    def text(self, ids: Sequence[int]) -> str:
        """Text of token ids, without special tokens."""
        text: str = self._library.decode(ids, skip_special_tokens=True)
        return text


def read_tokenizer(folder: Path, vocabulary: int) -> Tokenizer | None:
    """The tokenizer of an artifact, where it has one.

    Raises:
        UsageError: it cannot be read, or is another model's.
    """
    return Tokenizer(folder, vocabulary) if is_there(folder / TOKENIZER) else None


class Writer:
    """Text of one row as its tokens come.

    What is not certain yet is held back: bytes that are not a whole character, and the beginning
    of what may become a stop string.

    Attributes:
        stopped: whether a stop string has come.
    """

    def __init__(self, tokenizer: Tokenizer | None, before: Sequence[int], stop: Sequence[str]):
        """Begin behind a prompt.

        Args:
            tokenizer: None where there is no text.
            before: the prompt's last tokens; by them the first token gets its space.
            stop: strings that end the text.
        """
        self.stopped = False
        self._tokenizer, self._stop = tokenizer, stop
        self._ids, self._read, self._held = list(before), len(before), ""

    def add(self, token: int, last: bool) -> str:
        """The text that is certain after one more token; everything after the last one."""
        if self._tokenizer is None:
            return ""
        self._held += self._decoded(self._tokenizer, token, last)
        places = [place for stop in self._stop if (place := self._held.find(stop)) >= 0]
        if places:
            self.stopped = True
            return self._release(min(places))
        return self._release(len(self._held) if last else self._certain())

    def _decoded(self, tokenizer: Tokenizer, token: int, last: bool) -> str:
        """Text of the tokens that are not yet read, where it is whole characters."""
        self._ids.append(token)
        known = tokenizer.text(self._ids[: self._read])
        text = tokenizer.text(self._ids)
        if text.endswith(_INCOMPLETE) and not last:
            return ""
        # The tokens read last are kept: text of a token depends on the one before it.
        self._ids, self._read = self._ids[self._read :], len(self._ids) - self._read
        return text[len(known) :]

    def _certain(self) -> int:
        """How many of the held characters cannot become part of a stop string."""
        held = self._held
        return next((i for i in range(len(held)) if self._may_stop(held[i:])), len(held))

    def _may_stop(self, text: str) -> bool:
        return any(stop.startswith(text) for stop in self._stop)

    def _release(self, count: int) -> str:
        released, self._held = self._held[:count], self._held[count:]
        return released
