"""Wanda and OBS beside llm-compressor's Wanda and SparseGPT: the same masks, and no larger errors?

    python bench/compressor.py MODEL TASK [--examples 256] [--tokens 24] [--sparsity 0.5]

A fine-tuned classifier of the BERT kind is pruned by both on the same calibration texts, all cut to the same
number of tokens, so that there is no padding. hardtack prunes the whole model as a user would. Every matrix
of the same layers then goes through llm-compressor's own functions with the inputs that it has where
hardtack's method reads them: for Wanda in the model whose earlier blocks are pruned, for OBS and SparseGPT in
the dense model. Compared are the bits of Wanda's masks (at least 99.9% equal) and, for each matrix and in
sum, the squared error of the outputs, ||(W - W') X||^2, beside SparseGPT's (its block of 128 columns and its
ridge of 0.01 of the mean diagonal): at most 1.02 times.

llm-compressor is a yardstick, installed apart (`pip install --no-deps llmcompressor compressed-tensors
loguru`) and put on PYTHONPATH. Where it is absent nothing is compared.
"""

import argparse
import copy
import importlib.util
import sys
import warnings

import torch
from torch import Tensor, nn
from transformers.utils import logging

from hardtack.cost import hardware
from hardtack.loading import load
from hardtack.methods.obs import Obs
from hardtack.methods.search import Data
from hardtack.methods.wanda import Wanda
from hardtack.prunable import Prunable, base_of
from hardtack.runs import Run
from hardtack.select import Sparsity
from hardtack.tasks.task import Batches, Table
from hardtack.tasks.text import Encoder, load_task
from hardtack.ticket import Base, Ticket
from hardtack.training.adversarial import Clean

BITS, ERROR = 0.999, 1.02


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("task")
    parser.add_argument("--examples", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=24)
    parser.add_argument("--sparsity", type=float, default=0.5)
    args = parser.parse_args()
    if importlib.util.find_spec("llmcompressor") is None:
        print("llmcompressor is not installed here: nothing to compare with")
        return 0
    warnings.filterwarnings("ignore")
    logging.disable_progress_bar()
    task = load_task(args.task)
    loaded = load(args.model, task.labels)
    model = loaded.model.eval()
    batches = calibration(task.table("train"), Encoder.of(loaded.tokenizer, model, args.tokens), args)
    print(hardware(), f"{batches.examples} texts of {args.tokens} tokens, sparsity {args.sparsity}")
    view = Prunable.of(model, ("weight",))
    bits = wanda_bits(model, view, batches, args.sparsity)
    fine = bits >= BITS
    print(f"wanda: {bits:.4%} of the mask's bits are equal; limit {BITS:.1%}: {said(fine)}", flush=True)
    for scope in ("row", "site"):
        ratio = obs_errors(model, view, batches, args.sparsity, scope)
        less = ratio <= ERROR
        fine &= less
        print(f"obs, budget per {scope}: {ratio:.3f} times SparseGPT's error; limit {ERROR}: {said(less)}")
    return 0 if fine else 1


def said(holds: bool) -> str:
    return "holds" if holds else "FAILS"


def calibration(table: Table, encoder: Encoder, args: argparse.Namespace) -> Batches:
    """Return batches of texts that fill the length: none is padded."""
    rows = encoder(table.texts)
    full = [i for i, row in enumerate(rows) if len(row["input_ids"]) == args.tokens][: args.examples]
    return Batches(table.take(full), encoder, size=32)


def ticket_of(method: Wanda | Obs, model: nn.Module, view: Prunable, batches: Batches) -> Ticket:
    """Prune a model as `hardtack search` does."""
    data = Data(batches, batches)
    start = copy.deepcopy(model)
    (ticket,) = method.search(start, Base.of(model, "bench"), view, data, Clean(), Run.nowhere())
    return ticket


def pruned(model: nn.Module, ticket: Ticket) -> nn.Module:
    """Return a copy of a model with a ticket applied."""
    twin = copy.deepcopy(model)
    ticket.apply_(twin)
    return twin.eval()


