"""Shows what attacks look words up in: what is there, and what supplies what is not."""

from collections.abc import Mapping
from typing import Any

from hardtack.reports.text import table


def resources_text(survey: Mapping[str, Any]) -> str:
    """Render a survey of resources: one table, then a line for everything that is missing or damaged."""
    rows, there, missing = [], [], []
    for kind in survey["resources"]:
        name = kind["name"]
        sound = [each["path"] for each in kind["found"] if not each["problem"]]
        problems = [each["problem"] for each in kind["found"] if each["problem"]]
        state = "there" if sound else "damaged" if problems else "missing"
        rows.append((name, kind["what"], state, ", ".join(kind["needed_by"]) or None))
        there += [f"  {name}: {path}" for path in sound]
        missing += [f"  {name}: {problem}" for problem in problems]
        if not sound:
            missing += [f"  {name}: looked in {', '.join(kind['looked'])}", f"    {kind['supply']}"]
    lines = [f"folder of resources: {survey['folder']} (${survey['variable']} names another)", ""]
    lines.append(table(("resource", "what it is", "state", "attacks that use it"), rows))
    lines += ["", "there:", *there] if there else []
    lines += ["", "what supplies the rest:", *missing] if missing else []
    return "\n".join(lines)
