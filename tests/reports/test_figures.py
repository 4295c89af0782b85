"""What figures say and the numbers behind them."""

from tests.reports.made import DENSE, ROBUST, log, record, row, study, ticket, write

from hardtack.reports.figures import layers, robustness, trajectories
from hardtack.reports.gather import gather
from hardtack.reports.models import groups_of, models_of
from hardtack.reports.verdicts import compare_all


def drawn(folder):
    models = models_of(gather([folder]).entries, [])
    groups = groups_of(models)
    return robustness(models, compare_all(models, groups, models[0], seed=0), groups, models[0], seed=0)


def test_robustness_against_sparsity_and_latency(tmp_path):
    sparsity, latency = drawn(study(tmp_path))
    assert sparsity.reading.startswith(
        "The highest point is robust at 0.50 with 0.70 [0.60, 0.78]; the dashed line is"
    )
    assert "dense at 0.30, and the paired difference says: higher." in sparsity.reading
    assert "set a little apart" in sparsity.reading
    cells = [[cell.text for cell in line] for line in sparsity.table.rows]
    assert cells[0] == ["dense", "0.00", "0.300", "1"]
    assert sparsity.table.rows[0][2].note == "0.219 to 0.396"
    assert {line[0] for line in cells} == {"dense", "imp", "random", "robust"}
    assert latency.table.rows[0][1].text == "5.0 ms"


def test_a_methods_sparsities_are_one_curve(tmp_path):
    rows = [row("robust", ROBUST, id=str(s), sparsity=s, model=f"runs/robust-{s}") for s in (0.3, 0.5, 0.7)]
    write(tmp_path, (row("dense", DENSE), DENSE), *((one, ROBUST) for one in rows))
    sparsity, latency = drawn(tmp_path)
    assert "hard_concrete" in sparsity.draw()
    assert "robust-0.3" not in sparsity.draw()
    assert "robust-0.3" not in latency.draw()
    assert [line[0].text for line in latency.table.rows][1:] == ["robust-0.3", "robust-0.5", "robust-0.7"]


def test_without_sparsity_there_is_only_latency(tmp_path):
    write(tmp_path, (row("dense", DENSE), DENSE))
    (latency,) = drawn(tmp_path)
    assert latency.title == "Accuracy under deepwordbug against latency"
    assert "the yardstick itself" in latency.reading


def test_layers_by_hand(tmp_path):
    search = record(tmp_path, kind="search")
    kept = {
        "encoder.layer.0.attention.self.query.weight": [True, False],
        "encoder.layer.1.attention.self.query.weight": [True] * 4,
    }
    ticket(search / "tickets" / "t", kept | {"pooler.dense.weight": [False, False, True, True]})
    (figure,) = layers(gather([tmp_path]))
    assert figure.table.head == ("part", "layer 0", "layer 1", "rest")
    assert [[cell.text for cell in line] for line in figure.table.rows] == [
        ["query", "0.500", "0.000", "-"], ["pooler.dense", "-", "-", "0.500"],
    ]  # fmt: skip
    assert (
        figure.reading
        == "0.30 of 10 units are removed: most in query of layer 0 (0.50), least in query of layer 1 (0.00)."
    )


def test_an_even_ticket_says_so(tmp_path):
    ticket(
        record(tmp_path, kind="search") / "tickets" / "t",
        {f"layers.{n}.mlp": [True, False] for n in range(3)},
    )
    assert layers(gather([tmp_path]))[0].reading.endswith("evenly: every site loses the same share.")


def test_trajectories_are_of_searches_that_log_them(tmp_path):
    for name, values in (("a", [1.0, 0.8, 0.5]), ("b", [])):
        record(tmp_path / name, kind="search")
        log(
            tmp_path / name,
            {"event": "ticket"},
            *({"step": n, "open": v} for n, v in enumerate(values)),
            {"step": 9},
        )
        ticket(tmp_path / name / "tickets" / "t", {"x": [True]})
    (figure,) = trajectories(gather([tmp_path]))
    assert figure.reading.endswith("/a goes from 1.00 to 0.50 in 3 steps.")
    assert [line[2].text for line in figure.table.rows] == ["1.0000", "0.8000", "0.5000"]
