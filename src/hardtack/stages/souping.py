"""`soup`: one model out of several that were fine-tuned from the same base, by averaging their weights."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
import xxhash
from torch import Tensor

from hardtack import cost
from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import TextAttack
from hardtack.loading import Loaded, model_folder
from hardtack.runs import Json, Run, Watch
from hardtack.stages.alike import check_architecture, check_tokenizer, open_trained
from hardtack.stages.common import (
    Common,
    one_process,
    open_run,
    provenance_of,
    result_of,
    resumptions,
    save_model,
    settle,
    tokenizer_digest,
    weights_digest,
)
from hardtack.stages.measuring import QUERIES, Subject, Whole, choose_runtime, measure_attack, measure_whole
from hardtack.stages.planning import forwards
from hardtack.stages.planning import total as planned
from hardtack.stages.reproducing import recipe
from hardtack.stages.targets import Target
from hardtack.tasks.task import Task
from hardtack.ticket import Ticket

SPLIT = "validation"  # every choice is made there
INHERITED = ("objective", "ticket_objective", "epochs", "epoch_rule", "granularity", "sparsity", "prunable")

Tensors = Mapping[str, Tensor]


class Ingredient(NamedTuple):
    """A model that may join: its name, a digest of its weights, how it was made, its ticket if it has one."""

    name: str
    digest: str
    made: Mapping[str, Json]
    ticket: Ticket | None


def soup(
    models: Sequence[str],
    *,
    task: str,
    out: str | Path,
    attacks: Sequence[TextAttack] = (),
    examples: int = 200,
    uniform: bool = False,
    common: Common | None = None,
    watch: Watch | None = None,
    dry_run: bool = False,
) -> dict[str, Any]:
    """Average fine-tuned models and write an ordinary transformers folder to `out/model`.

    Each model is scored on validation. The best one begins; the others are tried in the order of their
    scores, and one joins when the average with it does not score lower than the average without it.

    Source: Wortsman et al. 2022, "Model soups", ICML, Algorithm 1 (greedy soup); with a score under attack Li
    et al. 2023, Algorithm 3.

    Args:
        models: fine-tuned models of one architecture, tokenizer and task: hub ids, folders or run folders.
            Pruned ones have to share one ticket, which the average keeps.
        task: built-in name, folder or file; only its validation split is read.
        out: run folder; the same command again continues or finds it done.
        attacks: attack instances; with any, the score is the accuracy under them (of several, the mean),
            else clean accuracy.
        examples: how many are attacked: drawn with the seed, stratified by label, the same for every score.
        uniform: average all models without choosing; only the result is scored.
        common: seed, lengths, device.
        watch: receives progress.
        dry_run: return a plan instead: stages, seconds, bytes.
    """
    again = recipe("soup", locals())
    one_process("soup")
    common = common or Common()
    data = common.open_task(task)
    if not data.labels:
        raise InputError(f"task {data.name!r} has texts alone; the score of a soup needs labels")
    n = len(data.table(SPLIT))
    pot, ingredients = _opened(models, data, common)
    tasting = _Tasting(pot, data, tuple(attacks), min(examples, n), common)
    if dry_run:
        return tasting.plan(1 if uniform else 2 * len(ingredients) - 1)
    named = [[attack.name, _settings(attack)] for attack in attacks]
    settings: dict[str, Json] = {
        "models": [one.digest for one in ingredients],
        "tokenizer": tokenizer_digest(pot.tokenizer),
        "data": data.fingerprint(SPLIT),
    }
    if attacks:
        settings |= {"attacks": named, "examples": tasting.examples}
    record = {"models": [*models], "task": data.name, "task_from": task, "uniform": uniform}
    record |= {"cut": list(data.cut), "data": settings["data"], "attacks": named, "examples": examples}
    with open_run(
        "soup",
        "uniform" if uniform else "greedy",
        out,
        settings=settings,
        record=record,
        common=common,
        without=("precision", "train_examples"),  # nothing is trained here
        watch=watch,
        again=again,
    ) as run:
        assert run.folder is not None
        if run.finished():
            return result_of(run)
        mix = _uniform if uniform else _greedy
        members, said, score = mix(ingredients, tasting, run, common)
        made = _provenance(members, run, data, tasting, common)
        save_model(pot, run.folder / "model", made, members[0].ticket)
        return settle(
            run,
            kind="soup",
            method=run.recipe["method"],
            scored_by="accuracy_under_attack" if attacks else "clean_accuracy",
            score=score,
            joined=len(members),
            ingredients=said,
            passes=0,  # nothing is trained
            forward_texts=sum(tasting.asked.values()),
            flags=sorted(tasting.flags),
            model=str(run.folder / "model"),
            resumed=resumptions(run),
            seconds=round(run.clock.seconds(), 3),
        )


def mean_of(sums: Tensors, count: int, like: Tensors) -> dict[str, Tensor]:
    """Return sums divided by their count, each in the type of its namesake in `like`.

    Args:
        sums: float64 tensors by name.
        count: how many were added up.
        like: a model's tensors; those that are no floating-point numbers are returned as they are.
    """
    return {
        name: (sums[name] / count).to(value.dtype) if name in sums else value for name, value in like.items()
    }


def added(sums: Tensors, tensors: Tensors) -> dict[str, Tensor]:
    """Return sums with a model's floating-point tensors added, in float64 on the CPU; `{}` begins one."""
    return {
        name: sums.get(name, 0.0) + value.detach().double().cpu()
        for name, value in tensors.items()
        if value.is_floating_point()
    }