@torch.inference_mode()
def inputs_of(model: nn.Module, names: list[str], batches: Batches) -> dict[str, list[Tensor]]:
    """Return what flows into linear layers, a list of [b, length, in] (or [b, in]) for each."""
    found: dict[str, list[Tensor]] = {name: [] for name in names}
    hooks = [
        base_of(model).get_submodule(name).register_forward_pre_hook(
            lambda _, inputs, name=name: found[name].append(inputs[0].clone())
        )
        for name in names
    ]  # fmt: skip
    for batch in batches.in_order():
        model(**batch.inputs)
    for hook in hooks:
        hook.remove()
    return found


def layers_of(view: Prunable) -> dict[str, list[str]]:
    """Return the linear layers that are pruned, block by block, in the order in which they are run."""
    found: dict[str, list[str]] = {}
    for param in view.pruned():
        module = param.removesuffix(".weight")
        parts = module.split(".")
        found.setdefault(".".join(parts[:3]), []).append(module)
    return found


def wanda_bits(model: nn.Module, view: Prunable, batches: Batches, sparsity: float) -> float:
    """Return the share of equal mask bits; each block reads what the blocks pruned before it put out."""
    from llmcompressor.modifiers.pruning.wanda import wanda_sparsify as theirs

    ticket = ticket_of(Wanda((Sparsity.parse(sparsity),), calibration=batches.examples), model, view, batches)
    after, masks = pruned(model, ticket), view.spread(ticket.masks)
    mixed, equal, total = copy.deepcopy(model), 0, 0
    for names in layers_of(view).values():
        flows = inputs_of(mixed, names, batches)
        for name in names:
            module = base_of(model).get_submodule(name)
            scalars, count = theirs.make_empty_row_scalars(module), 0
            for flow in flows[name]:
                scalars, count = theirs.accumulate_row_scalars(flow, module, scalars, count)
            with torch.no_grad():
                new = theirs.sparsify_weight(module, {module: scalars}, sparsity, 0, 0)
            mine = masks[f"{name}.weight"]
            equal += int(((new != 0) == mine).sum())
            total += mine.numel()
        for name in names:
            source = base_of(after).get_submodule(name).state_dict()
            base_of(mixed).get_submodule(name).load_state_dict(source)
    return equal / total


def obs_errors(model: nn.Module, view: Prunable, batches: Batches, sparsity: float, scope: str) -> float:
    """Return the ratio of the summed squared errors of outputs; prints that of each kind of matrix."""
    from llmcompressor.modifiers.pruning.sparsegpt import sgpt_sparsify as theirs

    method = Obs((Sparsity.parse(sparsity),), calibration=batches.examples, scope=scope)
    after = pruned(model, ticket_of(method, model, view, batches))
    names = [name for group in layers_of(view).values() for name in group]
    flows = inputs_of(model, names, batches)
    sums, kinds = [0.0, 0.0], dict[str, list[float]]()
    for name in names:
        module = base_of(model).get_submodule(name)
        hessian, count = theirs.make_empty_hessian(module), 0
        for flow in flows[name]:
            hessian, count = theirs.accumulate_hessian(flow, module, hessian, count)
        X = torch.cat([flow.reshape(-1, flow.shape[-1]) for flow in flows[name]]).double()
        with torch.no_grad():
            _, other = theirs.sparsify_weight(module, {module: hessian}, sparsity, 0, 0, 128, 0.01, False)
        weight = module.weight.detach().double()
        both = [base_of(after).get_submodule(name).weight.detach(), other]
        errors = [float(((weight - new.double()) @ X.T).square().sum()) for new in both]
        kept = [float((new != 0).double().mean()) for new in both]
        assert abs(kept[0] - kept[1]) < 0.01, (name, kept)
        kind = ".".join(name.split(".")[3:]) or name
        for number in (0, 1):
            sums[number] += errors[number]
            kinds.setdefault(kind, [0.0, 0.0])[number] += errors[number]
    for kind, (mine, other) in kinds.items():
        print(f"    {kind}: {mine / other:.3f} times SparseGPT's error")
    return sums[0] / sums[1]


if __name__ == "__main__":
    sys.exit(main())
