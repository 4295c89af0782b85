import pytest
import torch
from tests.evaluation.attacks.fakes import linear

from hardtack.errors import InputError
from hardtack.evaluation.attacks.embedding_pgd import EmbeddingPGD
from hardtack.evaluation.robust import attack_all, rates
from hardtack.runs import Run
from hardtack.tasks.task import Example


def attack(victim, radius, text=("good film a is",), label=1, **settings):
    (outcome,) = attack_all(
        EmbeddingPGD(radii=(radius,), **settings), [Example("x", text, label)], victim, Run.nowhere()
    )
    return outcome


def test_it_falls_from_the_radius_on_that_a_person_computes():
    # Odds 2.0 + 0.5 - 1 = 1.5; over 4 tokens the gradient has norm 2, so radius 0.75 is the border.
    assert attack(linear(bias=-1.0), 0.72, steps=30) == ("x", "held", 1, ("good film a is",), None, None)
    assert attack(linear(bias=-1.0), 0.78, steps=30) == ("x", "fell", 1, ("good film a is",), None, None)


def test_an_example_that_is_wrong_already_is_missed():
    assert attack(linear(bias=-9.0), 1.0).status == "missed"


def test_a_sweep_is_one_attack_a_radius_and_accuracy_falls_along_it(toys):
    victim = toys.bert()
    texts = [("good film",), ("bad plot .",), ("film bad",), ("good good plot",), ("a b c d",)]
    labels = victim.logits(texts).argmax(dim=1).tolist()
    examples = [
        Example(str(i), text, label) for i, (text, label) in enumerate(zip(texts, labels, strict=True))
    ]
    sweep = EmbeddingPGD(radii=(0.01, 0.3, 3.0, 30.0)).sweep()
    assert [one.radii for one in sweep] == [(0.01,), (0.3,), (3.0,), (30.0,)]
    assert len({str(one.settings()) for one in sweep}) == 4
    found = [rates(attack_all(one, examples, victim, Run.nowhere())).accuracy_under_attack for one in sweep]
    assert found == sorted(found, reverse=True)
    assert (found[0], found[-1]) == (1.0, 0.0)


def test_several_radii_in_one_row_are_refused():
    with pytest.raises(InputError, match="each of sweep"):
        next(EmbeddingPGD().attack(Example("x", ("a",), 1), torch.Generator()))


@pytest.mark.parametrize(
    "wrong", [{"radii": ()}, {"radii": (0.0,)}, {"radii": (1.0, 1.0)}, {"steps": 0}, {"step": 0}]
)
def test_settings_out_of_range_are_refused(wrong):
    with pytest.raises(InputError, match="allowed"):
        EmbeddingPGD(**wrong)
