"""White-box questions to a victim: which words its gradient asks for, where its embeddings can be pushed."""

import re
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from hardtack.errors import InputError
from hardtack.evaluation.attacks.protocol import Ascent, Flips
from hardtack.evaluation.sheaves import Sheaf, padded, plan
from hardtack.evaluation.victim import Victim, check_finite, logits_of
from hardtack.modes import evaluation_mode
from hardtack.perturb import added_to_embeddings, ascend, project, random_start
from hardtack.runs import generator
from hardtack.tasks.task import Example

_ONE_WORD = re.compile(r"[^\W_]+(?:['’-][^\W_]+)*")


class WhiteBox:
    """Answers questions about a victim's gradient with respect to its word embeddings.

    What is raised is minus the log odds of the true class. Its gradient points where that of the
    cross-entropy points, but does not vanish where the victim is sure of itself. The model runs in evaluation
    mode and gets its own mode back; its weights get no gradients.

    Args:
        victim: a model with `get_input_embeddings`; for flips its encoder needs a fast tokenizer.
    """

    def __init__(self, victim: Victim):
        self.victim = victim

    @cached_property
    def lookup(self) -> Any:
        """The model's lookup of word embeddings."""
        find = getattr(self.victim.model, "get_input_embeddings", None)
        if find is None:
            name = type(self.victim.model).__name__
            raise InputError(f"{name} has no get_input_embeddings; a white-box attack needs it")
        return find()

    @cached_property
    def tokenizer(self) -> Any:
        """The victim's tokenizer, which must know where in a text each token stands."""
        tokenizer = getattr(self.victim.encoder, "tokenizer", None)
        if not getattr(tokenizer, "is_fast", False):
            raise InputError(
                "the victim's tokenizer does not tell where its tokens stand; flips need a fast tokenizer"
            )
        return tokenizer

    @cached_property
    def vocabulary(self) -> dict[str, int]:
        """Every word that, written after a space, is one token, with that token."""
        spelt = self.tokenizer.batch_decode([[i] for i in range(len(self.tokenizer))])
        words = [word for word in map(str.strip, spelt) if _ONE_WORD.fullmatch(word) and not word.isdigit()]
        tokens = self.tokenizer([f" {word}" for word in words], add_special_tokens=False)["input_ids"]
        unknown = self.tokenizer.unk_token_id
        found = zip(words, tokens, strict=True)
        return {word: ids[0] for word, ids in found if len(ids) == 1 and ids[0] != unknown}

    @cached_property
    def table(self) -> Tensor:
        """The vocabulary's embeddings [words, D], through the lookup itself, which may scale them."""
        tokens = torch.tensor(list(self.vocabulary.values()), device=self.victim.device)
        with torch.no_grad():
            return self.lookup(tokens).float().cpu()

    def flips(self, asks: Sequence[Flips]) -> list[list[list[tuple[str, float]]]]:
        """Return, for each ask and each of its spans, words with the estimated fall of the true log odds."""
        answers: list[list[list[tuple[str, float]]]] = [[] for _ in asks]
        for sheaf, inputs in self._batches(asks):
            labels = torch.tensor([asks[i].label for i in sheaf.positions])
            tokens = inputs["input_ids"]
            delta = torch.zeros(*tokens.shape, self._width, device=tokens.device)
            gradient, _ = self._gradient(inputs, labels, delta)
            for gradient_of, i in zip(gradient.cpu(), sheaf.positions.tolist(), strict=True):
                answers[i] = self._flips(asks[i], gradient_of)
        return answers

    def _flips(self, ask: Flips, gradient: Tensor) -> list[list[tuple[str, float]]]:
        limit = getattr(self.victim.encoder, "max_length", None)
        encoded = self.tokenizer(*ask.text, truncation=limit is not None, max_length=limit)
        words, numbers = list(self.vocabulary), {word: k for k, word in enumerate(self.vocabulary)}
        found = []
        for (column, start, end), among in zip(ask.spans, ask.among, strict=True):
            place = encoded.char_to_token(start, sequence_index=column)
            last = encoded.char_to_token(end - 1, sequence_index=column)
            standing = ask.text[column][start:end]
            if place is None or place != last or encoded.token_to_chars(place) != (start, end):
                found.append([])
                continue
            known = [numbers[word] for word in among if word in numbers] if among else range(len(words))
            chosen = torch.tensor(
                [k for k in known if words[k].lower() != standing.lower()], dtype=torch.long
            )
            token = torch.tensor([encoded["input_ids"][place]], device=self.victim.device)
            with torch.no_grad():
                before = self.lookup(token)[0].float().cpu()
            falls = ((self.table[chosen] - before) @ gradient[place]).double().round(decimals=4)
            order = torch.sort(falls, descending=True, stable=True).indices[: ask.top]
            found.append([(words[chosen[k]], float(falls[k])) for k in order])
        return found

    def steepest(self, examples: Sequence[Example]) -> Tensor:
        """Return, for each example, the gradient's largest entry at its own text, float32 [n]."""
        asks = [Ascent(example.text, example.label, 0.0, 0, 0.0, 0) for example in examples]
        found = torch.zeros(len(asks))
        for sheaf, inputs in self._batches(asks):
            labels = torch.tensor([asks[i].label for i in sheaf.positions])
            delta = torch.zeros(*inputs["input_ids"].shape, self._width, device=self.victim.device)
            gradient, _ = self._gradient(inputs, labels, delta)
            found[torch.from_numpy(sheaf.positions)] = gradient.abs().amax(dim=(1, 2)).float().cpu()
        return found

    def ascents(self, asks: Sequence[Ascent]) -> list[Tensor]:
        """Return, for each ask, the logits at the start and after each step, float64 [steps + 1, C]."""
        answers: list[Tensor] = [torch.empty(0)] * len(asks)
        kinds = [(ask.radius, ask.steps, ask.step) for ask in asks]
        for kind in dict.fromkeys(kinds):
            chosen = [i for i, other in enumerate(kinds) if other == kind]
            for sheaf, inputs in self._batches([asks[i] for i in chosen]):
                places = [chosen[i] for i in sheaf.positions]
                for i, trail in zip(places, self._ascent([asks[i] for i in places], inputs), strict=True):
                    answers[i] = trail
        return answers

    def _ascent(self, asks: list[Ascent], inputs: dict[str, Tensor]) -> Tensor:
        radius, step = asks[0].radius, asks[0].step
        tokens = inputs["input_ids"]
        real = inputs["attention_mask"].bool() if "attention_mask" in inputs else torch.ones_like(tokens) > 0
        labels, seeds = torch.tensor([ask.label for ask in asks]), torch.tensor([ask.seed for ask in asks])
        start = random_start(real, self._width, radius, lambda seed: generator(seed, "ascent"), seeds)
        delta = project(start, radius)
        trail = []
        for _ in range(asks[0].steps):
            gradient, logits = self._gradient(inputs, labels, delta)
            trail.append(logits)
            delta = project(ascend(delta, gradient * real[:, :, None], step), radius)
        with torch.no_grad():
            trail.append(self._forward(inputs, delta).cpu())
        check_finite(torch.cat(trail), "the attacked model")
        return torch.stack(trail, dim=1).double().round(decimals=4)  # [b, steps + 1, C]

    @property
    def _width(self) -> int:
        return self.lookup.weight.shape[1]

    def _batches(self, asks: Sequence[Flips] | Sequence[Ascent]) -> Iterator[tuple[Sheaf, dict[str, Tensor]]]:
        victim = self.victim
        pad = int(getattr(victim.encoder, "pad_id", 0))
        # A backward pass keeps what a forward pass forgets: a quarter of the tokens take about its memory.
        rows = victim.encode([ask.text for ask in asks])
        for sheaf in plan(rows, budget=max(1, victim.budget // 4), price=victim.price):
            yield sheaf, padded(sheaf, pad, victim.device)

    def _gradient(self, inputs: dict[str, Tensor], labels: Tensor, delta: Tensor) -> tuple[Tensor, Tensor]:
        """Return the gradient of minus the log odds with respect to delta, and the logits."""
        delta = delta.detach().requires_grad_()
        with torch.enable_grad():
            logits = self._forward(inputs, delta)
            classes = logits.shape[1]
            if int(labels.max()) >= classes:
                wrong = int(labels.max())
                raise InputError(
                    f"an example has the label {wrong}; the model's classes are 0 to {classes - 1}"
                )
            mine = torch.arange(classes, device=logits.device) == labels.to(logits.device)[:, None]
            others = logits.masked_fill(mine, -torch.inf).logsumexp(dim=1)
            (gradient,) = torch.autograd.grad((others - logits[mine]).sum(), delta)
        return gradient, logits.detach().cpu()

    def _forward(self, inputs: dict[str, Tensor], delta: Tensor) -> Tensor:
        victim = self.victim
        victim.forwards.texts += len(delta)
        victim.forwards.batches += 1
        victim.forwards.tokens += int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else 0
        victim.forwards.padded_tokens += inputs["input_ids"].numel()
        with evaluation_mode(victim.model), added_to_embeddings(victim.model, delta):
            return logits_of(victim.model(**inputs)).float()
