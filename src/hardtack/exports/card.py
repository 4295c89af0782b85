"""The model card of an exported folder: what it is, what it was measured to do, and what doubts that."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hardtack.doubts import FLAGS

Row = Mapping[str, Any]

UNKNOWN = "unknown"
"""Licence of a model whose base says none: the hub takes it and asks to have it checked."""


def licence_of(place: str) -> str:
    """Return the licence that a model folder's README states in its metadata; "unknown" where it does not."""
    readme = Path(place) / "README.md"
    if not readme.is_file():
        return UNKNOWN
    try:
        stated = getattr(ModelCard.load(readme, ignore_metadata_errors=True).data, "license", None)
    except Exception:  # whatever a README written by anybody holds, it states no licence then
        return UNKNOWN
    return stated if isinstance(stated, str) else UNKNOWN


def public_name(name: str, *, local: bool) -> str:
    """Return a hub id as it is, and of a folder here its last part: a path is nobody's business.

    The folder `model` that a run leaves is called as the run. The caller knows which it is: a folder may have
    moved, and what is left of it looks like a hub id.
    """
    if not local:
        return name
    place = Path(os.path.abspath(name))
    return place.name if place.name != "model" else place.parent.name


def write_card(
    folder: Path,
    *,
    name: str,
    base: str,
    local: bool,
    made: Row,
    labels: Sequence[str],
    how: str,
    form: str,
    rows: Sequence[Row] = (),
) -> None:
    """Write `README.md` with the hub's metadata into an exported folder.

    Args:
        folder: the export.
        name: of the model.
        base: hub id or folder of the model that the ticket was found in.
        local: whether `base` is a folder, though it may have moved since.
        made: provenance: method, granularity, sparsity, objective, epochs, task.
        labels: the class names.
        how: lines of Python that open the folder.
        form: what was made, in a sentence.
        rows: result rows about this model, if it was measured: clean, attacked, shifted.
    """
    shown = public_name(base, local=local)
    data = ModelCardData(
        license=licence_of(base),
        base_model=shown,
        pipeline_tag="text-classification",
        tags=["hardtack", "pruning", "robustness"],
        metrics=["accuracy"],
        model_name=name,
        eval_results=[one for row in rows for one in _results(row)] or None,
    )
    classes = ", ".join(f"{number} = {label}" for number, label in enumerate(labels))
    parts = [f"---\n{data.to_yaml()}\n---", f"# {name}", _what(shown, made), f"{form[:1].upper()}{form[1:]}."]
    parts += [f"Classes: {classes}.", f"```python\n{how}\n```", "## What it was measured to do"]
    (folder / "README.md").write_text("\n\n".join([*parts, *_measured(rows)]) + "\n", encoding="utf-8")


def _what(shown: str, made: Row) -> str:
    kinds = " and ".join(f"{kind}s" for kind in made.get("granularity") or ()) or "units"
    share = made.get("sparsity")
    cut = f"{share:.0%} of its {kinds} removed" if isinstance(share, float) else f"{kinds} removed"
    epochs = f" for {made['epochs']:g} epochs" if made.get("epochs") else ""
    task = f" on {Path(str(made['task'])).name}" if made.get("task") else ""
    found = f"found by `{made['method']}`" if made.get("method") else "found by hardtack"
    if made.get("ticket_objective"):
        found += f" under the objective `{made['ticket_objective']}`"
    trained = f", then trained with `{made['objective']}`{epochs}{task}" if made.get("epochs") else ""
    return f"{shown} with {cut}: a subnetwork {found}{trained}."


def _results(row: Row) -> list[EvalResult]:
    """Return a row's accuracy as the hub reads it; none for a rate that was not measured."""
    attack = row.get("attack")
    value = row.get("accuracy_under_attack" if attack else "clean_accuracy")
    if value is None:
        return []
    return [
        EvalResult(
            task_type="text-classification",
            dataset_type=str(row["task"]),
            dataset_name=str(row["task"]),
            dataset_split=str(row["split"]),
            metric_type="accuracy",
            metric_value=round(value, 4),
            metric_name=f"accuracy under {attack}, {row['examples']} examples" if attack else "accuracy",
        )
    ]


def _measured(rows: Sequence[Row]) -> list[str]:
    if not rows:
        return ["Nothing yet. `hardtack evaluate` measures it, clean and under attack."]
    lines = [
        "| data | split | attack | examples | accuracy | queries |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        rate = row["accuracy_under_attack" if row.get("attack") else "clean_accuracy"]
        queries = f"{row['mean_queries']:.1f}" if row.get("mean_queries") is not None else ""
        cells = [
            row["task"],
            row["split"],
            row.get("attack") or "none",
            row["examples"],
            f"{rate:.3f}",
            queries,
        ]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    first = rows[0]
    latency = (first.get("measured") or {}).get("latency_ms")
    costs = f"{first['parameters']:,} parameters that are not zero" if first.get("parameters") else ""
    if latency:
        tokens = first["measured"].get("latency_tokens")
        machine = first["measured"].get("hardware", {}).get("processor", "one machine")
        costs += f"; {latency:.1f} ms for one text of {tokens} tokens on {machine}"
    parts = ["\n".join(lines), f"{costs}."] if costs else ["\n".join(lines)]
    flags = dict.fromkeys(flag for row in rows for flag in row.get("flags") or ())
    if flags:
        parts.append("Doubts about these numbers:")
        parts.append("\n".join(f"- **{flag}**: {FLAGS.get(flag, '')}" for flag in flags))
    return parts