@dataclass
class _Tasting:
    """Scores weights on validation, always in the same model; a score that is known is not measured again."""

    pot: Loaded
    data: Task
    attacks: tuple[TextAttack, ...]
    examples: int
    common: Common
    asked: dict[str, int] = field(default_factory=dict)
    flags: set[str] = field(default_factory=set)

    def score(self, members: Sequence[Ingredient], sums: Tensors, run: Run) -> float:
        """Return the score of the members' average, whose weights the model has afterwards.

        Args:
            members: whose average it is.
            sums: of their tensors.
            run: keeps scores, and answers of one that is being measured.
        """
        model = self.pot.model
        with torch.no_grad():
            model.load_state_dict(mean_of(sums, len(members), model.state_dict()))
        name = xxhash.xxh3_64(" ".join(one.digest for one in members).encode()).hexdigest()
        kept = run.kept(f"score-{name}")
        if kept is None:
            try:
                found = self._measured(name, run)
            except InputError as error:
                raise InputError(f"{' + '.join(one.name for one in members)}: {error}") from None
            run.keep(f"score-{name}", {}, **found)
        else:
            found = kept[1]
            run.clock.catch_up(found["seconds"])
        self.asked[name] = found["texts"]
        self.flags.update(found["flags"])
        if not run.logged(event="score", members=[one.name for one in members]):
            run.log(event="score", members=[one.name for one in members], score=found["score"])
        return found["score"]

    def plan(self, scores: int) -> dict[str, Any]:
        """Estimate so many scores, and what the model takes on disk."""
        encoder = self.common.encoder(self.pot)
        batches = self.data.batches(SPLIT, encoder, 2 * self.common.batch_size, 0)
        one = forwards(f"{scores} scores on {SPLIT}", self.pot.model, batches)
        texts = len(self.attacks) * QUERIES * self.examples if self.attacks else batches.examples
        one["seconds"] = round(one["seconds"] * scores * texts / batches.examples, 1)
        size = 4 * cost.parameters_kept(self.pot.model)
        return planned([one, {"name": "the average", "seconds": 1.0, "bytes": size}])

    def _measured(self, name: str, run: Run) -> dict[str, Json]:
        """Measure the model as it is, as `evaluate` measures one."""
        target = Target(self.pot, None, {}, name, None)
        subject = Subject(target, self.data, SPLIT, self.common.encoder(self.pot), self.common)
        if not self.attacks:
            found = measure_whole(subject, Whole.of(self.data, SPLIT, None, ()), {"id": name}, run)
            rates, texts, flags = [found["clean_accuracy"]], found["forward_texts"], found["flags"]
        else:
            flops = subject.shared()["flops"]
            runtime = choose_runtime(subject, len(self.attacks), self.examples, flops, run)
            rates, texts, flags = [], 0, []
            for number, attack in enumerate(self.attacks):
                row = {"id": f"{name}-{number}", "split": SPLIT}
                found, _ = measure_attack(subject, attack, row, self.examples, runtime, run)
                rates.append(found["accuracy_under_attack"])
                texts += found["forward_texts"]
                flags += found["flags"]
        return {"score": sum(rates) / len(rates), "texts": texts, "flags": sorted({*flags})}


