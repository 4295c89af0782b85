"""What shrinking buys: BERT-base shape with half its heads and half its neurons really removed.

    python bench/shrink.py [--pairs 10] [--batch 1 --batch 32] [--tokens 128]

Random weights, one thread: eager PyTorch in evaluation mode, and ONNX Runtime on the exported files. Half of
each kind goes over the whole model, so layers are uneven. The dense model does the same operations whether
weights are zero or not, so it is the yardstick, in the same program; the ratio of floating-point operations
is what the removed units could give at most. The shrunk file with eight-bit weights is set against the dense
one in full precision.
"""

import argparse
import copy
import sys
import tempfile
from pathlib import Path

import torch
from transformers import BertConfig, BertForSequenceClassification
from transformers.utils import logging

from hardtack import shrunk
from hardtack.cost import disk_bytes, forward_flops, hardware
from hardtack.exports.onnx import to_onnx
from hardtack.exports.programs import to_eight_bits
from hardtack.prunable import Prunable
from hardtack.select import Sparsity, draw
from hardtack.sessions import OnnxRuntime
from pairs import interleaved

FASTER = 1.8
"""Limit: the shrunk model is at least so many times faster."""
OF_FLOPS = 0.85
"""Limit: the speed-up is at least this share of the ratio of operations."""
EIGHT_BITS = 3.0
"""Limit: with eight-bit weights the shrunk model is so many times faster than the dense one without."""


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--batch", type=int, action="append")
    parser.add_argument("--tokens", type=int, default=128)
    args = parser.parse_args()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    print(hardware())
    dense = BertForSequenceClassification(BertConfig(attn_implementation="eager")).eval()
    view = Prunable.of(dense, ("head", "neuron"))
    scores = {site.name: torch.rand(site.units) for site in view.sites}
    small = copy.deepcopy(dense)
    shrunk.shrink_(small, draw(view, scores, Sparsity.parse(0.5)))
    kept = sizes(dense, small)
    with tempfile.TemporaryDirectory() as folder:
        whole, part, rounded = exported(dense, small, Path(folder))
    for batch in args.batch or (1, 32):
        ids = torch.randint(1000, 20000, (batch, args.tokens))
        inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        flops = forward_flops(dense, inputs) / forward_flops(small, inputs)
        limit = max(FASTER, OF_FLOPS * flops)
        print(f"batch {batch}, {args.tokens} tokens: {flops:.2f} times fewer operations")
        for name, large, little, least in (
            ("PyTorch", lambda: dense(**inputs), lambda: small(**inputs), limit),  # noqa: B023
            (whole.name, lambda: whole(inputs), lambda: part(inputs), limit),  # noqa: B023
            (f"{whole.name}, eight bits", lambda: whole(inputs), lambda: rounded(inputs), EIGHT_BITS),  # noqa: B023
        ):
            with torch.inference_mode():
                found = interleaved(large, little, args.pairs)
            holds = found["ratio"] >= least
            kept &= holds
            print(
                f"    {name}: {1000 * found['a_seconds']:.1f} ms dense, {1000 * found['b_seconds']:.1f} ms "
                f"shrunk, {found['ratio']:.2f} times faster [{found['ratio_quartile_1']:.2f}, "
                f"{found['ratio_quartile_3']:.2f}] over {args.pairs} pairs, {found['ratio'] / flops:.2f} "
                f"of the operations' ratio; limit {least:.2f}: {'holds' if holds else 'FAILS'}",
                flush=True,
            )
    return 0 if kept else 1


def exported(
    dense: BertForSequenceClassification, small: BertForSequenceClassification, folder: Path
) -> tuple[OnnxRuntime, OnnxRuntime, OnnxRuntime]:
    """Return the dense and the shrunk model in ONNX Runtime, and the shrunk one with eight-bit weights."""
    ids = torch.randint(1000, 20000, (2, 16))
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    to_onnx(dense, folder / "dense.onnx", inputs=inputs)
    to_onnx(small, folder / "small.onnx", inputs=inputs)
    to_eight_bits(folder / "small.onnx", folder / "rounded.onnx")
    words = dense.config.vocab_size
    files = [folder / f"{name}.onnx" for name in ("dense", "small", "rounded")]
    return (
        OnnxRuntime(files[0], vocabulary=words),
        OnnxRuntime(files[1], vocabulary=words),
        OnnxRuntime(files[2], vocabulary=words),
    )


def sizes(dense: BertForSequenceClassification, small: BertForSequenceClassification) -> bool:
    """Say whether the file shrinks as the parameters do, within a hundredth."""
    with tempfile.TemporaryDirectory() as folder:
        files, parameters = [], [model.num_parameters() for model in (dense, small)]
        for name, model in (("dense", dense), ("small", small)):
            shrunk.save(model, Path(folder) / name)
            files.append(disk_bytes(Path(folder) / name))
    by_file, by_parameters = files[0] / files[1], parameters[0] / parameters[1]
    holds = abs(by_file / by_parameters - 1) < 0.01
    print(
        f"parameters {parameters[0]:,} -> {parameters[1]:,} ({by_parameters:.3f} times fewer); "
        f"files {files[0]:,} -> {files[1]:,} bytes ({by_file:.3f} times smaller): "
        f"{'holds' if holds else 'FAILS'}"
    )
    return holds


if __name__ == "__main__":
    sys.exit(main())
