"""What figures say and the numbers behind them."""

from tests.reports.made import DENSE, ROBUST, log, record, row, study, ticket, write

from hardtack.reports.figures import layers, robustness, settling, trajectories
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


def early_bird(folder, *distances, stopped=True, **settings):
    """A search's folder whose checkpoints, ten an epoch, have these distances of heads; neurons' are half."""
    settings = {"threshold": 0.1, "window": 2, "stop": "hamming", **settings}
    record(folder, kind="search", method="early_bird", granularity=["head", "neuron"], settings=settings)
    ticket(folder / "tickets" / "t", {"x": [True, False]})
    looks = [{"head": one, "neuron": one / 2} for one in distances]
    lines = [
        {"event": "trajectory", "step": n, "epochs": n / 10, "checkpoint": n, "settled": False, **look}
        for n, look in enumerate([{}, *looks], 1)
    ]
    lines[-1]["settled"] = stopped
    log(folder, {"step": 0, "loss": 1.0}, *lines)
    return folder


def test_an_early_birds_distances_its_threshold_and_its_stop(tmp_path):
    early_bird(tmp_path / "a", 0.4, 0.2, 0.04)
    (figure,) = settling(gather([tmp_path]))
    assert figure.title.endswith("/a: how far the ranking still moves")
    assert figure.reading == (
        "Distances go: head from 0.400 to 0.040, neuron from 0.200 to 0.020. "
        "At 0.40 epochs the search stopped (dotted line); the threshold, 0.1, is dashed."
    )
    assert figure.table.head == ("epochs", "head", "neuron", "settled")
    assert [[cell.text for cell in line] for line in figure.table.rows] == [
        ["0.200", "0.4000", "0.2000", "no"],  # the first checkpoint has none before it
        ["0.300", "0.2000", "0.1000", "no"],
        ["0.400", "0.0400", "0.0200", "yes"],
    ]
    assert "2 checkpoints before (masks: share of units)" in figure.table.caption
    drawn = figure.draw()
    assert all(words in drawn for words in ("threshold 0.1", "the search stopped", "head", "neuron"))
    assert "how far the ranking still moves</title>" in drawn  # what a screen reader says
    assert not trajectories(gather([tmp_path]))


def test_a_search_that_never_settled_says_so(tmp_path):
    early_bird(tmp_path / "a", 0.4, 0.3, stopped=False, stop="rank", threshold=0.0)
    (figure,) = settling(gather([tmp_path]))
    assert (
        "At 0.30 epochs its steps ended before it had settled; the threshold, 0, is dashed." in figure.reading
    )
    assert "rankings: 1 - correlation" in figure.table.caption
    assert "the search stopped" not in figure.draw()


def test_each_early_bird_search_has_a_figure_and_other_searches_have_none(tmp_path):
    for name in ("a", "b"):
        early_bird(tmp_path / name, 0.4, 0.2)
    record(tmp_path / "c", kind="search", granularity=["weight"])
    log(tmp_path / "c", {"step": 1, "open": 0.5})
    names = [figure.title.split(":")[0].rsplit("/")[-1] for figure in settling(gather([tmp_path]))]
    assert names == ["a", "b"]
