"""The sentences that attacks have changed, read from what `evaluate` left; never of the test split."""

import json
from pathlib import Path

import xxhash

from hardtack.errors import InputError
from hardtack.reports.folders import read_outcomes, read_rows
from hardtack.tasks.task import Table, Task

SPLITS = ("train", "validation")


def attacked_table(folder: str | Path, data: Task) -> Table:
    """Return the sentences that fell to attacks, each once, with the labels that they had before.

    Args:
        folder: of `evaluate`, with attacks on the training or validation split of the same task.
        data: the task; sentences whose example it lacks (a limit on training examples) are left out.

    Raises:
        InputError: when there is no such sentence, or they are of other data or of the test split.
    """
    path = Path(folder).expanduser()
    rows = {row["id"]: row for row in read_rows(path) if row.get("attack")}
    used = {id: row for id, row in rows.items() if row.get("split") in SPLITS}
    if rows and not used:
        split = next(iter(rows.values())).get("split")
        raise InputError(
            f"{folder} attacked the {split} split, which searches never read; allowed: {', '.join(SPLITS)}"
        )
    texts: dict[tuple[str, ...], int] = {}
    for id, outcomes in read_outcomes(path).items():
        if id not in used:
            continue
        table = data.table(used[id]["split"])
        known = dict(
            zip(table.rows.tolist(), zip(table.texts, table.labels.tolist(), strict=True), strict=True)
        )
        for outcome in outcomes.values():
            number = outcome["id"].rpartition("-")[2]
            if not outcome.get("adversarial") or not number.isdecimal() or int(number) not in known:
                continue
            original, label = known[int(number)]
            if original != tuple(outcome["original"]):
                raise InputError(
                    f"{folder} attacked other data than task {data.name!r}: {outcome['id']} differs"
                )
            texts.setdefault(tuple(outcome["adversarial"]), label)
    if not texts:
        raise InputError(
            f"{folder} holds no sentence that fell to an attack; allowed: a folder of `hardtack evaluate "
            f"--attack` on {' or '.join(SPLITS)}, of an attack that changes texts"
        )
    return Table.of(list(texts), list(texts.values()))


def digest_of_texts(table: Table) -> str:
    """Return a hash of texts and labels, which stands for them in a run's name."""
    return xxhash.xxh3_128(json.dumps([table.texts, table.labels.tolist()]).encode()).hexdigest()
