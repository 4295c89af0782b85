import pytest
import torch

from hardtack.evaluation.answers import Answers
from hardtack.runs import Clock

BINDING = bytes(range(16))
BATCHES = [torch.tensor([[1.5, -0.0], [3.0, 1e-30]]), torch.tensor([[2.0, 7.0]])]


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "deep" / "x.answers"
    with Answers(path, BINDING, None) as answers:
        for batch in BATCHES:
            assert answers.replay(len(batch)) is None
            answers.append(batch)
    return path


def test_what_was_written_is_read_back_bit_for_bit_then_the_model_is_asked(path):
    with Answers(path, BINDING, 2) as answers:
        for batch in BATCHES:
            again = answers.replay(len(batch))
            assert again.dtype == torch.float32
            assert torch.equal(again.view(torch.int32), batch.view(torch.int32))
        assert answers.replay(1) is None
        answers.append(BATCHES[1])
    with Answers(path, BINDING, 2) as answers:
        assert [answers.replay(n) is None for n in (2, 1, 1, 1)] == [False, False, False, True]


@pytest.mark.parametrize(("binding", "classes"), [(bytes(16), 2), (BINDING, 3)])
def test_a_file_of_something_else_is_discarded(path, binding, classes):
    with Answers(path, binding, classes) as answers:
        assert answers.replay(2) is None
    assert path.read_bytes() == b""


def test_a_batch_of_another_size_ends_the_replay(path):
    whole = path.read_bytes()
    with Answers(path, BINDING, 2) as answers:
        assert answers.replay(2) is not None
        assert answers.replay(3) is None
        assert answers.replay(1) is None
    assert path.read_bytes() == whole[: len(whole) - 29]  # 21 bytes of head, one row of two floats


def test_without_a_file_nothing_is_kept():
    with Answers(None, BINDING, 2) as answers:
        assert answers.replay(1) is None
        answers.append(BATCHES[1])
        assert answers.replay(1) is None


def test_a_full_disk_is_an_error_and_what_was_written_stays(path, monkeypatch):
    whole = path.read_bytes()
    with Answers(path, BINDING, 2) as answers:
        for batch in BATCHES:
            answers.replay(len(batch))
        assert answers.replay(1) is None

        class Full:
            name = "x"
            tell = staticmethod(lambda: 99)
            close = staticmethod(lambda: None)

            def write(self, data):
                return 3

        with monkeypatch.context() as patch:
            patch.setattr(answers, "_file", Full())
            with pytest.raises(OSError, match="No space left"):
                answers.append(BATCHES[1])
    assert path.read_bytes() == whole


def test_whoever_reads_answers_back_catches_up_with_the_time_they_took(path):
    first = Clock()
    first.catch_up(500.0)
    with Answers(path, bytes(16), 2, clock=first) as answers:
        assert answers.replay(2) is None  # the file of another attack: written anew
        answers.append(BATCHES[0])
        first.catch_up(700.0)
        answers.append(BATCHES[1])
    for batches, least in ((1, 500), (2, 700)):
        clock = Clock()
        with Answers(path, bytes(16), 2, clock=clock) as answers:
            for batch in BATCHES[:batches]:
                assert answers.replay(len(batch)) is not None
        assert least <= clock.seconds() < least + 100
