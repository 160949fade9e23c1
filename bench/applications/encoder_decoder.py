"""The steps from pairs of texts to artifacts that generate; each application calls them in turn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from strop.bench.applications.corpus import Corpus
from strop.bench.applications.programs import programs
from strop.bench.applications.scores import Score, means
from strop.bench.applications.sequences import INPUTS, loss
from strop.bench.applications.stages import TORCH, Stage
from strop.bench.applications.timing import CORES, InTorch, saved, timed
from strop.bench.applications.transformer import Sizes, Transformer, Weights
from strop.bench.applications.writers import Files, Modules, TimedInTorch, Writer
from strop.bench.harness.decoding import CACHED, PROMPT, Loop
from strop.bench.harness.engines import Engine
from strop.bench.harness.subject import Feeds
from strop.bench.records.figures import console
from strop.bench.trials.arms import drawn
from strop.bench.trials.fit import fit
from strop.compiler import Artifact, Model, build
from strop.compiler.driver.driver import compile_program
from strop.compiler.frontend.model import DimSpec
from strop.compiler.recipes.loading import asked_recipe
from strop.passes.train import Policy

INT8 = "-int8"
RECIPES = {
    "trained": "cpu-fp32",
    "trained-int8": "cpu-int8",
    "pruned": "cpu-fp32",
    "recovered": "cpu-fp32",
    "recovered-int8": "cpu-int8",
}
"""How the weights of each stage are built."""
_TIMED = {"1 text": 1, "32 texts": 32}


def trained(corpus: Corpus, policy: Policy) -> Transformer:
    """A Transformer that learned the pairs, the tokens before each token given."""
    with console.status("training") as status:
        module = drawn(lambda: Transformer(corpus.sizes), policy.seed)
        fit(module, INPUTS, loss, corpus.train, policy, status.update)
    assert isinstance(module, Transformer)
    return module


def whole(module: Transformer, corpus: Corpus) -> Model:
    """Encoder and decoder as one program, which is pruned and learns from the original."""
    most = corpus.sizes.context
    batch, source, target = ("batch", 1, 64), ("source", 1, most), ("target", 1, most)
    axes: dict[str, dict[int, DimSpec]] = {
        "input_ids": {0: batch, 1: source},
        "attention_mask": {0: batch, 1: source},
        "decoder_input_ids": {0: batch, 1: target},
    }
    shown = [{name: one[name] for name in INPUTS} for one in corpus.calibration()]
    return Model(module, shown[0], dynamic=axes, calibration=shown, train=corpus.train, loss=loss)


def compressed(model: Model, settings: Sequence[str]) -> dict[str, Weights]:
    """The weights after pruning, and after recovery, by the names that they had in the module."""
    recipe = asked_recipe("cpu-pruned-fp32", settings)
    found: dict[str, Weights] = {}
    for stage, last in (("pruned", "prune-heads"), ("recovered", "recover")):
        with console.status(f"passes up to {last}"):
            program = compile_program(model, recipe, stop_after=last)
        found[stage] = {name: weight.detach() for name, weight in program.weights.items()}
    return found


def built(weights: Mapping[str, Weights], corpus: Corpus, folder: Path) -> dict[str, Artifact]:
    """An artifact for each stage, in a folder of its name.

    Args:
        weights: "trained", "pruned" and "recovered" ones.
        corpus: what is calibrated with; its tokenizer is shipped.
        folder: for the artifacts.
    """
    tokenizer = folder / "tokenizer.json"
    corpus.tokenizer.save(str(tokenizer))
    made = {}
    for stage, recipe in RECIPES.items():
        with console.status(f"building: {stage}") as status:
            of = weights[stage.removesuffix(INT8)]
            given = programs(of, corpus.sizes, corpus.calibration(), tokenizer)
            # What is lost is measured here, and not refused.
            asked = asked_recipe(recipe, ["budget.min_cosine=0"])
            made[stage] = build(given, folder / stage, asked, progress=status.update)
    return made


def measured(
    weights: Weights,
    artifacts: Mapping[str, Artifact],
    corpus: Corpus,
    scores: Mapping[str, Score],
    folder: Path,
) -> list[Stage]:
    """How well and how fast the original in torch and each artifact write targets of the test."""
    writers: dict[str, Writer] = {
        TORCH: Modules(weights, corpus),
        **{stage: Files(artifact, corpus) for stage, artifact in artifacts.items()},
    }
    sources, wanted = [p.source for p in corpus.test], [p.target for p in corpus.test]
    rounds = timed(engines(weights, artifacts, corpus.sizes, folder), _feeds(corpus))
    made = []
    for stage, write in writers.items():
        with console.status(f"writing: {stage}"):
            quality = means(scores, write(sources), wanted)
            quality["perplexity"] = write.perplexity(corpus.test)
        size = artifacts[stage].size / 1e6 if stage in artifacts else None
        made.append(Stage(stage, quality, rounds[stage], size))
    return made


def engines(
    weights: Weights, artifacts: Mapping[str, Artifact], sizes: Sizes, folder: Path
) -> list[Engine]:
    """The original in torch, whose weights are saved for it, and each artifact in strop's loop."""
    original = InTorch(TORCH, CORES, saved(weights, folder), partial(TimedInTorch, sizes))
    return [original, *(Loop(name, CORES, one.path) for name, one in artifacts.items())]


def _feeds(corpus: Corpus) -> dict[str, Feeds]:
    """What is timed: the first token for some sources, and each further one."""
    found: dict[str, Feeds] = {}
    for task, rows in _TIMED.items():
        sources = [pair.source for pair in corpus.test[:rows]]
        ids = corpus.tokens(sources)["input_ids"].numpy()
        found |= {f"{task}, first token": {PROMPT: ids}, f"{task}, next token": {CACHED: ids}}
    return found
