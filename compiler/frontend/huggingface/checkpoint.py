"""Load the module of a folder: choose its class, and check that the checkpoint has all weights."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch

from strop.compiler.frontend.huggingface.inspection import inspected
from strop.compiler.frontend.huggingface.library import library, loaded
from strop.compiler.frontend.huggingface.request import Request
from strop.compiler.frontend.huggingface.tasks import ALIASES, TASKS, Task
from strop.compiler.util.errors import UsageError, did_you_mean

# These load the folder's own class whole, and take a part of it afterwards.
PARTS_OF_WHOLES = ("encoder", "text-embedding", "image-embedding")


@dataclass
class Checkpoint:
    """A folder, loaded.

    Attributes:
        path: of the folder.
        task: what it is built for.
        module: in eval mode, every weight from the checkpoint.
        notes: what the user should know, in sentences.
    """

    path: Path
    task: Task
    module: Any
    notes: list[str] = field(default_factory=list)

    @property
    def takes(self) -> list[str]:
        """The names of ``forward``'s parameters; a wrapper lists those that it passes on."""
        given = getattr(self.module, "takes", None)
        return given or list(inspect.signature(self.module.forward).parameters)

    @property
    def required(self) -> list[str]:
        """The names of what ``forward`` does not do without."""
        parameters = inspect.signature(self.module.forward).parameters
        return [n for n, p in parameters.items() if p.default is p.empty]


# A folder whose class is in none of transformers' tables is built as it is.
_AS_SAVED = Task("as-saved", "everything that the saved class returns")


def load_checkpoint(request: Request) -> Checkpoint:
    """Load the class that the folder names, or that of the task the user names.

    Raises:
        UsageError: no config, custom code, an unknown task or class, or weights that are missing
            or unused and that the user does not name.
    """
    values = inspected(request.path)
    transformers = library()
    names = values.get("architectures") or []
    task = _asked_task(request, names) or _own_task(names)
    kind = _class(transformers, request, task, names, values)
    module, notes = _weights(request, task, kind)
    if not (request.path / "model.safetensors").exists() and any(request.path.glob("*.bin")):
        notes.append("weights were read from pytorch_model.bin, with torch's weights_only reader")
    return Checkpoint(request.path, task, for_inference(module), notes)


def _asked_task(request: Request, architectures: Sequence[str]) -> Task | None:
    if request.task is None:
        return None
    name = ALIASES.get(request.task, request.task)
    # Pipelines of transformers have one name for models with CTC and for encoder-decoders.
    if name == "automatic-speech-recognition":
        by_ctc = TASKS["speech-recognition"]
        name = by_ctc.name if set(architectures) & classes_of(by_ctc) else name
    if name not in TASKS:
        known = did_you_mean(name, list(TASKS))
        raise UsageError(f"{request}: unknown task{known}; `strop tasks` lists them")
    return TASKS[name]


def _own_task(architectures: Sequence[str]) -> Task:
    if not architectures:
        return TASKS["feature-extraction"]
    # A class with a head is often in the table of bodies too.
    bodies = ("sentence-embedding", "feature-extraction")
    rows = [row for row in TASKS.values() if row.name not in bodies]
    rows.append(TASKS["feature-extraction"])
    return next((row for row in rows if architectures[0] in classes_of(row)), _AS_SAVED)


def classes_of(task: Task) -> set[str]:
    """The names of the classes that do a task, from transformers' own tables."""
    from transformers.models.auto import modeling_auto

    names: set[str] = set()
    for value in getattr(modeling_auto, task.mapping or "", {}).values():
        names |= {value} if isinstance(value, str) else set(value)
    return names


def _class(
    transformers: Any, request: Request, task: Task, names: Sequence[str], values: dict[str, Any]
) -> Any:
    """The class to load: the folder's own where it does the task, else the task's Auto class."""
    own = names[0] if names else None
    if own and (request.task is None or task.name in PARTS_OF_WHOLES or own in classes_of(task)):
        return _known_class(transformers, request, own, values)
    return getattr(transformers, task.auto or "AutoModel")


def _known_class(transformers: Any, request: Request, name: str, values: dict[str, Any]) -> Any:
    # The name is untrusted: it is looked up among the classes of models, and nowhere else.
    kind = getattr(transformers, name, None) if name in transformers.__all__ else None
    if not isinstance(kind, type) or not issubclass(kind, transformers.PreTrainedModel):
        code = " and comes with code of its own" if values.get("auto_map") else ""
        raise UsageError(
            f"{request}: its class {name!r} is not one of transformers "
            f"{transformers.__version__}{code}, which strop does not run; write a factory that "
            "makes the module, and build that"
        )
    return kind


def _weights(request: Request, task: Task, kind: Any) -> tuple[Any, list[str]]:
    module, missing, unused = _load(request, kind)
    if missing and all("pooler" in name.split(".") for name in missing):
        # Encoders trained without a pooler are common; what it would return is random.
        module, missing, unused = _load(request, kind, add_pooling_layer=False)
    # A pooler that was trained for another task is not used by this one.
    unused = [name for name in unused if "pooler" not in name.split(".")]
    missing, random = _split(missing, request.ignored)
    unused, left = _split(unused, request.ignored)
    if task.part and request.task:
        unused, left = [], left + unused
    name = type(module).__name__
    if missing:
        raise UsageError(
            f"{request}: the checkpoint lacks weights that a {name} has: {_listed(missing)}; they "
            f"would be random. Was it made for another task? {_way_out(request, task, missing)}"
        )
    if unused:
        raise UsageError(
            f"{request}: the checkpoint has weights that a {name} does not use: "
            f"{_listed(unused)}. Was it made for another task? {_way_out(request, task, unused)}"
        )
    notes = [f"weights of the checkpoint that are not used: {_listed(left)}"] if left else []
    if random:
        notes.append(f"random weights, which the checkpoint lacks: {_listed(random)}")
    return module, notes


def _load(request: Request, kind: Any, **options: Any) -> tuple[Any, list[str], list[str]]:
    """The module, the names of weights that the checkpoint lacks, and of those left over."""
    with torch.random.fork_rng(devices=[]):
        # Weights that the user allows to be random are the same in every build.
        torch.manual_seed(0)
        module, info = loaded(
            "the weights", request.path, kind.from_pretrained, output_loading_info=True, **options
        )
    return module, sorted(info["missing_keys"]), sorted(info["unexpected_keys"])


def _split(names: Iterable[str], patterns: Sequence[str]) -> tuple[list[str], list[str]]:
    """The names that match no pattern, and those that match one."""
    named = [n for n in names if any(fnmatchcase(n, p) for p in patterns)]
    return [n for n in names if n not in named], named


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return ", ".join(names[:5]) + more


def _way_out(request: Request, task: Task, names: Sequence[str]) -> str:
    prefix = names[0].rpartition(".")[0] or names[0]
    word = task.name if task.name in TASKS else ""
    return (
        f"If that is meant, name them: hf:{request.path}#{word},ignore={prefix}.* "
        "(`strop tasks` lists the tasks)"
    )


def for_inference(module: Any) -> Any:
    """Put a module into eval mode, and let it return a mapping and no cache."""
    module.config.return_dict = True
    module.config.output_hidden_states = False
    for part in module.modules():
        config = getattr(part, "config", None)
        if config is not None and getattr(config, "use_cache", False):
            config.use_cache = False
    return module.eval()
