"""TextAttack 0.3.11 as a yardstick: its recipes around a model, without what it needs from elsewhere.

It is installed apart, without its dependencies (`pip install --no-deps textattack==0.3.11` and what it then
still asks for), and put on PYTHONPATH; its import of flair, which refuses transformers 5, is answered by an
empty module. Its attacks get hardtack's list of function words.
"""

import importlib.util
import shutil
import sys
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hardtack.evaluation.attacks.words import is_stop_word

RECIPES = {
    "deepwordbug": ("deepwordbug_gao_2018", "DeepWordBugGao2018"),
    "pruthi": ("pruthi_2019", "Pruthi2019"),
    "pwws": ("pwws_ren_2019", "PWWSRen2019"),
}
ABSENT = ("flair", "bert_score", "language_tool_python", "OpenHowNet", "lemminflect", "Levenshtein")
KINDS = {
    1: "Tops act animal artifact attribute body cognition communication event feeling food group location "
    "motive object person phenomenon plant possession process quantity relation shape state substance time",
    2: "body change cognition communication competition consumption contact creation emotion motion "
    "perception "
    "possession social stative weather",
}  # WordNet's lexicographer files: nouns and verbs


class Empty(types.ModuleType):
    """A module that has whatever is looked for in it."""

    __path__ = ()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


class StopWords(set):
    """Contains what hardtack calls function words."""

    def __contains__(self, word: object) -> bool:
        return is_stop_word(str(word))


def is_here() -> bool:
    """Say whether TextAttack can be imported."""
    return importlib.util.find_spec("textattack") is not None


def recipe(name: str, make: Callable[[Any], Any], folder: Path) -> Any:
    """Build a recipe with hardtack's function words.

    Args:
        name: a key of RECIPES.
        make: gets TextAttack's module of model wrappers and returns the victim's.
        folder: what `fill_nltk_folder` filled.
    """
    for absent in ABSENT:
        if absent not in sys.modules and importlib.util.find_spec(absent) is None:
            sys.modules[absent] = Empty(absent)
            for part in ("data", "models"):
                sys.modules[f"{absent}.{part}"] = Empty(f"{absent}.{part}")
                setattr(sys.modules[absent], part, sys.modules[f"{absent}.{part}"])
    import nltk

    nltk.download = lambda *_, **__: True  # everything it needs is there, and there is no network
    nltk.data.path.insert(0, str(folder))
    nltk.corpus.stopwords = types.SimpleNamespace(words=lambda language: ["the"])
    import textattack
    from textattack.constraints.pre_transformation import StopwordModification

    module, recipe = RECIPES[name]
    recipes = importlib.import_module(f"textattack.attack_recipes.{module}")
    attack = getattr(recipes, recipe).build(make(textattack.models.wrappers))
    for constraint in attack.pre_transformation_constraints:
        if isinstance(constraint, StopwordModification):
            constraint.stopwords = StopWords()
    return attack


def fill_nltk_folder(root: Path, wordnet: Path) -> None:
    """Copy WordNet's files to where NLTK takes them, with the list of lexicographer files it asks for."""
    place = root / "corpora" / "wordnet"
    shutil.copytree(wordnet, place)
    names = [("adj.all", 3), ("adj.pert", 3), ("adv.all", 4)]
    names += [(f"noun.{name}", 1) for name in KINDS[1].split()]
    names += [(f"verb.{name}", 2) for name in KINDS[2].split()] + [("adj.ppl", 3)]
    lines = [f"{number:02d}\t{name}\t{kind}\n" for number, (name, kind) in enumerate(names)]
    (place / "lexnames").write_text("".join(lines))
