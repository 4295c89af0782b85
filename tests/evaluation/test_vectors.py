import os
from pathlib import Path

import numpy as np
import pytest
from tests.evaluation.tiny import write_vectors

from hardtack.errors import InputError
from hardtack.evaluation import vectors
from hardtack.evaluation.vectors import Vectors

TABLE = {"good": (2, 0), "fine": (1, 1), "great": (4, 3), "bad": (-1, 0), "Film": (0, 3), "décor": (0, -1)}


@pytest.fixture
def path(tmp_path):
    return write_vectors(tmp_path / "vectors.txt", TABLE)


def beside(path):
    return sorted(each.name for each in path.parent.iterdir())


def test_cosines_and_neighbours_by_hand(path):
    space = Vectors(path)
    assert (len(space), space.dimension) == (6, 2)
    assert (space.index("good"), space.index("FILM"), space.index("décor"), space.index("x")) == (
        0,
        4,
        5,
        None,
    )
    assert space.cosine("good", "great") == 0.8
    assert space.cosine("good", "fine") == 0.7071
    assert space.cosine("good", "bad") == -1.0
    assert space.cosine("good", "x") is None
    assert space.nearest("good", 3) == [("great", 0.8), ("fine", 0.7071), ("film", 0.0)]
    assert space.nearest("good", 2) == [("great", 0.8), ("fine", 0.7071)]
    # décor is as far as film: equally near ones stand in the file's order
    assert [word for word, _ in space.nearest("good", 9)] == ["great", "fine", "film", "décor", "bad"]
    assert space.nearest("x", 3) == space.nearest("good", 0) == []


def test_the_second_use_maps_the_table_and_does_not_read_the_text(path, monkeypatch):
    first = Vectors(path)
    assert beside(path) == ["vectors.txt", "vectors.txt.npy", "vectors.txt.words"]
    monkeypatch.setattr(vectors, "_parsed", None)
    second = Vectors(path)
    assert isinstance(second._unit, np.memmap)
    assert second.digest == first.digest
    assert second.nearest("fine", 5) == first.nearest("fine", 5)
    assert np.array_equal(second._unit, first._unit)


@pytest.mark.parametrize("damage", ["table", "words", "no words", "text"])
def test_what_lies_beside_is_made_anew_when_it_is_cut_short_or_the_text_changed(path, damage):
    Vectors(path)
    table, words = path.with_name("vectors.txt.npy"), path.with_name("vectors.txt.words")
    if damage == "table":
        table.write_bytes(table.read_bytes()[:-9])
    elif damage == "words":
        words.write_bytes(words.read_bytes()[:-1])
    elif damage == "no words":
        words.unlink()
    else:
        write_vectors(path, {**TABLE, "good": (0, 1)})
    again = Vectors(path)
    assert again.cosine("good", "film") == (1.0 if damage == "text" else 0.0)
    assert len(np.load(table)) == 6
    assert len(beside(path)) == 3


def test_a_folder_that_cannot_be_written_is_no_obstacle(path, monkeypatch):
    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(np, "save", refuse)
    assert Vectors(path).cosine("good", "great") == 0.8
    assert beside(path) == ["vectors.txt"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (b"good 1 2\nbad 1\n", "line 2 has 1 numbers; 2 are needed"),
        (b"good 1 2\nbad 1 2 3\n", "line 2 has 3 numbers; 2 are needed"),
        (b"2 300\ngood 1 2\n", "line 2 has 2 numbers; 1 are needed"),
        (b"good\n", "line 1 has 0 numbers; at least 1 are needed"),
        (b"good 1 2\n\nbad 1 2\n", "line 2 has 0 numbers"),
        (b"good 1 2\nbad 1 2", "is truncated: its last line has no end"),
        (b"good 1 x\n", "line 1 holds something that is no number"),
        (b"good 1 nan\n", "vector of 'good' is zero or not finite"),
        (b"good 0 0\n", "vector of 'good' is zero or not finite"),
        (b"good 1 2\nGood 2 1\n", "line 2: 'Good' stands in the file twice"),
        (b"g\xffod 1 2\n", "line 1 is not UTF-8"),
    ],
)
def test_damaged_files_are_refused_and_leave_nothing_beside(tmp_path, content, message):
    path = tmp_path / "vectors.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as refused:
        Vectors(path)
    assert "\n" not in str(refused.value)
    assert os.listdir(tmp_path) == ["vectors.txt"]


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="are no file"):
        Vectors(Path(tmp_path))
