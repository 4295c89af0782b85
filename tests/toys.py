"""Toy models, a toy tokenizer and a toy task: small, quick, and without the accidents that hide bugs.

Within a model hidden size, heads, head width, feed-forward size, layers, positions and vocabulary all
differ, so that no two dimensions can be mistaken for each other. Biases and norms are random instead of 0
and 1, so that a forgotten one is seen. Logits spread by at least 1 over random inputs, so that equal logits
mean equal models.
"""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from torch import Tensor, nn
from transformers import (
    AlbertConfig,
    AlbertForSequenceClassification,
    BertConfig,
    BertForSequenceClassification,
    BertTokenizer,
    DistilBertConfig,
    DistilBertForSequenceClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    GPT2LMHeadModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Tokenizer,
    RobertaConfig,
    RobertaForSequenceClassification,
    SqueezeBertConfig,
    SqueezeBertForSequenceClassification,
)
from transformers.modeling_outputs import SequenceClassifierOutput

from hardtack.runs import generator
from hardtack.tasks.task import Batch, Batches, Table, Task, stratified
from hardtack.tasks.text import Encoder

M = TypeVar("M", bound=nn.Module)

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
GOOD = tuple("good great warm witty bright moving clever fresh".split())
BAD = tuple("bad dull cold clumsy dark boring stupid stale".split())
FILLER = tuple(
    "the a this that film plot actor scene music ending story is was seems feels and but with of in to so "
    "very quite rather never always once more here there".split()
)
PIECES = ("##s", "##ly", "##er", "##ness")
VOCABULARY = (*SPECIAL, *GOOD, *BAD, *FILLER, *PIECES)
"""What the toy tokenizer knows; a token's id is its position here."""


# ------------------------------------------------------------------------------------------------ models


def toy_bert(classes: int = 2, seed: int = 0) -> BertForSequenceClassification:
    """Two layers; table family with separate q, k, v and a pooler."""
    config = BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=40,
        num_hidden_layers=2,
        max_position_embeddings=48,
        num_labels=classes,
    )
    return rough_(BertForSequenceClassification(config), seed)


def toy_albert(classes: int = 2, seed: int = 0) -> AlbertForSequenceClassification:
    """Three layers that share one set of weights; embeddings narrower than the hidden size."""
    config = AlbertConfig(
        vocab_size=len(VOCABULARY),
        embedding_size=16,
        hidden_size=20,
        num_attention_heads=2,
        intermediate_size=36,
        num_hidden_layers=3,
        max_position_embeddings=48,
        hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
        num_labels=classes,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    return rough_(AlbertForSequenceClassification(config), seed)


def toy_gpt2_config(classes: int = 2) -> GPT2Config:
    """What both toy GPT-2 models are made of; inner size is not the usual four times the hidden one."""
    return GPT2Config(
        vocab_size=len(VOCABULARY),
        n_embd=36,
        n_head=3,
        n_inner=44,
        n_layer=2,
        n_positions=48,
        num_labels=classes,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )


def toy_gpt2(classes: int = 2, seed: int = 0) -> GPT2ForSequenceClassification:
    """Two decoder layers: fused q, k, v and weights stored [in, out]."""
    return rough_(GPT2ForSequenceClassification(toy_gpt2_config(classes)), seed)


def toy_gpt2_lm(seed: int = 0) -> GPT2LMHeadModel:
    """The same decoder with a language-model head tied to its embeddings."""
    return rough_(GPT2LMHeadModel(toy_gpt2_config()), seed)


def toy_distilbert(classes: int = 2, seed: int = 0) -> DistilBertForSequenceClassification:
    """Two layers whose forward takes no token types."""
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY),
        dim=32,
        n_heads=4,
        hidden_dim=52,
        n_layers=2,
        max_position_embeddings=48,
        num_labels=classes,
    )
    return rough_(DistilBertForSequenceClassification(config), seed)


def toy_roberta(classes: int = 2, seed: int = 0) -> RobertaForSequenceClassification:
    """Two layers that derive position ids from the input ids, with padding 1."""
    config = RobertaConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=52,
        num_hidden_layers=2,
        max_position_embeddings=48,
        type_vocab_size=1,
        num_labels=classes,
        pad_token_id=1,
        bos_token_id=2,
        eos_token_id=3,
    )
    return rough_(RobertaForSequenceClassification(config), seed)


def toy_squeezebert(classes: int = 2, seed: int = 0) -> SqueezeBertForSequenceClassification:
    """A family that the table lacks: weight granularity only, on grouped one-dimensional convolutions."""
    config = SqueezeBertConfig(
        vocab_size=len(VOCABULARY),
        embedding_size=32,
        hidden_size=32,
        num_attention_heads=4,
        intermediate_size=52,
        num_hidden_layers=2,
        max_position_embeddings=48,
        num_labels=classes,
    )
    return rough_(SqueezeBertForSequenceClassification(config), seed)


