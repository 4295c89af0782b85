"""Describes one thing in tables: a ticket, a model folder, a run folder or a task; no model is loaded."""

import json
import math
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np

from hardtack.errors import InputError
from hardtack.reports.folders import Row, read_recipe, read_rows
from hardtack.reports.lost import layers_lost, lost_rows
from hardtack.reports.study import show_study, study_text
from hardtack.reports.table import rows_text
from hardtack.reports.text import facts_text, table

LOST = (
    "what was lost: error of the matrices (squared, over the squared output), distance to the dense model's\n"
    "first and mean token vectors (1 - cosine)"
)


@dataclass(frozen=True)
class Reading:
    """How a task is read from a folder or file of one's own."""

    text_column: str | None = field(
        default=None, metadata={"help": "column of the texts; two with a comma between"}
    )
    label_column: str | None = field(default=None, metadata={"help": "column of the labels"})
    min_words: int = field(default=0, metadata={"help": "rows with fewer words are left out of every split"})
    train_examples: int | None = field(default=None, metadata={"help": "show a stratified draw of training"})
    seed: int = field(default=0, metadata={"help": "of that draw; a cut split never depends on it"})


def show(thing: str, reading: Reading | None = None) -> Row:
    """Describe a ticket, model, run or study folder, or a task, as a dict whose `kind` says which it is.

    Raises:
        InputError: when `thing` is none of them.
    """
    path = Path(thing).expanduser()
    if (path / "ticket.json").is_file():
        return show_ticket(path)
    if (path / "study.json").is_file():
        return show_study(path)
    if (path / "recipe.json").is_file():
        return show_run(path)
    if (path / "config.json").is_file():
        return show_model(path)
    if path.is_dir() and not {file.stem for file in path.iterdir()} & {"train", "validation", "test"}:
        raise InputError(
            f"{thing!r} is a folder with nothing to show; allowed: a ticket (ticket.json), a study "
            "(study.json), a run (recipe.json), a model (config.json), a task (train, validation or test "
            "files)"
        )
    return show_task(thing, reading or Reading())


def show_ticket(folder: Path) -> Row:
    """Describe a ticket: every site with its units and what is kept, totals, base and origin."""
    from hardtack.ticket import Ticket

    ticket = Ticket.load(folder)
    sites = [
        {
            "name": name,
            "kind": next((kind for kind in ticket.granularity if name.endswith(f".{kind}s")), "weight"),
            "units": mask.numel(),
            "kept": int(mask.sum()),
            "sparsity": 1 - int(mask.sum()) / mask.numel(),
        }
        for name, mask in ticket.masks.items()
    ]
    return {
        "kind": "ticket",
        "folder": str(folder),
        "sites": sites,
        "units": ticket.units(),
        "kept": sum(site["kept"] for site in sites),
        "sparsity": ticket.sparsity(),
        "granularity": list(ticket.granularity),
        "keep_whole": list(ticket.keep_whole),
        "changed_tensors": len(ticket.weights),
        "disk_bytes": _disk_bytes(folder),
        "base": {**asdict(ticket.base), "fresh": list(ticket.base.fresh)},
        "origin": dict(ticket.origin),
    }


def show_model(folder: Path) -> Row:
    """Describe a model folder from its config and the headers of its weight files."""
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    files = sorted(folder.glob("*.safetensors"))
    tensors = {name: shape for file in files for name, shape in _shapes(file).items()}
    labels = config.get("id2label") or {}
    return {
        "kind": "model",
        "folder": str(folder),
        "type": config.get("model_type"),
        "architecture": (config.get("architectures") or [None])[0],
        "parameters": sum(math.prod(shape) for shape in tensors.values()) if files else None,
        "tensors": len(tensors) if files else None,
        "labels": [labels[number] for number in sorted(labels, key=int)],
        "disk_bytes": _disk_bytes(folder),
        "ticket": "ticket" if (folder / "ticket" / "ticket.json").is_file() else None,
    }


def show_run(folder: Path) -> Row:
    """Describe a run folder: its recipe, its state, its tickets and its rows."""
    tickets = sorted(file.parent for file in folder.glob("tickets/*/ticket.json"))
    done = (folder / "DONE").is_file()
    return {
        "kind": "run",
        "folder": str(folder),
        "state": "done" if done else "unfinished: the same command resumes it",
        "recipe": read_recipe(folder),
        "tickets": [{"folder": str(ticket), "sparsity": _sparsity(ticket)} for ticket in tickets],
        "model": str(folder / "model") if (folder / "model" / "config.json").is_file() else None,
        "rows": read_rows(folder) if (folder / "rows.jsonl").is_file() else [],
        "disk_bytes": _disk_bytes(folder),
    }


