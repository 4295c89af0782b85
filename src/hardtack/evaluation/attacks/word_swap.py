"""Word swap: replaces the most important words, one after another, by neighbours from a table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from hardtack.errors import InputError
from hardtack.evaluation.attacks.greedy import change_in_order, fixed, in_case_of, opened
from hardtack.evaluation.attacks.neighbours import NeighbourTable, load_neighbours, neighbours_of
from hardtack.evaluation.attacks.protocol import (
    Columns,
    Ledger,
    Queries,
)
from hardtack.evaluation.attacks.words import changeable_words, without
from hardtack.tasks.task import Example


@dataclass(frozen=True)
class WordSwap:
    """Replaces the most important words, one after another, by neighbours from a table.

    Greedy word substitution, the search that TextFooler (Jin, Jin, Zhou, Szolovits 2020, arXiv 1907.11932)
    and most word attacks share, over a table of one's own:

    1. every word that has neighbours is deleted in turn; the words are ordered by how much that lowers the
       odds of the true class;
    2. for each word in that order all neighbours are asked, and the best is kept if it lowers the odds;
    3. the attack ends when the prediction changes.

    A neighbour takes the case of the word it replaces (upper, capitalised, or as in the table).

    Differs from the paper: no sentence encoder and no part-of-speech tags; what may replace what is the
    table's business alone (words that it does not list, function words among them, stay). A result row
    therefore says `word_swap` with the digest of its table, and is no TextFooler number.
    """

    name: ClassVar[str] = "word_swap"
    version: ClassVar[int] = 1  # raised when a fix changes outcomes

    neighbours: str | Path | Mapping[str, Sequence[str]] = field(
        metadata={"help": "jsonl or jsonl.gz file of {word, neighbors} lines (in Python also a mapping)"}
    )
    max_neighbours: int = field(
        default=0, metadata={"help": "neighbours tried per word, in table order; 0 = all"}
    )
    query_limit: int = field(
        default=0, metadata={"help": "most distinct texts asked per example; 0 = no limit"}
    )
    columns: Columns = field(
        default="all", metadata={"help": "which column of a pair may change: all, first or second"}
    )

    def __post_init__(self):
        if self.query_limit < 0:
            raise InputError(f"query_limit = {self.query_limit}; allowed: 0 (no limit) and more")
        if self.max_neighbours < 0:
            raise InputError(f"max_neighbours = {self.max_neighbours}; allowed: 0 (all) and more")
        _ = self.table  # a table that does not fit is refused here, not at the first example

    @cached_property
    def table(self) -> NeighbourTable:
        """The neighbours of every word, read once."""
        given = self.neighbours
        return neighbours_of(given) if isinstance(given, Mapping) else load_neighbours(Path(given))

    def settings(self) -> dict[str, Any]:
        """Return everything that names this attack in a result row: the table by content, not by place."""
        return {
            "name": self.name,
            "version": self.version,
            "neighbours": self.table.digest,
            "words": len(self.table.entries),
            "max_neighbours": self.max_neighbours,
            "query_limit": self.query_limit,
            "columns": self.columns,
        }

    def attack(self, example: Example, rng: torch.Generator) -> Queries:
        """Attack one example: yield candidate texts, receive their logits, return what happened."""
        words = changeable_words(example.text, self.columns)
        swaps = {i: self.swaps(word.text) for i, word in enumerate(words)}
        open_words = [i for i, options in swaps.items() if options]

        hidden = {i: without(example.text, words[i]) for i in open_words}
        ledger = Ledger(self.query_limit)
        begun = yield from opened(example, hidden, ledger)
        if begun is None:
            return ledger.outcome(example, "missed")
        odds, order = begun

        return (yield from change_in_order(example, words, order, fixed(swaps), ledger, odds=odds))

    def swaps(self, word: str) -> list[str]:
        """Return what may stand in a word's place, in table order, in the word's case."""
        options = self.table.entries.get(word.lower(), ())[: self.max_neighbours or None]
        return in_case_of(word, options)
