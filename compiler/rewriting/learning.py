"""Passes that learn from data. The learned tensors are cached, so that training runs once.

Such a pass has two halves. ``learn`` may train for hours and gives plain tensors and facts;
``apply_learned`` rewrites the program by them, at once and the same way every time. What ``learn``
gives is kept under a hash of everything that it depends on: the program and its weights, the pass
and its options, the data, the seed and the versions.
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from strop.compiler.ir.printer import program_text
from strop.compiler.ir.program import Program
from strop.compiler.ir.snapshots.weight_store import read_tensors, write_tensors
from strop.compiler.rewriting.code_identity import code_identity
from strop.compiler.rewriting.context import Batches, Context, Need, Needs, digest_of, named, seeded
from strop.compiler.rewriting.passes import Pass
from strop.compiler.rewriting.rules import Log
from strop.compiler.util.cache import Cache
from strop.compiler.util.errors import UsageError, VerifyError
from strop.compiler.util.files.parsing import Strict, validated
from strop.compiler.util.files.reading import file_hash, read_json
from strop.compiler.util.ranks import rank

PACKAGES = ("strop", "torch", "numpy")
TENSORS, FACTS = "tensors.safetensors", "facts.json"
Source = Mapping[str, Any]
"""What was learned from: hashes of the program, of the teacher and of the data, and the seed."""


@dataclass(frozen=True)
class Learned:
    """What a pass learned.

    Attributes:
        tensors: by name; by default new values of the weights of that name.
        facts: numbers and text that JSON holds.
        notes: what the user should know, in sentences; for the manifest.
    """

    tensors: Mapping[str, torch.Tensor] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class WeightHashes:
    """Hashes of tensors, each computed once; valid as long as nothing writes to them."""

    def __init__(self) -> None:
        # A tensor is kept with its hash: the id of one that is gone may be given to another.
        self._known: dict[int, tuple[torch.Tensor, bytes]] = {}

    def of(self, tensor: torch.Tensor) -> bytes:
        """The hash of a tensor's dtype, shape and elements."""
        if id(tensor) not in self._known:
            digest = hashlib.sha256()
            digest_of(tensor, digest)
            self._known[id(tensor)] = tensor, digest.digest()
        return self._known[id(tensor)][1]


class _StoredFacts(Strict):
    strop_learned: Literal[1]
    sha256: str
    facts: dict[str, Any]
    notes: list[str]


