"""The verbs: an explicit list, name -> module; one file = one verb.

A verb module has SUMMARY and EXAMPLE for the help pages, `flags(parser, words)` that adds its flags,
`run(args, watch)` that calls the layer below and returns its JSON-able dict, and `text(result)` that renders
that dict; where a verb has its own, `plan(result)` renders a dry run and `status(result)` is the exit
status. Model libraries are imported inside functions, so that `hardtack --help` answers at once.
"""

from types import ModuleType

from hardtack.cli.verbs import (
    compare,
    demo,
    evaluate,
    export,
    report,
    resources,
    retrain,
    runs,
    search,
    ship,
    show,
    soup,
    study,
    train,
)

VERBS: dict[str, ModuleType] = {
    "demo": demo,
    "train": train,
    "search": search,
    "retrain": retrain,
    "evaluate": evaluate,
    "soup": soup,
    "export": export,
    "ship": ship,
    "study": study,
    "show": show,
    "compare": compare,
    "report": report,
    "runs": runs,
    "resources": resources,
}
