"""Tiny resources in the published formats: a WordNet, word vectors, a sentence encoder, a masked model."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from tests.toys import VOCABULARY, rough_, toy_tokenizer
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, processors
from transformers import (
    BertConfig,
    BertForMaskedLM,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaForMaskedLM,
)

from hardtack.evaluation.wordnet import KINDS

LICENCE = "".join(f"  {i} a line of the licence, which begins with two spaces.  \n" for i in range(1, 30))

# kind -> meanings: the words that share each, the most frequent meaning of a word first.
MEANINGS = {
    "n": [("film", "movie", "motion_picture", "pic"), ("plot", "story"), ("foot",), ("film",), ("good",)],
    "v": [("film", "shoot"), ("run", "go"), ("watch", "see")],
    "a": [("good",), ("good", "full"), ("big", "large"), ("galore(ip)", "abounding")],
    "r": [("well", "good")],
}
IRREGULAR = {"n": "feet foot\n", "v": "ran run\nseen see\n", "a": "better good well\n", "r": ""}


def write_wordnet(
    folder: Path,
    meanings: Mapping[str, Sequence[Sequence[str]]] = MEANINGS,
    irregular: Mapping[str, str] = IRREGULAR,
) -> Path:
    """Write WordNet's data, index and exception files with these meanings, offsets and all."""
    folder.mkdir(parents=True, exist_ok=True)
    for kind, name in KINDS.items():
        data, where = LICENCE, {}
        for words in meanings[kind]:
            offset = len(data)
            for word in words:
                where.setdefault(word.partition("(")[0].lower(), []).append(offset)
            listed = " ".join(f"{word} 0" for word in words)
            data += f"{offset:08d} 03 {kind} {len(words):02x} {listed} 000 | what it means  \n"
        index = LICENCE
        for word in sorted(where):
            offsets = " ".join(f"{offset:08d}" for offset in where[word])
            index += f"{word} {kind} {len(where[word])} 1 @ {len(where[word])} 0 {offsets}  \n"
        (folder / f"data.{name}").write_text(data)
        (folder / f"index.{name}").write_text(index)
        (folder / f"{name}.exc").write_text(irregular[kind])
    return folder


def write_vectors(path: Path, vectors: Mapping[str, Sequence[float]]) -> Path:
    """Write word vectors in the published text format."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = (f"{word} {' '.join(map(str, numbers))}\n" for word, numbers in vectors.items())
    path.write_text("".join(lines), "utf-8")
    return path


def config(**more: int) -> BertConfig:
    return BertConfig(
        vocab_size=len(VOCABULARY),
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=40,
        num_hidden_layers=2,
        max_position_embeddings=48,
        **more,
    )


def save_encoder(folder: Path, seed: int = 0) -> Path:
    """Save a small BERT without a head, and its tokenizer."""
    rough_(BertModel(config()), seed).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def save_filler(folder: Path, seed: int = 0) -> Path:
    """Save a small masked BERT and its tokenizer."""
    rough_(BertForMaskedLM(config()), seed).save_pretrained(folder)
    toy_tokenizer().save_pretrained(folder)
    return folder


def save_roberta_filler(folder: Path) -> Path:
    """Save a small masked RoBERTa whose byte-level tokenizer marks what starts a word, not what continues."""
    words = ["good", "film", "plot", "ing", "s", "bad"]
    pieces = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    merges = []
    for word in words:
        for start in ("", "\u0120"):
            done = start or word[0]
            for letter in word if start else word[1:]:
                merges.append((done, letter))
                done += letter
                pieces.append(done)
    vocabulary = {piece: i for i, piece in enumerate(dict.fromkeys(pieces))}
    core = Tokenizer(models.BPE(vocabulary, list(dict.fromkeys(merges)), unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.RobertaProcessing(("</s>", 2), ("<s>", 0), add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token=AddedToken("<mask>", lstrip=True),  # as RoBERTa has it
        model_max_length=40,
    )
    tokenizer.save_pretrained(folder)
    roberta = RobertaConfig(
        vocab_size=len(vocabulary),
        hidden_size=24,
        num_attention_heads=3,
        intermediate_size=40,
        num_hidden_layers=2,
        max_position_embeddings=42,
        pad_token_id=1,
        bos_token_id=0,
        eos_token_id=2,
    )
    rough_(RobertaForMaskedLM(roberta)).save_pretrained(folder)
    return folder


def chances(model: torch.nn.Module, ids: list[int], place: int) -> torch.Tensor:
    """Return the log probabilities at a place of one row of tokens."""
    with torch.no_grad():
        return model(input_ids=torch.tensor([ids])).logits[0, place].log_softmax(dim=-1)
