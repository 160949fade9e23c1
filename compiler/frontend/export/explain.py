"""Why a model could not be exported, in words for the user."""

from __future__ import annotations

import re
import traceback

from strop.compiler.frontend.export.guards import Watch
from strop.compiler.frontend.export.naming import own_names

# Where torch's advice to its own developers begins.
_ADVICE = re.compile(
    r"\(unhinted|\(Size-like|For more information|Caused by|consider using|Please |The error above"
    r"|Suggested fixes|\(see https"
)


def explain_export_failure(error: Exception, watch: Watch) -> str:
    """One or two sentences for the user, with the place in their source."""
    text = own_names(str(error), watch.signature)
    where = _place_in_source(error)
    fixed = watch.fixed()
    if fixed:
        return "\n".join(_explain_fixed(n, str(v), p or where) for n, (v, p) in fixed.items())
    if "Constraints violated" in text:
        guards = re.findall(r"- Not all values of .*|- .*must.*", text)
        relations = " ".join(_reason(g) for g in guards) or "it holds at some of their sizes only"
        return (
            f"the dynamic dims do not fit the model{where}: {relations}\n"
            "Change the names or ranges in `dynamic`."
        )
    if needs_one_size(error):
        found = re.search(r"generated for (.+?) = .*?specialized value of (\d+)", text)
        if found:
            return _explain_fixed(found[1], found[2], where)
    if "Could not extract specialized integer" in text:
        return (
            f"the model makes a Python number of a tensor's value{where}, which a graph cannot "
            "hold: write `x.item()` in place of `int(x)`, or take the number out of `forward`."
        )
    if "data-dependent" in text or "GuardOnDataDependentSymNode" in type(error).__name__:
        return (
            f"the model decides on a tensor's value{where}, which a graph cannot do: "
            f"{_reason(text)}\nReplace the `if` on a tensor by `torch.where`, or take the "
            "decision out of `forward`."
        )
    return f"torch.export could not capture the model{where}: {_reason(text)}"


def needs_one_size(error: BaseException) -> bool:
    """Whether an export failed because the model, as traced, fits one size of a dim only."""
    return "Specializations unexpectedly required" in str(error)


def _explain_fixed(name: str, value: str, place: str) -> str:
    if value.isdigit():
        return (
            f"dim '{name}' is declared dynamic, but the model works with one size only ({value})"
            f"{place}. Either drop it from `dynamic`, or change the code so that it does not "
            "depend on the size."
        )
    return (
        f"dim '{name}' is declared on its own, but the model needs it to be {value}{place}. Dims "
        "that are equal take one name in `dynamic`; a multiple cannot be declared."
    )


def _place_in_source(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    mine = [f for f in frames if "/torch/" not in f.filename and "/strop/" not in f.filename]
    mine = [f for f in mine if not f.filename.endswith("compiler/frontend/export/capture.py")]
    mine = [f for f in mine if f.name == "forward"] or mine
    if mine and mine[-1].name == "forward":
        return f" at {mine[-1].filename}:{mine[-1].lineno} (`{mine[-1].line}`)"
    return ""


def first_line(error: BaseException) -> str:
    """The first line of an error, without torch's advice to its own developers."""
    return _reason(str(error)) or type(error).__name__


def _reason(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return _ADVICE.split(lines[0])[0].strip() if lines else ""
