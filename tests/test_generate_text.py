"""Text of tokens as they come: whole characters, stop strings, tokenizers of other models."""

from __future__ import annotations

import pytest
from generate_tools import byte_tokenizer, scripted

from strop.compiler.generate.generator import generate
from strop.compiler.generate.settings import Settings
from strop.compiler.generate.text import TOKENIZER, Tokenizer, Writer, read_tokenizer
from strop.compiler.util.errors import UsageError


@pytest.fixture
def by_bytes(tmp_path) -> Tokenizer:
    byte_tokenizer(tmp_path)
    return Tokenizer(tmp_path, 256)


def pieces(tokenizer, text, stop=(), **called):
    """The text that comes with each token of a text, and the ids."""
    tokens = list(text.encode()) if isinstance(text, str) else list(text)
    model = scripted(tokens, tokenizer, **called)
    settings = Settings(max_new=len(tokens), stop=tuple(stop))
    made = list(generate(model, "x", settings))
    return [token.text for token in made], [token.id for token in made]


def test_bytes_of_a_character_are_held_back_until_it_is_whole(by_bytes) -> None:
    texts, ids = pieces(by_bytes, "aé€🙂b")
    assert texts == ["a", "", "é", "", "", "€", "", "", "", "🙂", "b"]
    assert bytes(ids).decode() == "aé€🙂b"


def test_what_is_not_a_whole_character_at_the_end_is_shown_as_such(by_bytes) -> None:
    texts, _ = pieces(by_bytes, "aé".encode()[:-1])
    assert texts == ["a", "�"]


def test_a_stop_string_ends_a_text_before_it(by_bytes) -> None:
    texts, ids = pieces(by_bytes, "one.\n\ntwo", ["\n\n"])
    assert "".join(texts) == "one."
    assert bytes(ids) == b"one.\n\n"


def test_what_may_become_a_stop_string_is_held_back(by_bytes) -> None:
    texts, _ = pieces(by_bytes, "a.\n.b", [".\n\n"])
    assert texts == ["a", "", "", ".\n", ".b"]


def test_the_first_of_several_stop_strings_ends_it(by_bytes) -> None:
    assert "".join(pieces(by_bytes, "abcdef", ["ef", "cd"])[0]) == "ab"
    # Both are complete with the same token.
    assert "".join(pieces(by_bytes, "abcdef", ["cd", "bcd"])[0]) == "a"


def test_text_that_looked_like_a_stop_string_comes_at_the_end(by_bytes) -> None:
    assert pieces(by_bytes, "ab", ["bc"])[0] == ["a", "b"]


def test_an_end_token_brings_out_what_was_held_back(by_bytes) -> None:
    texts, ids = pieces(by_bytes, "ab!c", ["b!!"], eos=(ord("!"),))
    assert (texts, bytes(ids)) == (["a", "", "b!"], b"ab!")


def test_special_tokens_have_no_text(tmp_path) -> None:
    made = byte_tokenizer(tmp_path)
    made.add_special_tokens(["<end>"])
    made.save(str(tmp_path / TOKENIZER))
    tokenizer = Tokenizer(tmp_path, 257)
    assert tokenizer.text([97, 256, 98]) == "ab"
    assert tokenizer.ids("a<end>") == [97, 256]


def test_the_first_word_keeps_the_space_before_it(tmp_path) -> None:
    """Decoders of SentencePiece drop the space of the first token that they are given."""
    from tokenizers import Tokenizer as Library
    from tokenizers import decoders, models

    made = Library(models.WordLevel({"▁a": 0, "▁b": 1, "c": 2}, "c"))
    made.decoder = decoders.Metaspace()
    made.save(str(tmp_path / TOKENIZER))
    tokenizer = Tokenizer(tmp_path, 3)
    writer = Writer(tokenizer, [0], ())
    assert [writer.add(1, False), writer.add(2, False), writer.add(0, True)] == [" b", "c", " a"]


def test_truncation_and_padding_of_the_file_do_not_apply(tmp_path) -> None:
    made = byte_tokenizer(tmp_path)
    made.enable_truncation(2)
    made.enable_padding(length=9)
    made.save(str(tmp_path / TOKENIZER))
    assert Tokenizer(tmp_path, 256).ids("abcd") == list(b"abcd")


def test_the_tokenizer_of_another_model_is_refused(tmp_path) -> None:
    byte_tokenizer(tmp_path)
    Tokenizer(tmp_path, 256)
    with pytest.raises(
        UsageError, match="has 256 tokens and the model scores 255: it is the token"
    ):
        Tokenizer(tmp_path, 255)


@pytest.mark.parametrize("content", ["", "{}", "[1]", '{"version": "1.0"}', "\x00"])
def test_a_file_that_is_no_tokenizer_is_refused(tmp_path, content) -> None:
    (tmp_path / TOKENIZER).write_text(content)
    with pytest.raises(UsageError, match="tokenizer.json is no tokenizer of the library"):
        read_tokenizer(tmp_path, 256)


def test_a_link_out_of_the_folder_is_refused(tmp_path) -> None:
    (tmp_path / "a").mkdir()
    byte_tokenizer(tmp_path)
    (tmp_path / "a" / TOKENIZER).symlink_to(tmp_path / TOKENIZER)
    with pytest.raises(UsageError, match="leads out of"):
        read_tokenizer(tmp_path / "a", 256)


def test_without_a_tokenizer_prompts_are_ids(tmp_path) -> None:
    assert read_tokenizer(tmp_path, 256) is None
    model = scripted([7, 8])
    made = list(generate(model, [3], Settings(max_new=2)))
    assert [(t.row, t.id, t.text) for t in made] == [(0, 7, ""), (0, 8, "")]
    with pytest.raises(UsageError, match="the prompt is text, and there is no tokenizer.json"):
        generate(model, "a", Settings())
    with pytest.raises(UsageError, match="a stop string needs a tokenizer.json"):
        generate(model, [3], Settings(stop=("a",)))


@pytest.mark.parametrize("prompts", [["a", "bc"], [[97], [98, 99]], ["a", [98, 99]]])
def test_prompts_may_be_several(by_bytes, prompts) -> None:
    made = list(generate(scripted(b"hi", by_bytes), prompts, Settings(max_new=2)))
    assert [(t.row, t.text) for t in made] == [(0, "h"), (1, "h"), (0, "i"), (1, "i")]


def test_arrays_and_tensors_are_prompts_too() -> None:
    import numpy as np
    import torch

    for prompts in (np.array([4, 5]), torch.tensor([4, 5])):
        assert len(list(generate(scripted([7]), prompts, Settings(max_new=1)))) == 1
    for prompts in (np.array([[4, 5], [6, 7]]), torch.tensor([[4, 5], [6, 7]])):
        assert len(list(generate(scripted([7]), prompts, Settings(max_new=1)))) == 2


def test_problems_with_prompts_are_told_before_the_first_token_is_asked_for() -> None:
    with pytest.raises(UsageError, match="prompt 0 holds the token id 256"):
        generate(scripted([7]), [256], Settings())
    with pytest.raises(UsageError, match="a prompt holds 2.5; token ids are whole numbers"):
        generate(scripted([7]), [1, 2.5], Settings())
    with pytest.raises(UsageError, match="the model's caches hold 64"):
        generate(scripted([7]), [3], Settings(max_new=64))