class ToyConv(nn.Module):
    """Three convolutions with batch norm (so there are buffers), dropout and a linear head; no config."""

    def __init__(self, classes: int = 2):
        super().__init__()
        self.convs = nn.ModuleList([nn.Conv2d(3, 8, 3), nn.Conv2d(8, 12, 3), nn.Conv2d(12, 20, 2, stride=2)])
        self.norms = nn.ModuleList([nn.BatchNorm2d(8), nn.BatchNorm2d(12), nn.BatchNorm2d(20)])
        self.dropout = nn.Dropout(0.1)
        self.head = nn.Linear(20, classes)

    def forward(self, pixel_values: Tensor) -> SequenceClassifierOutput:
        hidden = pixel_values  # [N, 3, 10, 10] in [0, 1]
        for conv, norm in zip(self.convs, self.norms, strict=True):
            hidden = torch.relu(norm(conv(hidden)))
        return SequenceClassifierOutput(logits=self.head(self.dropout(hidden.mean((2, 3)))))  # type: ignore[arg-type]


def toy_conv(classes: int = 2, seed: int = 0) -> ToyConv:
    """A plain convolutional net."""
    return rough_(ToyConv(classes), seed)


TOYS: dict[str, Callable[..., nn.Module]] = {
    "bert": toy_bert,
    "albert": toy_albert,
    "gpt2": toy_gpt2,
    "distilbert": toy_distilbert,
    "roberta": toy_roberta,
    "squeezebert": toy_squeezebert,
    "conv": toy_conv,
}
"""name -> maker(classes=2, seed=0) of a classifier in evaluation mode; tests/zoo.py has every family's."""
STRUCTURED = ("bert", "albert", "gpt2", "distilbert", "roberta")
"""Families of the table: they know heads and neurons."""
TEXT = (*STRUCTURED, "squeezebert")
"""Those that read token ids."""


@torch.no_grad()
def rough_(model: M, seed: int = 0) -> M:
    """Redraw every tensor so that each matters: wide weights, biases off 0, norms and statistics off 1."""
    rng = generator(seed, "toy")
    for name, parameter in model.named_parameters():
        if parameter.dim() == 1:
            parameter.uniform_(-0.5, 0.5, generator=rng)
            if name.endswith("weight"):  # of a normalisation
                parameter.add_(1)
        elif "embed" in name or "wte" in name or "wpe" in name:
            parameter.normal_(0, 1, generator=rng)
            parameter.div_(getattr(model.get_submodule(name.rpartition(".")[0]), "embed_scale", 1))  # Gemma's
        else:
            transposed = "c_attn" in name or "c_proj" in name or "c_fc" in name
            entries = parameter.shape[0] if transposed else parameter[0].numel()
            parameter.normal_(0, 1.5 / entries**0.5, generator=rng)
    for name, buffer in model.named_buffers():
        if "running" in name:
            buffer.uniform_(0.5, 1.5, generator=rng)
    model.eval()
    heads = (
        "classifier.weight",
        "classifier.out_proj.weight",
        "score.weight",
        "head.weight",
        "classifier.1.weight",
    )
    for name in heads:
        head = dict(model.named_parameters()).get(name)
        if head is not None:  # each logit gets a standard deviation of 2 over random inputs
            head.mul_(2 / logits_of(model, toy_inputs(model, count=64)).std(0)[:, None])
    return model


def is_text(model: nn.Module) -> bool:
    """Say whether the model reads token ids."""
    return getattr(model, "main_input_name", "pixel_values") == "input_ids"


def picture(model: nn.Module) -> int:
    """Return the side of the pictures that the model takes."""
    return int(getattr(getattr(model, "config", None), "image_size", 10))


def toy_inputs(model: nn.Module, count: int = 6, length: int = 9, seed: int = 0) -> dict[str, Tensor]:
    """Draw random inputs: token ids with right padding (the first row is full), or pixels."""
    rng = generator(seed, "toy inputs")
    if not is_text(model):
        return {"pixel_values": torch.rand(count, 3, picture(model), picture(model), generator=rng)}
    pad = int(model.config.pad_token_id)  # type: ignore[union-attr, arg-type]
    ids = torch.randint(len(SPECIAL), len(VOCABULARY), (count, length), generator=rng)
    lengths = torch.randint(2, length + 1, (count,), generator=rng)
    lengths[0] = length
    tokens = torch.arange(length) < lengths[:, None]
    return {"input_ids": ids.where(tokens, pad), "attention_mask": tokens.long()}


def logits_of(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """Run the model without gradients."""
    with torch.no_grad():
        return model(**inputs).logits


def state_of(model: nn.Module) -> dict[str, Tensor]:
    """Copy every parameter and buffer, also those that are not saved."""
    return {
        name: tensor.detach().clone() for name, tensor in (*model.named_parameters(), *model.named_buffers())
    }


def same_state(model: nn.Module, before: dict[str, Tensor]) -> bool:
    """Say whether every tensor is bit-equal to what `state_of` copied, in the same order."""
    now = state_of(model)
    return list(now) == list(before) and all(torch.equal(now[name], before[name]) for name in now)


# ------------------------------------------------------------------------------------------------ texts


def toy_tokenizer() -> PreTrainedTokenizerBase:
    """Return a WordPiece tokenizer over VOCABULARY."""
    return BertTokenizer(vocab={word: index for index, word in enumerate(VOCABULARY)}, model_max_length=48)


def padless_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer without a padding token, as GPT-2's is."""
    words = models.WordLevel({word: index for index, word in enumerate(VOCABULARY)}, unk_token="[UNK]")
    tokenizer = Tokenizer(words)
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # type: ignore[assignment]
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="[UNK]", eos_token="[SEP]")


