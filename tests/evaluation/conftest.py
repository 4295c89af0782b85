"""Victims whose every logit a person can compute, and a small real BERT."""

from types import SimpleNamespace

import pytest
import torch
import transformers
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

from hardtack.evaluation.attacks.words import changeable_words
from hardtack.evaluation.victim import Victim
from hardtack.tasks.text import Encoder


class BagEncoder:
    """Numbers the words of a text as it meets them; remembers every text it was asked to encode."""

    pad_id = 0

    def __init__(self, weights):
        self.ids = {word: i for i, word in enumerate(weights, start=2)}
        self.asked = []

    def __call__(self, texts):
        self.asked += texts
        rows = []
        for text in texts:
            words = [word.text.lower() for word in changeable_words(text, "all")]
            ids = [1, *(self.ids.get(word, 1) for word in words)]
            rows.append({"input_ids": ids, "attention_mask": [1] * len(ids)})
        return rows


class BagModel(torch.nn.Module):
    """Adds up the weights of the known words: logits (0, bias + sum); others weigh nothing."""

    def __init__(self, weights, bias=0.0):
        super().__init__()
        table = torch.tensor([0.0, 0.0, *weights.values()], dtype=torch.float32)
        self.weights = torch.nn.Parameter(table, requires_grad=False)
        self.bias, self.batches, self.fail_at = bias, 0, None

    def forward(self, input_ids, attention_mask):
        self.batches += 1
        if self.batches == self.fail_at:
            raise KeyboardInterrupt
        total = (self.weights[input_ids] * attention_mask).sum(dim=1) + self.bias
        return torch.stack([torch.zeros_like(total), total], dim=1)


def bag(weights, bias=0.0, batch_size=4):
    """A Victim over known word weights; class 1 wins when they add up to more than 0."""
    return Victim(BagModel(weights, bias).eval(), BagEncoder(weights), batch_size)


def bert(seed=1, batch_size=4, max_length=24):
    """A Victim over a random BERT (2 layers, hidden 32) with a WordPiece tokenizer over single letters."""
    letters = "abcdefghijklmnopqrstuvwxyz"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", ".", ",", *letters, *(f"##{x}" for x in letters)]
    pieces += ["good", "film", "##ing", "bad", "plot"]
    core = Tokenizer(models.WordPiece({piece: i for i, piece in enumerate(pieces)}, unk_token="[UNK]"))
    core.normalizer = normalizers.Lowercase()
    core.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    core.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="[UNK]", pad_token="[PAD]", cls_token="[CLS]", sep_token="[SEP]"
    )
    config = transformers.BertConfig(
        vocab_size=len(pieces),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        max_position_embeddings=32,
        num_labels=2,
        initializer_range=0.4,  # a spread of logits that edits can move
    )
    torch.manual_seed(seed)
    model = transformers.BertForSequenceClassification(config).eval()
    return Victim(model, Encoder.of(tokenizer, model, max_length), batch_size)


@pytest.fixture(scope="session")
def toys():
    return SimpleNamespace(bag=bag, bert=bert, BagModel=BagModel, BagEncoder=BagEncoder)
