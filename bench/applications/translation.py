"""Translation: English phrases into German, by the textbook's encoder-decoder Transformer.

``python -m strop.bench.applications.translation`` trains a small Transformer, made of torch's own
parts, on names, dates and measures of CLDR; prunes half of its heads and inner channels; lets what
is left learn from the original; and builds encoder and decoder in float32 and in int8. Each stage
translates the same phrases, which nothing was trained on.
"""

from __future__ import annotations

import typer

from strop.bench.applications.corpus import Corpus
from strop.bench.applications.encoder_decoder import built, compressed, measured, trained, whole
from strop.bench.applications.phrases import phrases
from strop.bench.applications.scores import exact_match, f1
from strop.bench.applications.stages import Out, folder_for, report
from strop.bench.applications.transformer import Sizes
from strop.bench.records.figures import RESULTS, ResultsFolder
from strop.passes.train import Policy

SIZES, ROWS, TESTED = Sizes(vocabulary=1000, context=48), 64, 384
TRAINING = Policy(steps=1500, lr=2e-3, held_out=0)
LEARNING = (
    "prune-heads.share=0.5",
    "recover.minutes=0",
    "recover.steps=600",
    "recover.lr=1e-3",
    "recover.hard=1",
    "budget.min_cosine=0",  # what is lost is measured here, and not refused
)
SCORES = {"exact match": exact_match, "F1": f1}


def main(out: Out = None, results: ResultsFolder = RESULTS) -> None:
    """Train, prune and distil, quantize, build, and generate; compare every stage."""
    corpus = Corpus.of(phrases("train"), phrases("test")[:TESTED], SIZES, ROWS)
    module = trained(corpus, TRAINING)
    weights = {"trained": module.state_dict()} | compressed(whole(module, corpus), LEARNING)
    with folder_for(out) as folder:
        artifacts = built(weights, corpus, folder)
        found = measured(weights["trained"], artifacts, corpus, SCORES, folder)
    title = "English phrases into German, percent of phrases that nothing was trained on"
    report("translation", title, found, results, training=vars(TRAINING), settings=LEARNING)


if __name__ == "__main__":
    typer.run(main)
