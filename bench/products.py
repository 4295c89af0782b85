"""What matrix products alone allow: how fast one core multiplies, and the least time a token can take.

    python bench/products.py MODEL

The product of MiniLM's feed-forward for 1,024 tokens, one thread, weights laid out once: in float32, and as
the sum of three products of bfloat16 parts, which keeps nearly all of float32's digits. Beside them the
operations that a text of 30 tokens costs the model, and what these take on two cores at the float32 product's
rate. The last layer's feed-forward, which an export computes for one token only, is counted with and without.
"""

import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from hardtack.cost import forward_flops, hardware
from hardtack.loading import load

TOKENS, INPUTS, OUTPUTS, TEXT = 1024, 384, 1536, 30


def rate(product: Callable[[], Tensor], turns: int = 30) -> float:
    """Return operations a second, by the least processor time of some turns."""
    seconds = []
    for _ in range(turns):
        began = time.process_time()
        product()
        seconds.append(time.process_time() - began)
    return 2 * TOKENS * INPUTS * OUTPUTS / min(seconds)


@torch.inference_mode()
def main() -> int:
    torch.set_num_threads(1)
    torch.manual_seed(0)
    pack, multiply = torch.ops.mkldnn._reorder_linear_weight, torch.ops.mkldnn._linear_pointwise
    x, W, bias = torch.randn(TOKENS, INPUTS), torch.randn(OUTPUTS, INPUTS) / 20, torch.randn(OUTPUTS)
    plain = pack(W)
    single = rate(lambda: multiply(x, plain, bias, "none", [], ""))
    torch.backends.mkldnn.matmul.fp32_precision = "bf16"
    high = W.bfloat16().float()
    parts = pack(torch.cat([high, high, W - high], 1))

    def three() -> Tensor:
        top = x.bfloat16().float()
        return multiply(torch.cat([top, x - top, top], 1), parts, bias, "none", [], "")

    split = rate(three)
    torch.backends.mkldnn.matmul.fp32_precision = "ieee"
    rates = f"float32 {single / 1e9:.0f}, three of bfloat16 {split / 1e9:.0f}"
    print(hardware(), f"{rates} billion operations a second")
    model = load(sys.argv[1]).model
    ids = torch.ones(1, TEXT, dtype=torch.long)
    whole = forward_flops(model, {"input_ids": ids, "attention_mask": ids}) / TEXT
    config = model.config
    narrow = whole - 4 * config.hidden_size * config.intermediate_size * (1 - 1 / TEXT)
    for name, flops in (("the model", whole), ("its export", narrow)):
        least = 1e6 * flops / (2 * single)
        print(f"{name}: {flops / 1e6:.1f} million operations a token, {least:.0f} us on two cores")
    return 0


if __name__ == "__main__":
    sys.exit(main())
