"""The table of model families: where attention heads, feed-forward neurons, channels and their matrices live.

All knowledge of module names is data here. Names of parts are relative to a layer, layers and `also` to the
base model (`model.base_model` in transformers), so the same entry serves a bare encoder and one with any
head. A family that is not listed still works at weight granularity.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Part(NamedTuple):
    """One projection: a module, and which of how many equal parts of its outputs (fused QKV has three)."""

    module: str
    part: int = 0
    parts: int = 1


@dataclass(frozen=True)
class Attention:
    """Where a layer's attention heads are; one kind of unit."""

    query: Part
    key: Part
    value: Part
    out: str
    heads: str = "num_attention_heads"
    """The config attribute with the number of units. With grouped keys and values that is the number of key
    heads: a unit is then one of them with the query heads that read it."""
    positions: tuple[str, ...] = ()
    """Further projections with a part for each head, which not every model of the family has."""
    counts: tuple[str, ...] = ()
    """Attributes of a layer that hold its number of heads, which follows when heads are really removed."""
    widths: tuple[str, ...] = ()
    """Attributes of a layer that hold the width of all its heads together."""
    shared_bias: tuple[str, int] | None = None
    """A module, and which positional argument of it is a bias [batch, heads, ...] that all layers share."""


@dataclass(frozen=True)
class Feedforward:
    """Where a layer's neurons are: rows of each inner part (two in a gated block), columns of `out`."""

    inner: tuple[Part, ...]
    out: str
    width: str | None = "intermediate_size"
    """The config attribute with the number of neurons of every layer; None where the config has none."""


@dataclass(frozen=True)
class Convolutions:
    """A chain of convolutions within a layer, each followed by a normalisation that works channel by channel.

    What one convolution of the chain puts out and the next one reads are the layer's inner channels; the
    outputs of the last are added to the layer's input and belong to the whole stage.
    """

    chain: str
    """Path of the chain's members in a layer; `*` stands for each index."""
    convolution: str
    normalisation: str


