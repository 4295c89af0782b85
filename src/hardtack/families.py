"""The table of model families: where attention heads, feed-forward neurons and their matrices live in each.

All knowledge of module names is data here. Names are relative to the base model (`model.base_model` in
transformers), so the same entry serves a bare encoder and one with any head. A family that is not listed
still works at weight granularity.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """One projection: a module, and which of how many equal parts of its outputs (fused QKV has three)."""

    module: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Family:
    """Where one architecture keeps what may be pruned; module names are relative to a layer by default."""

    layers: str
    """Path of the layers under the base model; `*` stands for each index."""
    query: Part
    key: Part
    value: Part
    attention_out: str
    ffn_in: tuple[str, ...]
    ffn_out: str
    also: tuple[str, ...] = ()
    """Further modules (relative to the base model) whose weight is prunable at weight granularity."""
    transposed: bool = False
    """True where weights are stored [in, out] (GPT-2's Conv1D) instead of [out, in]."""
    heads: str = "num_attention_heads"
    """The config attribute with the number of heads."""


FAMILIES: dict[str, Family] = {
    "bert": Family(
        layers="encoder.layer.*",
        query=Part("attention.self.query"),
        key=Part("attention.self.key"),
        value=Part("attention.self.value"),
        attention_out="attention.output.dense",
        ffn_in=("intermediate.dense",),
        ffn_out="output.dense",
        also=("pooler.dense",),
    ),
    "albert": Family(
        layers="encoder.albert_layer_groups.*.albert_layers.*",
        query=Part("attention.query"),
        key=Part("attention.key"),
        value=Part("attention.value"),
        attention_out="attention.dense",
        ffn_in=("ffn",),
        ffn_out="ffn_output",
        also=("pooler",),
    ),
    "gpt2": Family(
        layers="h.*",
        query=Part("attn.c_attn", 0, 3),
        key=Part("attn.c_attn", 1, 3),
        value=Part("attn.c_attn", 2, 3),
        attention_out="attn.c_proj",
        ffn_in=("mlp.c_fc",),
        ffn_out="mlp.c_proj",
        transposed=True,
        heads="n_head",
    ),
}
