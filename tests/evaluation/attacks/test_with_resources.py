"""The attacks that look words up, with small real resources and models from their folders."""

import json
import shutil

import pytest
from tests.evaluation.attacks.fakes import WEIGHTS
from tests.evaluation.tiny import save_encoder, save_filler, write_vectors, write_wordnet

from hardtack.errors import InputError
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.robust import attack_all
from hardtack.runs import Run
from hardtack.tasks.task import Example

VECTORS = {
    "good": (1, 0),
    "full": (0.9, 0.1),
    "film": (0, 1),
    "movie": (0.1, 1),
    "pic": (0.2, 1),
    "run": (-1, 0),
}
LOOKING = [
    "pwws",
    "textfooler-minilm",
    "textbugger-minilm",
    "bae-minilm",
    "bert_attack",
    "embedding_swap",
    "hotflip",
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    place = tmp_path_factory.mktemp("resources")
    write_wordnet(place / "wordnet")
    write_vectors(place / "counter-fitted-vectors.txt", VECTORS)
    save_encoder(place / "encoder")
    save_filler(place / "masked-lm" / "tiny")
    return place


def made(name, folder):
    models = {"encoder": folder / "encoder", "masked_lm": folder / "masked-lm" / "tiny", "k": 5}
    known = ATTACKS[name].__dataclass_fields__
    return ATTACKS[name](**{key: value for key, value in models.items() if key in known})


@pytest.mark.parametrize("name", LOOKING)
def test_an_attack_takes_resources_from_their_folder(toys, folder, monkeypatch, name):
    monkeypatch.setenv("HARDTACK_RESOURCES", str(folder))
    attack = made(name, folder)
    victim = toys.bert(seed=4) if name == "hotflip" else toys.bag({**WEIGHTS, "full": -1.0, "movie": -2.0})
    texts = [("good film",), ("a good film and good plot",), ("GOOD movie !",), ("",), ("run",)]
    labels = victim.logits(texts).argmax(dim=1).tolist()
    pairs = enumerate(zip(texts, labels, strict=True))
    examples = [Example(str(i), text, label) for i, (text, label) in pairs]
    outcomes = attack_all(attack, examples, victim, Run.nowhere())
    assert {o.status for o in outcomes} <= {"held", "fell"}
    settings = attack.settings()
    assert str(folder) not in json.dumps(settings)
    assert all(len(settings[key]) == 32 for key in ("vectors", "wordnet", "masked_lm") if settings.get(key))
    assert attack_all(attack, examples[::-1], victim, Run.nowhere(), window=2)[::-1] == outcomes


@pytest.mark.parametrize("name", ["pwws", "textfooler-minilm"])
def test_what_wordnet_and_the_vectors_list_is_what_comes(toys, folder, monkeypatch, name):
    monkeypatch.setenv("HARDTACK_RESOURCES", str(folder))
    victim = toys.bag({"good": 2.0, "full": -1.0, "film": 0.5, "movie": 0.4})
    (outcome,) = attack_all(made(name, folder), [Example("x", ("Good film",), 1)], victim, Run.nowhere())
    # "full" shares a meaning with "good", and is its only neighbour of cosine 0.5 and more.
    assert outcome.adversarial == ("Full film",)


def test_a_resource_that_is_missing_is_named_when_the_attack_is_made(folder, tmp_path, monkeypatch):
    shutil.copytree(folder / "wordnet", tmp_path / "wordnet")
    monkeypatch.setenv("HARDTACK_RESOURCES", str(tmp_path))
    with pytest.raises(InputError, match="no counter-fitted word vectors in"):
        ATTACKS["textfooler-minilm"]()
    with pytest.raises(InputError, match=r"has no \.safetensors file"):
        ATTACKS["bae-minilm"](masked_lm=tmp_path).settings()
