"""The toy task as files, for stages, which read tasks from folders."""

import json
from pathlib import Path

from tests.toys import toy_task


def saved_task(folder: Path | str, labels: tuple[str, str] = ("0", "1")) -> str:
    """Write the toy task's splits as files and return the folder's name."""
    Path(folder).mkdir(parents=True)
    for split, data in toy_task().splits.items():
        pairs = zip(data.texts, data.labels, strict=True)
        lines = [json.dumps({"text": text, "label": labels[label]}) + "\n" for (text,), label in pairs]
        (Path(folder) / f"{split}.jsonl").write_text("".join(lines))
    return str(folder)
