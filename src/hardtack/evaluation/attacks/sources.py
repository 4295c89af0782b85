"""Where attacks take what they look words up in: what is named, or the folder of resources."""

from dataclasses import fields
from pathlib import Path
from typing import Any

from hardtack.evaluation.attacks.protocol import Encoder, Filler
from hardtack.evaluation.constraints import Space, Thesaurus


def thesaurus(given: Path | Thesaurus | None) -> Thesaurus:
    """Return WordNet: as given, read from a folder, or from the folder of resources."""
    if given is not None and not isinstance(given, Path):
        return given
    from hardtack.evaluation.resources import Resources, WordNet

    # pyright takes no cached_property where a Protocol has a property
    return Resources.found().wordnet if given is None else WordNet(given)  # type: ignore[return-value]


def space(given: Path | Space | None) -> Space:
    """Return word vectors: as given, read from a file, or from the folder of resources."""
    if given is not None and not isinstance(given, Path):
        return given
    from hardtack.evaluation.resources import Resources, Vectors

    return Resources.found().vectors if given is None else Vectors(given)


def encoder(given: Path | Encoder | None) -> Encoder:
    """Return a sentence encoder: as given, from a model's folder, or the packaged MiniLM."""
    if given is not None and not isinstance(given, Path):
        return given
    from hardtack.evaluation.judges import SentenceEncoder

    return SentenceEncoder(given)


def filler(given: Path | Filler) -> Filler:
    """Return a masked language model: as given, or from a model's folder."""
    if not isinstance(given, Path):
        return given
    from hardtack.evaluation.judges import MaskedFiller

    return MaskedFiller(given)


def settings_of(attack: Any, **content: Any) -> dict[str, Any]:
    """Return an attack's name, version and fields, some of them by content instead of by place."""
    plain = {one.name: getattr(attack, one.name) for one in fields(attack)}
    return {"name": attack.name, "version": attack.version, **plain, **content}


def model_digest(given: Any) -> str:
    """Return what names a judge's model in a result row: a digest of its weights.

    Args:
        given: a model's folder, something that has a digest, or None for the packaged MiniLM.
    """
    from hardtack.evaluation.judges import folder_digest
    from hardtack.evaluation.resources import embedded_model

    if given is None or isinstance(given, Path):
        return folder_digest(Path(embedded_model()) if given is None else given)
    return given.digest