def show_task(name: str, reading: Reading) -> Row:
    """Describe a task: sizes, class balance, lengths and fingerprint of each split, and which were cut."""
    from hardtack.tasks.text import load_task

    task = load_task(name, text_column=reading.text_column, label_column=reading.label_column)
    task = task.limited(reading.train_examples, reading.min_words, reading.seed)
    splits = []
    for split, data in task.splits.items():
        words = np.array([sum(len(text.split()) for text in texts) for texts in data.texts])
        count = Counter(data.labels.tolist())
        splits.append({
            "split": split,
            "examples": len(data),
            "from": "cut from training" if split in task.cut else "given",
            "labels": {label: count[number] for number, label in enumerate(task.labels)},
            "words_median": float(np.median(words)),
            "words_95": float(np.percentile(words, 95)),
            "words_most": int(words.max()),
            "fingerprint": task.fingerprint(split),
        })  # fmt: skip
    return {
        "kind": "task",
        "name": task.name,
        "labels": list(task.labels),
        "metric": task.metric.name,
        "cut": list(task.cut),
        "splits": splits,
        "fingerprint": task.fingerprint(),
    }


def _shapes(file: Path) -> dict[str, list[int]]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="np") as stream:
            return {name: stream.get_slice(name).get_shape() for name in stream.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{file} is no safetensors file: {error}") from None


def _sparsity(ticket: Path) -> float | None:
    return json.loads((ticket / "ticket.json").read_text(encoding="utf-8")).get("sparsity")


def _disk_bytes(folder: Path) -> int:
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())


def show_text(result: Row) -> str:
    """Render what `show` found as plain tables."""
    render = {"ticket": _ticket_text, "model": facts_text, "run": _run_text, "task": _task_text}
    return {**render, "study": study_text}[result["kind"]](result)


def _ticket_text(result: Row) -> str:
    rows = [
        (s["name"], s["kind"], f"{s['units']:,}", f"{s['kept']:,}", f"{s['sparsity']:.4f}")
        for s in result["sites"]
    ]
    rows.append(("all", "", f"{result['units']:,}", f"{result['kept']:,}", f"{result['sparsity']:.4f}"))
    sites = table(("site", "kind", "units", "kept", "sparsity"), rows, right=(2, 3, 4))
    facts = {
        name: result[name]
        for name in ("folder", "granularity", "keep_whole", "changed_tensors", "disk_bytes")
    }
    told = ("reconstruction_error", "distance")  # in a table of their own
    origin = {name: value for name, value in result["origin"].items() if name not in told}
    parts = [sites]
    if layers := layers_lost(result["origin"]):
        head, lines = lost_rows(layers)
        parts.append(f"{LOST}\n{table(head, lines, right=range(1, len(head)))}")
    return "\n\n".join([*parts, facts_text({**facts, "base": result["base"], "origin": origin})])


def _run_text(result: Row) -> str:
    facts = {name: result[name] for name in ("folder", "state", "disk_bytes", "model")}
    blocks = [facts_text(facts), facts_text(result["recipe"])]
    if result["tickets"]:
        rows = [(ticket["folder"], f"{ticket['sparsity']:.4f}") for ticket in result["tickets"]]
        blocks.append(table(("ticket", "sparsity"), rows, right=(1,)))
    if result["rows"]:
        blocks.append(rows_text(result["rows"]))
    return "\n\n".join(blocks)


def _task_text(result: Row) -> str:
    rows = []
    for split in result["splits"]:
        balance = " ".join(f"{label}={count:,}" for label, count in split["labels"].items())
        words = f"{split['words_median']:.0f} / {split['words_95']:.0f} / {split['words_most']}"
        name, size = split["split"], f"{split['examples']:,}"
        rows.append((name, size, split["from"], balance, words, split["fingerprint"][:8]))
    head = ("split", "examples", "from", "labels", "words: median / 95% / most", "fingerprint")
    known = result["labels"]
    labels = f"{len(known)} labels ({', '.join(known)})" if known else "texts alone"
    title = f"task {result['name']}: {labels}, {result['metric']}, fingerprint {result['fingerprint']}"
    return f"{title}\n\n{table(head, rows, right=(1, 4))}"
