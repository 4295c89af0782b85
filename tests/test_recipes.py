"""The recipes of this project: each expands, and shows no ticket without its controls."""

import gzip
import re
from pathlib import Path

import pytest

from hardtack.methods import METHODS
from hardtack.reports.page import report
from hardtack.studies import study
from hardtack.studies.grid import expand
from hardtack.studies.reading import read
from tests.stages.saved import saved_task
from tests.studies.test_grid import Fixed
from tests.toys import saved_toy

RECIPES = Path(__file__).parents[1] / "recipes"


@pytest.fixture
def data(tmp_path, monkeypatch):
    """A folder of data with a table of neighbours."""
    words = tmp_path / "data" / "attack_resources" / "counterfitted_neighbors.jsonl.gz"
    words.parent.mkdir(parents=True)
    words.write_bytes(gzip.compress(b'{"word": "good", "neighbors": ["fine"]}\n'))
    monkeypatch.setenv("HARDTACK_DATA", str(tmp_path / "data"))
    return tmp_path / "data"


@pytest.fixture(params=sorted(file.name for file in RECIPES.glob("*.toml")))
def cells(request, data, monkeypatch):
    """Every cell of a recipe, by its place."""
    monkeypatch.setenv("HARDTACK_SMALL_GPT2", str(data))
    found = expand(read(RECIPES / request.param), Path("runs"), Fixed())
    return {cell.place: cell for cell in found}


def before(cells, cell, verb):
    """Return the one cell of a verb that a cell goes back to, None where there is none."""
    if cell.verb.name == verb:
        return cell
    found = {one.place: one for need in cell.needs if (one := before(cells, cells[need], verb))}
    return next(iter(found.values())) if len(found) == 1 else None


def shown(cells):
    """Yield the search, the retraining (None without one) and the ticket of everything evaluated."""
    for cell in cells.values():
        if cell.verb.name == "evaluate":
            search, again = before(cells, cell, "search"), before(cells, cell, "retrain")
            ticket = again.settings["ticket"] if again else cell.settings["target"]
            yield search, again, Path(ticket).name if search else None


def test_every_ticket_stands_beside_random_and_magnitude_ones_of_its_sparsity(cells):
    methods = {}
    for search, _, ticket in shown(cells):
        if search is not None:
            kinds = tuple(search.settings.get("granularity", ()))
            beside = methods.setdefault((ticket, kinds, search.settings["model"]), set())
            method = search.settings["method"]
            beside.add((method, search.settings.get("objective") or METHODS[method].minimises))
    assert methods
    for found in methods.values():
        names = {method for method, _ in found}
        assert "random" in names
        assert names & {"magnitude", "iterative"}
        for method, objective in found:  # a search with an adversary beside the same one without
            assert objective == "clean" or (method, "clean") in found


def test_every_retrained_ticket_stands_beside_a_dense_model_of_equal_training(cells):
    dense = [before(cells, cell, "train") for cell in cells.values() if cell.verb.name == "evaluate"
             and before(cells, cell, "search") is None]  # fmt: skip
    trained = {
        (one.settings["epochs"], one.settings["lr"], one.settings.get("seed", 0)) for one in dense if one
    }
    assert dense
    for _, again, _ in shown(cells):
        if again is not None:
            assert (again.settings["epochs"], again.settings["lr"], again.settings.get("seed", 0)) in trained


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["early_bird_sst2_small", "knowledge_retention_sst2_small"])
def test_a_recipe_runs_to_its_last_row(name, data, tmp_path, monkeypatch):
    """The recipe as it stands, but for the size of what it trains: a toy model on a toy task."""
    saved_toy(tmp_path / "tiny")
    saved_task(data / "sst2_sentences")
    monkeypatch.setenv("HARDTACK_MINILM", str(tmp_path / "tiny"))
    monkeypatch.chdir(tmp_path)
    text = (RECIPES / f"{name}.toml").read_text()
    for key, least in {"train_examples": None, "epochs": 1, "examples": 6}.items():
        line = f"{key} = {least}" if least else ""
        text = re.sub(rf"^{key} = \d+$", line, text, flags=re.MULTILINE)
    (tmp_path / f"{name}.toml").write_text(text)
    result = study(f"{name}.toml", write_results=True)
    assert (result["failed"], result["not_run"]) == ([], [])
    (rows,) = (tmp_path / "docs" / "results" / name).glob("*/rows.jsonl")
    assert len(rows.read_text().splitlines()) == result["rows"]
    made = report([tmp_path / "docs" / "results" / name], out=tmp_path / "page.md")
    assert len(made["models"]) == {"early_bird_sst2_small": 6, "knowledge_retention_sst2_small": 38}[name]