@dataclass(frozen=True)
class LearningPass(Pass):
    """A pass that learns; ``needs`` lists the data that it requires."""

    needs: ClassVar[Needs] = ("train",)

    @abstractmethod
    def learn(self, program: Program, context: Context) -> Learned:
        """Train; this may take long. Must not change ``program`` or its weights."""

    def teacher_in(self, context: Context) -> Program | None:
        """The program that it learns from; by default the one as captured."""
        return context.teacher

    def reads(self) -> Sequence[Need]:
        """The data that it looks at where the model has them: they count for what it learns."""
        return [need for need in named(self.required()) if need in ("calibration", "train")]

    def apply_learned(self, program: Program, log: Log, learned: Learned) -> None:
        """Rewrite ``program`` in place; by default give weights the values learned for them."""
        for name, tensor in learned.tensors.items():
            program.set_weight(name, tensor, made_by=self.name)
            log.changed_weight(self.name, name)

    def apply_learned_in(
        self, program: Program, log: Log, learned: Learned, context: Context
    ) -> None:
        """The same for a pass that reads its context; other passes do not override this."""
        self.apply_learned(program, log, learned)

    def apply(self, program: Program, log: Log) -> None:
        """Learn without data, outside of a build."""
        self.apply_in(program, log, Context())

    def apply_in(self, program: Program, log: Log, context: Context) -> None:
        """Learn, or take the cached result, and rewrite the program with it."""
        context = replace(context, teacher=self.teacher_in(context))
        source = self._source(program, context)
        learned = self._learned(program, context, source)
        log.notes.extend(learned.notes)
        log.learned = {"from": source, "facts": dict(learned.facts)}
        self.apply_learned_in(program, log, learned, context)

    def _learned(self, program: Program, context: Context, source: Source) -> Learned:
        if context.cache is None:
            return self._learn(program, context, source)
        key = self._key(source, context)
        known = _recall(context.cache, key, self.name, context)
        if known is not None:
            context.progress(f"pass {self.name}: taken from the cache")
            return known
        with ExitStack() as stack:
            try:
                kept = stack.enter_context(context.cache.under_way(key))
            except UsageError as error:
                self._say_not_kept(context, error)
                return self._learn(program, context, source)
            learned = self._learn(program, replace(context, kept=kept), source)
            if rank() == 0:  # of several processes the first one keeps it
                try:
                    context.cache.put(key, lambda folder: _write(learned, folder))
                except UsageError as error:
                    self._say_not_kept(context, error)
        return learned

    def _say_not_kept(self, context: Context, error: UsageError) -> None:
        context.say(f"what pass '{self.name}' learned is not kept: {error}")

    def _learn(self, program: Program, context: Context, source: Source) -> Learned:
        with (
            tempfile.TemporaryDirectory(prefix="strop-learning-") as folder,
            seeded(context.seed),
            torch.enable_grad(),
        ):
            found = self.learn(program.clone(), replace(context, scratch=Path(folder)))
        # Hashed anew: torch's own counters do not see every write.
        if _digest(program, WeightHashes()) != source["program"]:
            raise VerifyError(
                "it writes to a weight in place while it learns, which programs from before it "
                "share; train copies, and give them in Learned"
            )
        tensors = {name: t.detach().contiguous() for name, t in found.tensors.items()}
        return Learned(tensors, dict(found.facts), tuple(found.notes))

    def key(self, program: Program, context: Context) -> str:
        """What ``learn`` depends on, as a name for the cache."""
        context = replace(context, teacher=self.teacher_in(context))
        return self._key(self._source(program, context), context)

    def _key(self, source: Source, context: Context) -> str:
        known = {
            "pass": (type(self).__module__, type(self).__qualname__, _code_of_pass(type(self))),
            "options": self.options(),
            "target": context.target.name,
            "from": source,
            "versions": [version(package) for package in PACKAGES],
            "functions": [
                code_identity(f)
                for f in (context.loss, context.evaluate, *self.uses())
                if f is not None
            ],
        }
        text = json.dumps(known, sort_keys=True, default=repr)
        return f"{self.name}-{hashlib.sha256(text.encode()).hexdigest()[:32]}"

    def _source(self, program: Program, context: Context) -> Source:
        """Hashes of what it learns from: program, teacher and data; and the seed."""
        hashes = WeightHashes()
        return {
            "program": _digest(program, hashes),
            "teacher": None if context.teacher is None else _digest(context.teacher, hashes),
            "data": {
                need: _data_digest(getattr(context, need), context.seed)
                for need in sorted(self.reads())
            },
            "seed": context.seed,
        }


def _digest(program: Program, hashes: WeightHashes) -> str:
    """The hash of a program's text and weights."""
    digest = hashlib.sha256(program_text(program).encode())
    digest_of({name: hashes.of(tensor) for name, tensor in program.weights.items()}, digest)
    return digest.hexdigest()


def _data_digest(batches: Batches | None, seed: int) -> str | None:
    """The hash of all batches; what the user's code draws for them depends on the seed alone."""
    if batches is None:
        return None
    digest = hashlib.sha256()
    with seeded(seed):
        for batch in batches:
            digest_of(batch, digest)
    return digest.hexdigest()


def _code_of_pass(kind: type[Pass]) -> str:
    """The hash of the file that holds a pass; of one of strop's, of all of strop's passes."""
    package = ".".join(kind.__module__.split(".")[:2])
    if package != "strop.passes":
        return " ".join(code_identity(kind))
    files = sorted(f for p in sys.modules[package].__path__ for f in Path(p).rglob("*.py"))
    return hashlib.sha256(" ".join(map(file_hash, files)).encode()).hexdigest()


def _write(learned: Learned, folder: Path) -> None:
    write_tensors(learned.tensors, folder / TENSORS)
    values = {
        "strop_learned": 1,
        "sha256": file_hash(folder / TENSORS),
        "facts": learned.facts,
        "notes": learned.notes,
    }
    (folder / FACTS).write_text(json.dumps(values) + "\n")


def _recall(cache: Cache, key: str, name: str, context: Context) -> Learned | None:
    """What was learned before; None where nothing was, or where it was damaged."""
    folder = cache.get(key)
    if folder is None:
        return None
    try:
        values = validated(_StoredFacts, read_json(folder / FACTS, "", within=folder), "")
        if file_hash(folder / TENSORS) != values.sha256:
            raise UsageError("the tensors have changed")
        tensors = read_tensors(folder / TENSORS, "", within=folder)
    except (UsageError, OSError):
        context.say(f"what pass '{name}' had learned was damaged in the cache: it learns again")
        cache.remove(key)
        return None
    return Learned(tensors, values.facts, tuple(values.notes))
