"""Made run folders for tests of reports: rows, outcomes, recipes, tickets and logs, without any model."""

import gzip
import json

import numpy as np
from safetensors.numpy import save_file

STATUS = {"M": "missed", "H": "held", "F": "fell"}
COMMON = {
    "seed": 0, "max_length": 48, "batch_size": 32, "train_examples": None, "min_words": 0,
    "text_column": None, "label_column": None, "precision": "fp32", "device": "auto", "save_seconds": 30.0,
}  # fmt: skip
FACTS = {
    "dense": {"method": "dense", "sparsity": None, "granularity": None, "prunable": None, "parameters": 1000},
    "robust": {"method": "hard_concrete", "sparsity": 0.5, "granularity": ["weight"], "prunable": 800},
    "random": {"method": "random", "sparsity": 0.5, "granularity": ["weight"], "prunable": 800},
    "imp": {"method": "iterative", "sparsity": 0.5, "granularity": ["weight"], "prunable": 800},
}


def row(name, letters="", **more):
    """A row of the model `name`: attacked with these outcomes, or clean without any."""
    held, fell, n = letters.count("H"), letters.count("F"), len(letters)
    attacked = {
        "attack": "deepwordbug", "examples": n, "attack_settings": {"name": "deepwordbug", "query_limit": 0},
        "clean_accuracy": (held + fell) / max(n, 1), "accuracy_under_attack": held / max(n, 1),
        "mean_queries": 12.5,
    }  # fmt: skip
    clean = {
        "attack": None, "examples": 400, "attack_settings": None, "clean_accuracy": 0.9,
        "accuracy_under_attack": None, "mean_queries": None,
    }  # fmt: skip
    shared = {
        "id": f"{name}-{'attack' if letters else 'clean'}", "model": f"runs/{name}", "ticket": None,
        "objective": "clean", "epochs": 3.0, "epoch_rule": "last", "run": f"train-{name}/seed-0", "seed": 0,
        "trained_seed": 0, "task": "toy", "split": "test", "cut": False, "shifted_from": None,
        "data_fingerprint": "aa", "parameters": 600, "flops": 2e6, "flops_tokens": 9, "disk_bytes": 4000,
        "flags": [], "attack_success_rate": 0.5,
        "measured": {"latency_ms": 5.0, "seconds": 1.0, "hardware": {"system": "Linux", "threads": 2}},
    }  # fmt: skip
    return {**shared, **FACTS.get(name, {}), **(attacked if letters else clean), **more}


def outcome(row_id, number, letter, before="a fine film", after="a fime film"):
    texts = {"original": [before], "adversarial": [after] if letter == "F" else None}
    return {"row": row_id, "id": f"test-{number}", "status": STATUS[letter], "queries": 3, **texts}


def write(
    folder, *rows_and_letters, recipe=None, done=True, zipped=False, texts=("a fine film", "a fime film")
):
    """Write a run folder of (row, letters) pairs; letters "" = a row without outcomes."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [
        json.dumps(outcome(one["id"], number, letter, *texts))
        for one, letters in rows_and_letters
        for number, letter in enumerate(letters)
    ]
    if rows_and_letters:
        (folder / "rows.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one, _ in rows_and_letters))
    content = "".join(f"{line}\n" for line in lines).encode()
    if content:
        name, data = "outcomes.jsonl", content
        if zipped:  # as a study commits them
            name, data = "outcomes-000.jsonl.gz", gzip.compress(content)
        (folder / name).write_bytes(data)
    if recipe is not None:
        record(folder, done=done, **recipe)
    return folder


def record(folder, *, done=True, **recipe):
    """Write a run's recipe.json, and DONE."""
    folder.mkdir(parents=True, exist_ok=True)
    facts = {
        "parent": None,
        "seed": 0,
        "versions": {"hardtack": "0.1.0", "torch": "2.13.0"},
        "commit": "c" * 40,
    }
    facts |= {
        "id": f"{recipe.get('kind')}-{folder.name}/seed-0",
        "task": "toy",
        "task_from": "data/toy",
        "common": COMMON,
    }
    (folder / "recipe.json").write_text(json.dumps({**facts, **recipe}))
    if done:
        (folder / "DONE").write_text("{}\n")
    return folder


def ticket(folder, kept, **origin):
    """Write a ticket; kept: site -> bools."""
    folder.mkdir(parents=True)
    origin = {
        "method": "hard_concrete",
        "run": f"search-{folder.parent.parent.name}/seed-0",
        "wanted": folder.name,
        **origin,
    }
    units = {site: len(bools) for site, bools in kept.items()}
    content = {"format": 1, "granularity": ["weight"], "units": units, "origin": origin, "sparsity": 0.5}
    (folder / "ticket.json").write_text(json.dumps(content))
    packed = {site: np.packbits(np.array(bools, bool)) for site, bools in kept.items()}
    save_file(packed, folder / "masks.safetensors")
    return folder


def log(folder, *lines):
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))


DENSE, ROBUST, RANDOM = (
    "M" * 10 + "H" * 30 + "F" * 60,
    "M" * 10 + "H" * 70 + "F" * 20,
    "M" * 30 + "H" * 10 + "F" * 60,
)


def study(home, *, texts=("a fine film", "a fime film")):
    """A small study: dense, robust, random and plain models, each clean and attacked; a search."""
    for name, letters in (("dense", DENSE), ("robust", ROBUST), ("random", RANDOM), ("imp", DENSE)):
        recipe = {"kind": "evaluate", "method": name, "target": f"runs/{name}"}
        write(
            home / f"evaluate-{name}",
            (row(name), ""),
            (row(name, letters), letters),
            recipe=recipe,
            texts=texts,
        )
    search = record(
        home / "search", kind="search", method="hard_concrete", model="org/base", start="runs/dense",
        settings={"sparsities": ["sparsity-0.5000"], "epochs": 4.0}, objective={"name": "freelb", "steps": 2},
        granularity=["weight"], keep_whole=[], warm_epochs=None,
    )  # fmt: skip
    sites = {
        f"encoder.layer.{n}.{part}.weight": [n % 2 == 0, False, True, True] * 4
        for n in (0, 1)
        for part in ("query", "out")
    }
    ticket(
        search / "tickets" / "sparsity-0.5000",
        sites | {"pooler.weight": [True, False] * 8},
        objective="freelb",
    )
    log(search, *({"step": step, "loss": 1.0, "open": 1 - step / 20} for step in range(10)))
    return home
