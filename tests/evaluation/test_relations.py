"""Doubts between rows, each raised by a model that deserves it and by none that does not."""

import torch
from tests.evaluation.attacks.fakes import NEAR, linear

from hardtack.evaluation import flags
from hardtack.evaluation.attacks.embedding_pgd import EmbeddingPGD
from hardtack.evaluation.attacks.protocol import log_odds
from hardtack.evaluation.attacks.word_swap import WordSwap
from hardtack.evaluation.gradients import WhiteBox
from hardtack.evaluation.relations import related
from hardtack.evaluation.robust import attack_all, rates
from hardtack.runs import Run
from hardtack.tasks.task import Example

TEXTS = ["good film a is", "great plot", "film the movie", "good movie is the picture", "truly fine film"]
EXAMPLES = [Example(str(i), (text,), 1) for i, text in enumerate(TEXTS)]
SWAP = WordSwap({word: [other for other, _ in near] for word, near in NEAR.items()})


def honest(table):
    return table


def rounded(table):
    return (table * 10).round() / 10  # the same values to a tenth; its derivative is 0


def backwards(table):
    return 2 * table.detach() - table  # the same values; its derivative is -1


def victim_of(hide):
    """A linear victim whose embeddings pass through `hide` before they are added up."""
    victim = linear(bias=-0.1)

    def forward(input_ids, attention_mask):
        total = (hide(victim.model.table(input_ids)[:, :, 0]) * attention_mask).sum(dim=1) - 0.1
        return torch.stack([torch.zeros_like(total), total], dim=1)

    victim.model.forward = forward
    return victim


def rows(hide, *attacks):
    """Measure attacks on the examples and return what `evaluate` writes about them, as far as it matters."""
    found = []
    for number, attack in enumerate(attacks):
        outcomes = attack_all(attack, EXAMPLES, victim_of(hide), Run.nowhere())
        same = dict.fromkeys(
            ("model", "ticket", "data_fingerprint", "split", "examples", "seed", "max_length", "shifted_from")
        )
        settings = attack.settings()
        accuracy = rates(outcomes).accuracy_under_attack
        found.append({"id": str(number), **same, "attack": attack.name, "attack_settings": settings})
        found[-1]["accuracy_under_attack"] = accuracy
    return found


SWEEP = EmbeddingPGD(radii=(0.1, 9.0), steps=20).sweep()


def test_an_honest_model_raises_none():
    found = rows(honest, *SWEEP, SWAP)
    assert found[0]["accuracy_under_attack"] > found[1]["accuracy_under_attack"] == 0
    assert related(found) == {"0": set(), "1": set(), "2": set()}
    assert flags.vanishing_gradients(WhiteBox(victim_of(honest)).steepest(EXAMPLES)) == ()


def test_a_model_that_rounds_its_inputs_raises_the_others():
    found = rows(rounded, *EmbeddingPGD(radii=(0.001, 0.01), steps=5).sweep(), SWAP)
    assert related(found)["1"] == {"radius-does-not-reach-zero", "weaker-white-box"}
    assert related(found)["0"] == related(found)["2"] == set()
    doubt = flags.vanishing_gradients(WhiteBox(victim_of(rounded)).steepest(EXAMPLES))
    assert doubt == ("vanishing-gradients",)


def odds(hide):
    """Return the log odds at the start and after the last step of an ascent, for each example."""
    attack, box, run = EmbeddingPGD(radii=(0.4,), steps=6), WhiteBox(victim_of(hide)), Run.nowhere()
    asks = [attack.ascent(one, run.rng("ascent", example=one.id)) for one in EXAMPLES]
    trails = [log_odds(trail, 1) for trail in box.ascents(asks)]
    return torch.stack([trail[0] for trail in trails]), torch.stack([trail[-1] for trail in trails])


def test_steps_that_lead_backwards_or_nowhere_are_doubted():
    assert flags.steps_do_not_help(*odds(honest)) == ()
    assert flags.steps_do_not_help(*odds(backwards)) == ("steps-do-not-help",)
    assert flags.steps_do_not_help(*odds(rounded)) == ("steps-do-not-help",)
    assert flags.steps_do_not_help(torch.empty(0), torch.empty(0)) == ()


def test_rows_on_other_examples_are_not_compared():
    found = rows(rounded, *EmbeddingPGD(radii=(0.001, 0.01), steps=5).sweep(), SWAP)
    for number, row in enumerate(found):
        row["seed"] = number
    assert related(found) == {"0": set(), "1": set(), "2": set()}


def test_one_radius_is_no_sweep():
    found = rows(rounded, EmbeddingPGD(radii=(0.01,), steps=5), SWAP)
    assert related(found) == {"0": set(), "1": set()}
