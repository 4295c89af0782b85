"""What the report and `show` say of what pruning lost."""

from tests.reports.made import record, ticket

from hardtack.reports.gather import gather
from hardtack.reports.lost import layers_lost, lost
from hardtack.reports.page import build
from hardtack.reports.show import show, show_text

ORIGIN = {
    "method": "retention",
    "reconstruction_error": {
        "encoder.layer.0.attention.self.query.weight": 0.1,
        "encoder.layer.0.output.dense.weight": 0.3,
        "encoder.layer.1.attention.self.query.weight": 0.25,
        "pooler.dense.weight": 0.02,
    },
    "distance": {
        "clean": {"first": [0.01, 0.02], "mean": [0.001, 0.002]},
        "attacked": {"first": [0.03, 0.04], "mean": [0.003, 0.004]},
    },
}
KEPT = {name: [True, False] for name in ORIGIN["reconstruction_error"]}


def test_layers_by_hand():
    first, second, rest = layers_lost(ORIGIN)
    assert (first.name, first.error) == ("0", 0.2)
    assert second.distances == {
        "clean, first": 0.02, "clean, mean": 0.002, "attacked, first": 0.04, "attacked, mean": 0.004,
    }  # fmt: skip
    assert (rest.name, rest.error) == ("rest", 0.02)
    assert set(rest.distances.values()) == {None}


def test_a_ticket_of_another_method_or_a_broken_record_has_none(tmp_path):
    assert layers_lost({"method": "magnitude"}) == []
    assert layers_lost({"distance": {"clean": {"first": "no"}}, "reconstruction_error": [1]}) == []
    ticket(record(tmp_path, kind="search") / "tickets" / "t", KEPT)
    assert lost(gather([tmp_path])) == []


def test_the_report_draws_it_and_shows_its_numbers(tmp_path):
    ticket(record(tmp_path, kind="search") / "tickets" / "t", KEPT, **ORIGIN)
    apart, matrices = lost(gather([tmp_path]))
    assert apart.reading.startswith(
        "Behind the last layer the distance is 0.02 (clean, first), 0.002 (clean, m"
    )
    assert [cell.text for cell in apart.table.rows[1]] == ["1", "0.25", "0.02", "0.002", "0.04", "0.004"]
    assert matrices.reading == (
        "Most is lost in output.dense of layer 0 (0.300 of its output's energy), least in pooler.dense "
        "(0.020), on the calibration data."
    )
    assert [cell.text for cell in matrices.table.rows[0]] == ["query", "0.1", "0.25", "-"]
    assert "<svg" in apart.draw()
    assert "<svg" in matrices.draw()
    page = build(gather([tmp_path]))
    assert "What pruning lost" in [section.title for section in page.sections]


def test_show_has_a_table_of_it_instead_of_a_long_line(tmp_path):
    from tests.tickets import drawn
    from tests.toys import TOYS

    drawn(TOYS["bert"](), **ORIGIN).save(tmp_path / "t")
    found = show(str(tmp_path / "t"))
    assert found["origin"]["distance"] == ORIGIN["distance"]
    text = show_text(found)
    assert "| 1     |       0.25 |         0.02 |       0.002 |            0.04 |          0.004 |" in text
    assert "reconstruction_error" not in text
