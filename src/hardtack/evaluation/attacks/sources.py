"""Where attacks take what they look words up in: what is named, or the folder of resources."""

from dataclasses import fields
from pathlib import Path
from typing import Any

import xxhash

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Encoder, Filler
from hardtack.evaluation.constraints import Space, Thesaurus


def thesaurus(given: Path | Thesaurus | None) -> Thesaurus:
    """Return WordNet: as given, read from a folder, or from the folder of resources."""
    if given is not None and not isinstance(given, Path):
        return given
    from hardtack.evaluation.resources import Resources, WordNet

    return Resources.found().wordnet if given is None else WordNet(given)


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


def model_digest(given: Any, default: str) -> str:
    """Return what names a model in a result row: a default's name, or a digest of its folder's weights."""
    if given is None:
        return default
    if not isinstance(given, Path):
        return str(getattr(given, "digest", type(given).__name__))
    weights = sorted(given.glob("*.safetensors"))
    if not weights:
        raise InputError(
            f"model folder {given} has no .safetensors file; a saved transformers model is needed"
        )
    digest = xxhash.xxh3_128()
    for file in weights:
        with file.open("rb") as stream:
            while block := stream.read(2**20):
                digest.update(block)
    return digest.hexdigest()