def letter_tokenizer() -> PreTrainedTokenizerBase:
    """Return a tokenizer of letters, of the class by which transformers reads every Qwen2 folder."""
    letters = ("<|endoftext|>", "Ġ", *"abcdefghijklmnopqrstuvwxyz")
    return Qwen2Tokenizer(
        vocab={letter: i for i, letter in enumerate(letters)}, merges=[], model_max_length=48
    )


def toy_texts(count: int, seed: int = 0, pairs: bool = False) -> tuple[list[tuple[str, ...]], list[int]]:
    """Make sentences of 3 to 14 words whose label is whether good words outnumber bad ones."""
    rng = np.random.default_rng(seed)
    texts, labels = [], []
    for row in range(count):
        label = row % 2
        mine, other = (GOOD, BAD) if label else (BAD, GOOD)
        words = [*rng.choice(mine, 2), *rng.choice(other, int(rng.random() < 0.3))]
        words += [*rng.choice(FILLER, rng.integers(1, 12))]
        text = " ".join(rng.permutation(words).tolist())
        texts.append((text, " ".join(rng.choice(FILLER, rng.integers(1, 7)).tolist())) if pairs else (text,))
        labels.append(label)
    return texts, labels


def toy_task(
    train: int = 48, validation: int = 16, test: int = 24, *, seed: int = 0, pairs: bool = False
) -> Task:
    """Return a balanced two-class task that a toy model can learn."""
    sizes = {"train": train, "validation": validation, "test": test}
    splits = {
        split: Table.of(*toy_texts(size, seed * 3 + number, pairs))
        for number, (split, size) in enumerate(sizes.items())
    }
    return Task("toy", ("bad", "good"), splits)


def toy_encoder(model: nn.Module) -> Encoder:
    """Return the encoder of the toy tokenizer for this model."""
    return Encoder.of(toy_tokenizer(), model)


class PixelBatches:
    """Batches of random pictures for the convolutional toy; the label says which half is brighter."""

    def __init__(self, examples: int = 48, size: int = 8, seed: int = 0, side: int = 10):
        self.examples, self.size, self.seed = examples, size, seed
        rng = generator(seed, "toy pixels")
        self.pixels = torch.rand(examples, 3, side, side, generator=rng)
        self.labels = torch.arange(examples) % 2
        self.pixels[self.labels == 1, :, : side // 2] += 0.5

    def __len__(self) -> int:
        return -(-self.examples // self.size)

    def _pick(self, rows: Tensor) -> Batch:
        return Batch({"pixel_values": self.pixels[rows]}, self.labels[rows], rows, {})

    def at(self, step: int) -> Batch:
        epoch, index = divmod(step, len(self))
        order = torch.randperm(self.examples, generator=generator(self.seed, "toy order", epoch))
        return self._pick(order[index * self.size : (index + 1) * self.size])

    def in_order(self, size: int | None = None, *, only: np.ndarray | None = None) -> Iterator[Batch]:
        rows = torch.arange(self.examples) if only is None else torch.from_numpy(only)
        for part in rows.split(size or self.size):
            yield self._pick(part)

    def drawn(self, n: int, seed: int) -> np.ndarray:
        if n >= self.examples:
            return np.arange(self.examples)
        return stratified(self.labels.numpy(), n, seed=seed, label="drawn")


def toy_batches(
    model: nn.Module,
    split: str = "train",
    *,
    size: int = 8,
    examples: int = 48,
    seed: int = 0,
    pairs: bool = False,
) -> Batches | PixelBatches:
    """Return batches that this model takes: `at(step)`, `len()`, `in_order()`, `.examples`, `.size`."""
    if not is_text(model):
        return PixelBatches(examples, size, seed, picture(model))
    sizes = {"train": 2, "validation": 2, "test": 2} | {split: examples}
    return toy_task(**sizes, pairs=pairs).batches(split, toy_encoder(model), size, seed)


def saved_toy(
    folder: Path | str,
    name: str = "bert",
    *,
    tokenizer: bool = True,
    classes: int = 2,
    seed: int = 0,
    makers: Mapping[str, Callable[..., nn.Module]] = TOYS,
) -> Path:
    """Save a toy classifier (or "gpt2_lm") and its tokenizer as an ordinary transformers folder."""
    model = toy_gpt2_lm(seed) if name == "gpt2_lm" else makers[name](classes, seed)
    model.save_pretrained(folder)  # type: ignore[operator]
    if tokenizer:
        made = {"gpt2": padless_tokenizer, "gpt2_lm": padless_tokenizer, "llama": padless_tokenizer,
                "qwen2": letter_tokenizer}.get(name, toy_tokenizer)  # fmt: skip
        made().save_pretrained(folder)
    return Path(folder)
