"""One toy of every family of the table, in the shapes in which it comes; tests/toys.py says how toys are.

Sizes are pairwise different within a model; optional biases are on, so that a forgotten one is seen; short
windows, so that layers which look less far differ from those that look everywhere.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import transformers
from torch import nn

from tests.toys import TOYS, VOCABULARY, rough_

TOKENS = {
    "vocab_size": len(VOCABULARY),
    "max_position_embeddings": 48,
    "pad_token_id": 0,
    "bos_token_id": 2,
    "eos_token_id": 3,
}
ENCODER = {
    **TOKENS,
    "hidden_size": 28,
    "num_attention_heads": 4,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
}
GROUPED = {
    **TOKENS,
    "hidden_size": 36,
    "num_attention_heads": 6,
    "num_key_value_heads": 3,
    "head_dim": 10,  # not hidden_size / heads
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "attention_dropout": 0.1,
}
WINDOWED = {**GROUPED, "sliding_window": 4, "layer_types": ["sliding_attention", "full_attention"]}
PICTURES = {
    "hidden_size": 28,
    "num_attention_heads": 4,
    "intermediate_size": 44,
    "num_hidden_layers": 2,
    "image_size": 12,
    "patch_size": 3,
    "num_channels": 3,
    "hidden_dropout_prob": 0.1,
}

RECIPES: dict[str, tuple[str, dict[str, Any]]] = {
    "xlm-roberta": ("XLMRoberta", {**ENCODER, "type_vocab_size": 1, "pad_token_id": 1}),
    "electra": ("Electra", {**ENCODER, "embedding_size": 20}),
    "mpnet": ("MPNet", {**ENCODER, "pad_token_id": 1}),
    "deberta-v2": (  # as in v2: projections of positions, a convolution beside the first layer
        "DebertaV2",
        {
            **ENCODER,
            "embedding_size": 20,
            "type_vocab_size": 2,
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "share_att_key": False,
            "conv_kernel_size": 3,
            "position_buckets": 4,
            "max_relative_positions": 10,
        },
    ),
    "deberta-v3": (  # as in v3: the content's projections serve positions, whose embeddings are normalised
        "DebertaV2",
        {
            **ENCODER,
            "relative_attention": True,
            "pos_att_type": "p2c|c2p",
            "share_att_key": True,
            "norm_rel_ebd": "layer_norm",
            "position_biased_input": False,
            "position_buckets": 4,
        },
    ),
    "modernbert": (
        "ModernBert",
        {
            **ENCODER,
            "cls_token_id": 2,
            "sep_token_id": 3,
            "local_attention": 6,
            "attention_bias": True,
            "mlp_bias": True,
            "norm_bias": True,
            "num_attention_heads": 2,
            "num_hidden_layers": 3,
            "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
            "attention_dropout": 0.1,
            "mlp_dropout": 0.1,
        },
    ),
    "llama": ("Llama", {**GROUPED, "attention_bias": True, "mlp_bias": True}),
    "qwen2": ("Qwen2", {**{k: v for k, v in GROUPED.items() if k != "head_dim"}, "hidden_size": 60}),
    "qwen3": ("Qwen3", {**GROUPED, "attention_bias": True}),
    "gemma": ("Gemma", GROUPED),
    "gemma2": ("Gemma2", {**WINDOWED, "query_pre_attn_scalar": 12, "attention_bias": True}),
    "gemma3_text": ("Gemma3Text", {**WINDOWED, "query_pre_attn_scalar": 12}),
    "vit": ("ViT", PICTURES),
    "deit": ("DeiT", {**PICTURES, "qkv_bias": False}),
    "resnet": (
        "ResNet",
        {"embedding_size": 6, "hidden_sizes": [10, 14], "depths": [2, 1], "layer_type": "basic"},
    ),
    "resnet-bottleneck": (
        "ResNet",
        {"embedding_size": 6, "hidden_sizes": [16, 28], "depths": [1, 2], "layer_type": "bottleneck"},
    ),
    "convnext": (
        "ConvNext",
        {
            "hidden_sizes": [10, 14],
            "depths": [1, 2],
            "num_stages": 2,
            "patch_size": 3,
            "image_size": 12,
            "drop_path_rate": 0.1,
            "layer_scale_init_value": 1.0,
        },
    ),
}
"""name -> the class name's stem in transformers, and what its config gets."""


def toy_of(name: str, classes: int = 2, seed: int = 0, **changed: Any) -> nn.Module:
    """Make the toy of a recipe; its config's class and its classifier's share a stem."""
    stem, settings = RECIPES[name]
    config = getattr(transformers, f"{stem}Config")(**{**settings, **changed}, num_labels=classes)
    task = "ImageClassification" if name in IMAGES else "SequenceClassification"
    return rough_(getattr(transformers, f"{stem}For{task}")(config), seed)


ZOO: dict[str, Callable[..., nn.Module]] = {**TOYS, **{name: partial(toy_of, name) for name in RECIPES}}
"""name -> maker(classes=2, seed=0) of a classifier in evaluation mode: every toy there is."""
IMAGES = ("conv", "vit", "deit", "resnet", "resnet-bottleneck", "convnext")
"""Those that read pixels."""
TEXTS = tuple(name for name in ZOO if name not in IMAGES)
"""Those that read token ids."""
UNITS: dict[str, tuple[str, ...]] = {
    **{name: ("head", "neuron") for name in TEXTS if name != "squeezebert"},
    **dict.fromkeys(("vit", "deit"), ("head", "neuron")),
    **dict.fromkeys(("resnet", "resnet-bottleneck"), ("channel",)),
    "convnext": ("neuron",),
}
"""The toys whose family is in the table -> the kinds of unit it knows beside weights."""
