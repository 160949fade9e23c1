"""What the three applications learn from, and how their texts are scored."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
import torch

from strop.bench.applications import functions as library
from strop.bench.applications import phrases, sequences
from strop.bench.applications.scores import exact_match, f1, means, rouge_l
from strop.bench.applications.sequences import Pair
from strop.bench.applications.transformer import END, PAD, START
from strop.bench.models import text
from strop.passes.distill.losses import IGNORED

SOURCE = '''
def area(width, height=2.5):
    """Return the area of a rectangle. It is a number.

    Another paragraph."""
    # a comment
    return width * height

@decorated
async def wait(self, seconds, /, *, why="no reason"):
    """wait for so many seconds"""

def silent(x):
    return x
'''


def test_functions_are_read_with_their_docstrings_apart() -> None:
    area, wait = library._of(ast.parse(SOURCE))
    assert area == library.Function(
        "area",
        (("width", ""), ("height", "2.5")),
        "Return the area of a rectangle. It is a number.",
        "Return the area of a rectangle.",
        "def area(width, height=2.5):\n    return width * height",
    )
    assert wait.parameters == (("self", ""), ("seconds", ""))
    assert (wait.docstring, wait.summary) == ("wait for so many seconds", "")
    assert wait.body == "async def wait(self, seconds, /, *, why='no reason'):\n    pass"


@pytest.mark.parametrize(
    "paragraph, first",
    [
        ("Give a name. Then more.", "Give a name."),
        ("Give a name to it", "Give a name to it"),
        ("Short. Then more.", ""),
        ("x = f(x) if x < 3 else 0", ""),
        ("Give " + "many " * 30 + "names.", ""),
    ],
)
def test_a_summary_is_one_sentence(paragraph: str, first: str) -> None:
    assert text.first_sentence(paragraph) == first


def test_what_is_tested_on_trains_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def tree(count: int) -> ast.Module:
        lines = (f'def f{i}():\n    """Return the number {i} of all."""' for i in range(count))
        return ast.parse("\n".join(lines))

    modules = [(text.STDLIB / f"m{i}.py", tree(3 if i else 5)) for i in range(60)]
    monkeypatch.setattr(library, "trees", lambda root: iter(modules))
    library.functions.cache_clear()
    parts = {part: library.functions(part) for part in ("train", "validation", "test")}
    library.functions.cache_clear()
    # All modules but one have the same functions, which are left out where nothing trains.
    assert [len(found) for found in parts.values()] in ([5, 0, 0], [3, 2, 0], [3, 0, 2])


def test_phrases_are_split_and_each_is_there_once() -> None:
    pytest.importorskip("babel")
    parts = [phrases.phrases(part) for part in ("train", "validation", "test")]
    sources = [pair.source for found in parts for pair in found]
    assert len(sources) == len(set(sources)) > 5000
    assert [len(found) / len(sources) for found in parts] == pytest.approx(
        [0.8, 0.1, 0.1], abs=0.02
    )
    known = {pair for found in parts for pair in found}
    assert Pair("Friday, July 14, 2023", "Freitag, 14. Juli 2023") in known
    assert Pair("German (Austria)", "Deutsch (Österreich)") in known
    assert not any(pair.source == pair.target for pair in known)


def test_batches_hold_shifted_targets() -> None:
    pairs = [Pair("one two", "eins zwei"), Pair("three", "drei"), Pair("four", "vier vier vier")]
    tokenizer = sequences.learned_tokenizer(pairs, 300)
    first, second = sequences.batches(pairs, tokenizer, rows=2, context=12)
    assert [len(first["labels"]), len(second["labels"])] == [2, 1]
    for batch in (first, second):
        labels, given = batch["labels"], batch["decoder_input_ids"]
        assert given[:, 0].eq(START).all()
        real = labels.ne(IGNORED)
        # Each token of the target is given in the step after the one in which it is wanted.
        assert labels[:, :-1][real[:, 1:]].equal(given[:, 1:][real[:, 1:]])
        assert labels.gather(1, real.sum(1, keepdim=True) - 1).eq(END).all()
        assert batch["attention_mask"].equal(batch["input_ids"].ne(PAD).long())
    assert sequences.batches(pairs, tokenizer, 3, context=4)[0]["input_ids"].shape[1] <= 3


def test_a_tokenizer_gives_texts_back(tmp_path: Path) -> None:
    from tokenizers import Tokenizer

    pairs = [Pair("Åland Islands, 3 m²", "Ålandinseln, 3 m²")]
    sequences.learned_tokenizer(pairs, 300).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert tokenizer.decode(tokenizer.encode(pairs[0].target).ids) == pairs[0].target
    assert [tokenizer.token_to_id(name) for name in sequences.SPECIAL] == list(range(4))


@pytest.mark.parametrize(
    "score, found, wanted, value",
    [
        (exact_match, " a b ", "a b", 1),
        (exact_match, "a B", "a b", 0),
        (f1, "the red cat", "the cat", 0.8),
        (f1, "a a a", "a", 0.5),
        (f1, "x", "y", 0),
        (f1, "", "...", 1),
        (rouge_l, "a b c d", "a c b d", 0.75),
        (rouge_l, "B, a", "a b", 0.5),
    ],
)
def test_scores(score: object, found: str, wanted: str, value: float) -> None:
    assert score(found, wanted) == pytest.approx(value)  # type: ignore[operator]


def test_means_are_percent() -> None:
    assert means({"exact": exact_match}, ["a", "b"], ["a", "c"]) == {"exact": 50}


def test_the_loss_leaves_padding_out() -> None:
    logits = torch.zeros(1, 2, 4)
    labels = torch.tensor([[1, IGNORED]])
    found = sequences.loss({"logits": logits}, {"labels": labels})
    assert found == pytest.approx(torch.tensor(4.0).log().item())
