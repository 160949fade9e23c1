"""Summarization: the first sentence of a docstring from the source of its function.

``python -m strop.bench.applications.summarization`` trains a small Transformer on functions of the
standard library, whose docstrings it does not see; prunes half of its heads and inner channels;
lets what is left learn from the original; and builds encoder and decoder in float32 and in int8.
Each stage writes a sentence about the same functions, which are in modules that nothing was trained
on.
"""

from __future__ import annotations

import re

import typer

from strop.bench.applications.corpus import Corpus
from strop.bench.applications.encoder_decoder import built, compressed, measured, trained, whole
from strop.bench.applications.functions import functions
from strop.bench.applications.scores import f1, rouge_l
from strop.bench.applications.sequences import Pair
from strop.bench.applications.stages import Out, folder_for, report
from strop.bench.applications.transformer import Sizes
from strop.bench.models.text import Part
from strop.bench.records.figures import RESULTS, ResultsFolder
from strop.passes.train import Policy

# What a function does shows in its first words; more of them make training slow.
SIZES, ROWS, TESTED = Sizes(vocabulary=2000, context=48), 32, 256
TRAINING = Policy(steps=1500, lr=2e-3, held_out=0)
LEARNING = (
    "prune-heads.share=0.5",
    "recover.minutes=0",
    "recover.steps=300",
    "recover.lr=1e-3",
    "recover.hard=1",
    "budget.min_cosine=0",  # what is lost is measured here, and not refused
)
SCORES = {"ROUGE-L": rouge_l, "F1": f1}


def pairs(part: Part) -> list[Pair]:
    """Words of functions without their docstrings, and the sentences that these begin with.

    Both are in lower case, so that a word is the same tokens in the source and in the sentence.
    """
    return [Pair(words_of(one.body), one.summary.lower()) for one in functions(part) if one.summary]


def words_of(source: str) -> str:
    """The words that names and numbers consist of: ``setLevel(new_level)`` is set level new level.

    A small model learns from them which words to repeat; and more of a source fits the context.
    """
    return " ".join(re.findall(r"[A-Z]?[a-z]+|[A-Z]+|[0-9]+", source)).lower()


def main(out: Out = None, results: ResultsFolder = RESULTS) -> None:
    """Train, prune and distil, quantize, build, and generate; compare every stage."""
    corpus = Corpus.of(pairs("train"), pairs("test")[:TESTED], SIZES, ROWS)
    module = trained(corpus, TRAINING)
    weights = {"trained": module.state_dict()} | compressed(whole(module, corpus), LEARNING)
    with folder_for(out) as folder:
        artifacts = built(weights, corpus, folder)
        found = measured(weights["trained"], artifacts, corpus, SCORES, folder)
    title = "First sentences of docstrings, of functions in modules that nothing was trained on"
    report("summarization", title, found, results, training=vars(TRAINING), settings=LEARNING)


if __name__ == "__main__":
    typer.run(main)
