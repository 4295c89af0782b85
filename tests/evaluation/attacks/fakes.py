"""Resources, judges and a white-box victim of a few words, whose every answer a person can compute."""

import re
from collections import Counter
from types import SimpleNamespace

import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from hardtack.evaluation.victim import Victim
from hardtack.tasks.text import Encoder

WEIGHTS = {
    "good": 2.0, "fine": 1.5, "decent": 0.2, "great": 2.2, "truly": 0.5, "film": 0.5, "movie": 0.4,
    "picture": -0.3, "dull": -1.5, "plot": -0.2, "mess": -2.5, "slow": -0.9, "the": 0.0, "not": 0.0,
    "a": 0.0, "is": 0.0,
}  # fmt: skip
NEAR = {
    "good": [("fine", 0.9), ("decent", 0.85), ("film", 0.6), ("dull", 0.4)],
    "great": [("good", 0.95), ("decent", 0.8), ("slow", 0.3)],
    "film": [("movie", 0.97), ("picture", 0.9)],
    "plot": [("mess", 0.55), ("film", 0.5)],
    "dull": [("slow", 0.92), ("good", 0.82)],
}
KINDS = {
    "good": "a", "fine": "an", "decent": "a", "great": "a", "film": "nv", "movie": "n", "picture": "nv",
    "dull": "av", "plot": "nv", "mess": "nv", "slow": "av", "truly": "r",
}  # fmt: skip


class Words:
    """A thesaurus and a space of vectors over the table above."""

    digest = "words"

    def __init__(self, near=NEAR):
        self.near = near

    def synonyms(self, word, pos=None):
        return [other for other, _ in self.near.get(word.lower(), [])]

    def pos(self, word):
        return frozenset(KINDS.get(word, ""))

    def nearest(self, word, k):
        return self.near.get(word, [])[:k]

    def cosine(self, a, b):
        return dict(self.near.get(a, [])).get(b)


class Likeness:
    """Cosine of the counts of words: what texts share, over the root of the product of their lengths."""

    digest = "likeness"

    def __init__(self):
        self.asked = []

    def similar(self, asks):
        self.asked += asks
        return [
            torch.tensor([cosine(a.original, c) for c in a.candidates]).double().round(decimals=4)
            for a in asks
        ]


def cosine(first, second):
    a, b = (Counter(re.findall(r"\w+", " ".join(text).lower())) for text in (first, second))
    length = lambda counts: sum(n * n for n in counts.values()) ** 0.5  # noqa: E731
    return sum(a[word] * b[word] for word in a) / max(length(a) * length(b), 1e-9)


class Guesser:
    """A masked language model that reads the neighbours of the word in the place, mask or no mask."""

    digest = "guesser"

    def __init__(self, near=NEAR):
        self.near, self.asked = near, []

    def fill(self, asks):
        self.asked += asks
        words = [ask.text[ask.column][ask.start : ask.end].lower() for ask in asks]
        return [
            [(other, round(value - 1, 4)) for other, value in self.near.get(word, [])][: ask.top]
            for word, ask in zip(words, asks, strict=True)
        ]


class Recorder:
    """An encoder that remembers every text."""

    def __init__(self, encoder):
        self.encoder, self.asked = encoder, []
        self.tokenizer, self.max_length, self.pad_id = encoder.tokenizer, encoder.max_length, encoder.pad_id

    def __call__(self, texts):
        self.asked += texts
        return self.encoder(texts)


class LinearModel(torch.nn.Module):
    """Logits (0, bias + sum of the first entries of the words' embeddings); the others are ignored."""

    def __init__(self, weights, bias):
        super().__init__()
        self.config = SimpleNamespace(max_position_embeddings=64, num_labels=2)
        table = torch.zeros(len(weights) + 2, 3)
        table[2:, 0] = torch.tensor(list(weights.values()))
        table[:, 1] = torch.arange(len(table)) / 7
        self.table = torch.nn.Embedding.from_pretrained(table, freeze=False)
        self.bias = bias

    def get_input_embeddings(self):
        return self.table

    def forward(self, input_ids, attention_mask):
        total = (self.table(input_ids)[:, :, 0] * attention_mask).sum(dim=1) + self.bias
        return torch.stack([torch.zeros_like(total), total], dim=1)


def linear(weights=WEIGHTS, bias=0.0, batch_size=4):
    """A victim with embeddings and a real tokenizer: class 1 wins when the weights add up to more than 0."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", *weights])}
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", model_max_length=64
    )
    model = LinearModel(weights, bias).eval()
    return Victim(model, Recorder(Encoder.of(tokenizer, model)), batch_size)