@dataclass(frozen=True)
class Family:
    """What may be pruned in one architecture; None where it has nothing of the kind."""

    layers: str
    """Path of the layers under the base model; `*` stands for each index."""
    attention: Attention | None = None
    feedforward: Feedforward | None = None
    convolutions: Convolutions | None = None
    also: tuple[str, ...] = ()
    """Paths of further modules whose weight is prunable at weight granularity; not every model has them."""
    transposed: bool = False
    """True where weights are stored [in, out] (GPT-2's Conv1D) instead of [out, in]."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """The granularities that this family knows."""
        has = {"head": self.attention, "neuron": self.feedforward, "channel": self.convolutions}
        return ("weight", *(kind for kind, part in has.items() if part is not None))


# A pooler is listed where the classifier reads it; RoBERTa's, MPNet's and ViT's classifiers leave it out.
_ROBERTA = Family(
    layers="encoder.layer.*",
    attention=Attention(
        query=Part("attention.self.query"),
        key=Part("attention.self.key"),
        value=Part("attention.self.value"),
        out="attention.output.dense",
        counts=("attention.self.num_attention_heads",),
        widths=("attention.self.all_head_size",),
    ),
    feedforward=Feedforward((Part("intermediate.dense"),), "output.dense"),
)
_LLAMA = Family(
    layers="layers.*",
    attention=Attention(
        query=Part("self_attn.q_proj"),
        key=Part("self_attn.k_proj"),
        value=Part("self_attn.v_proj"),
        out="self_attn.o_proj",
        heads="num_key_value_heads",
    ),
    feedforward=Feedforward((Part("mlp.gate_proj"), Part("mlp.up_proj")), "mlp.down_proj"),
)
_VIT = Family(
    layers="layers.*",
    attention=Attention(
        query=Part("attention.q_proj"),
        key=Part("attention.k_proj"),
        value=Part("attention.v_proj"),
        out="attention.o_proj",
        counts=("attention.num_attention_heads",),
    ),
    feedforward=Feedforward((Part("mlp.fc1"),), "mlp.fc2"),
)

FAMILIES: dict[str, Family] = {
    "bert": Family(
        layers="encoder.layer.*",
        attention=_ROBERTA.attention,
        feedforward=_ROBERTA.feedforward,
        also=("pooler.dense",),
    ),
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA,
    "electra": _ROBERTA,
    "distilbert": Family(
        layers="transformer.layer.*",
        attention=Attention(
            query=Part("attention.q_lin"),
            key=Part("attention.k_lin"),
            value=Part("attention.v_lin"),
            out="attention.out_lin",
            counts=("attention.n_heads",),
        ),
        feedforward=Feedforward((Part("ffn.lin1"),), "ffn.lin2", "hidden_dim"),
    ),
    "albert": Family(
        layers="encoder.albert_layer_groups.*.albert_layers.*",
        attention=Attention(
            query=Part("attention.query"),
            key=Part("attention.key"),
            value=Part("attention.value"),
            out="attention.dense",
            counts=("attention.num_attention_heads",),
            widths=("attention.all_head_size",),
        ),
        feedforward=Feedforward((Part("ffn"),), "ffn_output"),
        also=("pooler",),
    ),
    "mpnet": Family(  # its relative position bias has a column a head, but one table serves all layers
        layers="encoder.layer.*",
        attention=Attention(
            query=Part("attention.attn.q"),
            key=Part("attention.attn.k"),
            value=Part("attention.attn.v"),
            out="attention.attn.o",
            counts=("attention.attn.num_attention_heads",),
            widths=("attention.attn.all_head_size",),
            shared_bias=("attention.attn", 2),
        ),
        feedforward=Feedforward((Part("intermediate.dense"),), "output.dense"),
    ),
    "deberta-v2": Family(  # v3 checkpoints too; the pooler belongs to the classifier, outside the base
        layers="encoder.layer.*",
        attention=Attention(
            query=Part("attention.self.query_proj"),
            key=Part("attention.self.key_proj"),
            value=Part("attention.self.value_proj"),
            out="attention.output.dense",
            positions=("attention.self.pos_key_proj", "attention.self.pos_query_proj"),
            counts=("attention.self.num_attention_heads",),
            widths=("attention.self.all_head_size",),
        ),
        feedforward=Feedforward((Part("intermediate.dense"),), "output.dense"),
        also=("encoder.conv.conv",),
    ),
    "modernbert": Family(
        layers="layers.*",
        attention=Attention(
            query=Part("attn.Wqkv", 0, 3),
            key=Part("attn.Wqkv", 1, 3),
            value=Part("attn.Wqkv", 2, 3),
            out="attn.Wo",
        ),
        feedforward=Feedforward((Part("mlp.Wi", 0, 2), Part("mlp.Wi", 1, 2)), "mlp.Wo"),
    ),
    "gpt2": Family(
        layers="h.*",
        attention=Attention(
            query=Part("attn.c_attn", 0, 3),
            key=Part("attn.c_attn", 1, 3),
            value=Part("attn.c_attn", 2, 3),
            out="attn.c_proj",
            heads="n_head",
            counts=("attn.num_heads",),
            widths=("attn.split_size",),
        ),
        feedforward=Feedforward((Part("mlp.c_fc"),), "mlp.c_proj", "n_inner"),
        transposed=True,
    ),
    "llama": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,  # one norm of queries, as in Gemma 3, serves all heads of a layer: none owns it
    "gemma": _LLAMA,
    "gemma2": _LLAMA,
    "gemma3_text": _LLAMA,
    "vit": _VIT,
    "deit": _VIT,
    "resnet": Family(
        layers="encoder.stages.*.layers.*",
        convolutions=Convolutions("layer.*", "convolution", "normalization"),
        also=("embedder.embedder.convolution", "encoder.stages.*.layers.*.shortcut.convolution"),
    ),
    "convnext": Family(  # a pointwise convolution is a linear map here: its inner features are neurons
        layers="encoder.stages.*.layers.*",
        feedforward=Feedforward((Part("pwconv1"),), "pwconv2", width=None),
        also=(
            "embeddings.patch_embeddings",
            "encoder.stages.*.layers.*.dwconv",
            "encoder.stages.*.downsampling_layer.1",  # after its normalisation
        ),
    ),
}
