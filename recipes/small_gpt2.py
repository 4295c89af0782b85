"""What `language_model_small.toml` begins with: sentences as texts alone, and a GPT-2 that knows nothing yet.

    python recipes/small_gpt2.py TASK --out runs/small_gpt2

TASK is a folder of parquet splits with a column `text`. Written are `texts`, the same splits without labels,
and `model`: a config of four layers of 256, and a byte-level BPE tokenizer trained on the training split. It
has no weights: `hardtack train` draws them from its seed.
"""

import argparse
import sys
from pathlib import Path

import pyarrow.parquet
from tokenizers import ByteLevelBPETokenizer
from transformers import GPT2Config, PreTrainedTokenizerFast

VOCABULARY, END, PAD = 4000, "<|endoftext|>", "<|pad|>"


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("task", type=Path)
    parser.add_argument("--out", type=Path, default=Path("runs/small_gpt2"))
    args = parser.parse_args()
    texts, model = args.out / "texts", args.out / "model"
    texts.mkdir(parents=True, exist_ok=True)
    for split in ("train", "validation", "test"):
        table = pyarrow.parquet.read_table(args.task / f"{split}.parquet").select(["text"])
        pyarrow.parquet.write_table(table, texts / f"{split}.parquet")
    bpe = ByteLevelBPETokenizer()
    sentences = pyarrow.parquet.read_table(texts / "train.parquet")["text"].to_pylist()
    bpe.train_from_iterator(sentences, VOCABULARY, special_tokens=[END, PAD], show_progress=False)
    inner = getattr(bpe, "_tokenizer")  # noqa: B009 - the library's wrapper has no other way to what it wraps
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token=END, eos_token=END, pad_token=PAD, model_max_length=128
    )
    tokenizer.save_pretrained(model)
    GPT2Config(
        vocab_size=len(tokenizer), n_positions=128, n_embd=256, n_layer=4, n_head=4,
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    ).save_pretrained(model)  # fmt: skip
    print(f"{args.out}: {len(sentences)} training texts, {len(tokenizer)} tokens in the vocabulary")
    return 0


if __name__ == "__main__":
    sys.exit(main())
