"""What the terminal shows of an artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from strop.compiler.cli.consoles import out_console
from strop.compiler.targets.target import MAIN
from strop.compiler.util.terminal import Table

if TYPE_CHECKING:
    from strop.compiler.artifact.folder import Artifact


def print_summary(artifact: Artifact) -> None:
    """Print the passes, the checks and the notes of an artifact, program by program."""
    from strop.compiler.artifact.report import units

    out_console.say(artifact.path)
    size, record = units.size(artifact.size), artifact.build_record()
    if (programs := artifact.programs) == (MAIN,):
        _print_program(artifact.manifest, record, f"{size}; ")
        notes = artifact.manifest["notes"]
    else:
        out_console.say(f"{size}; {len(programs)} programs: {', '.join(programs)}")
        for name in programs:
            out_console.say(f"program {name}")
            _print_program(artifact.program(name), record.get("programs", {}).get(name, {}), "")
        told = [f"{name}: {note}" for name in programs for note in artifact.program(name)["notes"]]
        notes = [*artifact.manifest["notes"], *told]
    if artifact.manifest.get("generated"):
        out_console.say(_generated_text(artifact.manifest["generated"]))
    for note in [*notes, *record.get("notes", [])]:
        out_console.print(f"note: {note}")


def _print_program(program: Mapping[str, Any], times: Mapping[str, Any], before: str) -> None:
    out_console.print(_pass_table(program, times.get("pass_seconds", {})))
    out_console.say(f"{before}{checks_text(program['checks'])}")
    if program.get("sizes"):
        out_console.say(_sizes_text(program["sizes"]))
    for name, count in program.get("spanning_operators", {}).items():
        out_console.say(f"a row depends on its batch: {count} {name} take one scale for all rows")
    for name, original in program["metrics"].get("original", {}).items():
        found = program["metrics"]["artifact"].get(name)
        out_console.print(f"{name}: {original:.6g} original, {found:.6g} artifact")


def _generated_text(generated: Mapping[str, Any]) -> str:
    """In one line, how the artifact generates beside the original."""
    texts = generated["texts"]
    tokens, equal = (sum(text[key] for text in texts) for key in ("tokens", "equal"))
    said = [f"generates: {equal} of {tokens} tokens are the original's"]
    first = next((text for text in texts if text["first_difference"]), None)
    if first is not None:
        row, token = first["first_difference"]["row"], first["first_difference"]["token"]
        said.append(f"the first that differs is token {token} of text {row} ({first['case']})")
    known = generated["perplexity"]
    if known["original"] is not None and known["artifact"] is not None:
        said.append(
            f"perplexity {known['original']:.5g} original, {known['artifact']:.5g} artifact"
        )
    return "; ".join(said)


def _sizes_text(sizes: dict[str, Any]) -> str:
    """In one line, at which sizes original and file were compared, and what was left out."""
    from strop.compiler.artifact.report import units

    ran = [units.dims(one) for one in sizes["run"]]
    given, run = sizes["calibration"]["given"], sizes["calibration"]["run"]
    text = "; ".join([f"compared on {run} of {given} calibration inputs", *filter(None, ran)])
    if not sizes["left_out"]:
        return text
    left = " and ".join(units.dims(one["sizes"]) for one in sizes["left_out"])
    return f"{text}. Not run, for their cost: {left} (--check full runs all)"


def _pass_table(program: Mapping[str, Any], seconds: Mapping[str, float]) -> Table:
    """One row a pass that changed something: time, growth, counts, and what it did to outputs."""
    from strop.compiler.artifact.report import units

    idle = [r["name"] for r in program["passes"] if not r["rewrites"]]
    caption = (
        f"changed nothing: {', '.join(idle) or 'none'}\n"
        "SQNR in dB against the pass before, largest error against the original, on a small example"
    )
    heads = ("pass", "ms", "nodes", "size", "SQNR", "error", "rewrites")
    table = Table(*heads, caption=caption)
    for record in program["passes"]:
        if not record["rewrites"]:
            continue
        table.add_row(
            record["name"],
            f"{1000 * seconds[record['name']]:.0f}" if record["name"] in seconds else "-",
            f"{record['nodes_before']} → {record['nodes_after']}",
            units.size(record["bytes_after"]),
            _sqnr_text(record["previous"]),
            _error_text(record["original"]),
            "\n".join(f"{n} {rule}" for rule, n in record["rewrites"].items()),
        )
    return table


def _sqnr_text(drift: dict[str, Any] | None) -> str:
    if drift is None:
        return ""
    if not drift["finite"]:
        return "NaN or Inf"
    if drift["sqnr_db"] is None:
        return "equal" if drift["agreement"] == 1 else "-"
    return f"{drift['sqnr_db']:.0f}"


def _error_text(drift: dict[str, Any] | None) -> str:
    if drift is None or drift["max_abs"] is None:
        return ""
    return f"{drift['max_abs']:.1e}"


def checks_text(checks: list[dict[str, Any]]) -> str:
    """The worst of all checks: errors of float outputs, and mismatches of all others."""
    from strop.compiler.artifact.report.worst import worst_of

    worst, said = worst_of(checks), []
    if worst.floats is not None:
        said.append(f"worst error {worst.floats['max_error']:.1e} ({_place(worst.floats)})")
        said.append(f"lowest cosine {worst.cosine:.5f}")
    if worst.others is not None:
        share = f"{worst.others['max_error']:.2%}"
        said.append(f"at most {share} of elements differ ({_place(worst.others)})")
    return f"{len(checks)} comparisons with the original: {', '.join(said)}"


def _place(check: Mapping[str, Any]) -> str:
    return f"{check['output']}, {check['case']}"