Mixed = tuple[list[Ingredient], list[dict[str, Json]], float]
"""Who joined, what is said of each ingredient, and the result's score."""


def _greedy(ingredients: Sequence[Ingredient], tasting: _Tasting, run: Run, common: Common) -> Mixed:
    """Let models join from the best on, each when the score does not fall; leave the average in the pot."""
    alone: dict[str, float] = {}
    for number, one in enumerate(ingredients):
        run.tick("soup", number, 2 * len(ingredients) - 1)
        alone[one.digest] = tasting.score([one], added({}, _tensors(one, common)), run)
    first, *others = sorted(ingredients, key=lambda one: -alone[one.digest])  # equal ones as they were named
    members, sums, best = [first], added({}, _tensors(first, common)), alone[first.digest]
    said = [_said(first, alone[first.digest], best, joined=True)]
    for number, one in enumerate(others, start=len(ingredients)):
        run.tick("soup", number, 2 * len(ingredients) - 1)
        tried = added(sums, _tensors(one, common))
        score = tasting.score([*members, one], tried, run)
        joined = score >= best
        said.append(_said(one, alone[one.digest], score, joined=joined))
        if joined:
            members, sums, best = [*members, one], tried, score
    tasting.score(members, sums, run)  # the last one tried may not have joined
    run.tick("soup", 2 * len(ingredients) - 1, 2 * len(ingredients) - 1)
    return members, said, best


def _uniform(ingredients: Sequence[Ingredient], tasting: _Tasting, run: Run, common: Common) -> Mixed:
    """Average all models; leave the average in the pot."""
    sums: dict[str, Tensor] = {}
    for one in ingredients:
        sums = added(sums, _tensors(one, common))
    score = tasting.score(ingredients, sums, run)
    return [*ingredients], [_said(one, None, None, joined=True) for one in ingredients], score


def _said(one: Ingredient, alone: float | None, together: float | None, *, joined: bool) -> dict[str, Json]:
    return {"model": one.name, "score": alone, "score_with_it": together, "joined": joined}


def _tensors(one: Ingredient, common: Common) -> dict[str, Tensor]:
    """Read an ingredient's weights anew: with many models, only two of them are in memory at a time."""
    return common.load(one.name, None, trained_head=True).model.state_dict()


def _opened(models: Sequence[str], data: Task, common: Common) -> tuple[Loaded, list[Ingredient]]:
    """Open every model once and refuse those that cannot be averaged with the first, which is returned."""
    if not models:
        raise InputError("a soup of no models; needed: 1 or more")
    pot, found = common.load(models[0], data.labels), []
    for name in models:
        loaded = open_trained(name, data.labels, common)
        check_architecture(loaded, name, pot, models[0])
        check_tokenizer(loaded, name, pot, models[0])
        place = Path(model_folder(name)) / "ticket"
        ticket = Ticket.load(place) if (place / "ticket.json").is_file() else None
        found.append(Ingredient(name, weights_digest(loaded.model), provenance_of(name), ticket))
        first, last = found[0], found[-1]
        if twice := next((one.name for one in found[:-1] if one.digest == last.digest), None):
            raise InputError(f"{twice} and {name} have the same weights; allowed: each model once")
        digests = {None if one.ticket is None else one.ticket.digest() for one in (first, last)}
        if len(digests) > 1:
            raise InputError(
                f"{name} and {first.name} do not have the same ticket; allowed: dense models, or models that "
                "were retrained from one ticket"
            )
    return pot, found


def _provenance(
    joined: Sequence[Ingredient], run: Run, data: Task, tasting: _Tasting, common: Common
) -> dict[str, Json]:
    """Return how the soup was made; of how its members were made, what they have in common."""
    shared = {}
    for name in INHERITED:
        values = [one.made.get(name) for one in joined]
        shared[name] = values[0] if all(value == values[0] for value in values) else None
    return {
        **shared,
        "run": run.id,
        "kind": "soup",
        "method": "soup",
        "seed": common.seed,
        "task": data.name,
        "max_length": common.encoder(tasting.pot).max_length,
        "members": [one.made.get("run") or one.name for one in joined],
    }


def _settings(attack: TextAttack) -> Json:
    return json.loads(json.dumps(attack.settings(), default=str))
