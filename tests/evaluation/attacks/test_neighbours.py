import gzip
import json

import pytest

from hardtack.errors import InputError
from hardtack.evaluation.attacks import neighbours
from hardtack.evaluation.attacks.neighbours import load_neighbours, neighbours_of

GOOD = '{"word": "Film", "neighbors": ["movie", "picture"]}\n\n{"word": "br", "neighbors": []}\n'


@pytest.mark.parametrize("zipped", [False, True])
def test_a_table_is_read_plain_and_gzipped(tmp_path, zipped):
    path = tmp_path / "table.jsonl"
    path.write_bytes(gzip.compress(GOOD.encode()) if zipped else GOOD.encode())
    table = load_neighbours(path)
    assert table.entries == {"film": ("movie", "picture")}
    assert table == neighbours_of({"film": ["movie", "picture"]})


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{\n", "line 1 is not JSON"),
        (GOOD.encode() + b"[1]\n", "line 4 holds a list"),
        (b'{"word": "a"}\n', "line 1 has the keys word; word and neighbors are needed"),
        (b'{"word": 3, "neighbors": ["b"]}\n', "line 1: 3 is no word"),
        (b'{"word": "a", "neighbors": "b"}\n', "line 1: neighbours are str"),
        (b'{"word": "a", "neighbors": [""]}\n', "line 1: '' is no word"),
        (
            b'{"word": "a", "neighbors": ["b"]}\n{"word": "A", "neighbors": ["c"]}\n',
            "line 2: 'A' stands .* twice",
        ),
        (b'{"word": "\xff", "neighbors": ["b"]}\n', "line 1 is not UTF-8"),
        (b'{"word": "a", "neighbors": ["b", "A"]}\n', "line 1: 'a' is a neighbour of itself"),
        (b'{"word": "a", "neighbors": []}\n', "has no word with neighbours"),
        (b"", "has no word with neighbours"),
        (
            json.dumps({"word": "a", "neighbors": ["b"] * 1001}).encode(),
            "1001 neighbours; allowed: at most 1000",
        ),
        (json.dumps({"word": "a" * 101, "neighbors": ["b"]}).encode(), "a word of 101 characters"),
        (gzip.compress(GOOD.encode(), mtime=0)[:-9], "damaged or truncated gzip"),
        (gzip.compress(GOOD.encode(), mtime=0)[:12] + b"\0" * 30, "damaged or truncated gzip"),
        (b"[" * 100_000, "line 1 is not JSON"),
        (b'{"word": ' + b"1" * 5000 + b', "neighbors": []}', "line 1 is not JSON"),
        (b'{"word": "a", "neighbors": ["\\ud800"]}', "half a character"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(tmp_path, content, message):
    path = tmp_path / "table.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as caught:
        load_neighbours(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is no file"):
        load_neighbours(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is no file"):
        load_neighbours(tmp_path)


def test_sizes_are_checked_while_reading(tmp_path, monkeypatch):
    path = tmp_path / "table.jsonl.gz"
    path.write_bytes(gzip.compress(GOOD.encode() * 100))
    monkeypatch.setattr(neighbours, "MAX_BYTES", 60)
    with pytest.raises(InputError, match="more than the allowed 60 bytes"):
        load_neighbours(path)
    monkeypatch.setattr(neighbours, "MAX_LINE_BYTES", 20)
    with pytest.raises(InputError, match="line 1 is longer than the allowed 20 bytes"):
        load_neighbours(path)
