"""Clean accuracy: what a model predicts when nobody attacks it."""

import torch
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.evaluation.victim import check_finite, device_of, evaluating, logits_of
from hardtack.runs import Run
from hardtack.tasks.task import Batches


def predict(model: nn.Module, batches: Batches, *, run: Run | None = None) -> tuple[Tensor, Tensor]:
    """Return a split's logits, float32 [n, C] on the CPU, and labels [n], both in row order.

    The model runs in evaluation mode without gradients and gets its own mode back. NaN or infinite logits are
    refused: an accuracy computed from them would be an accident.

    Args:
        model: called as model(**batch.inputs), never with labels.
        batches: a split; every row is read once.
        run: is told about progress, if given.
    """
    if not batches.examples:
        raise InputError("a split without examples cannot be evaluated; at least 1 is needed")
    device = device_of(model)
    logits, labels, done = torch.empty(0, 0), torch.empty(batches.examples, dtype=torch.int64), 0
    for batch in batches.in_order():
        with evaluating(model):
            answer = logits_of(model(**{key: value.to(device) for key, value in batch.inputs.items()}))
        answer = answer.float().cpu()
        check_finite(answer, "the model")
        if not done:
            logits = torch.empty(batches.examples, answer.shape[1])
        logits[batch.ids] = answer
        labels[batch.ids] = batch.labels
        done += len(batch.ids)
        if run is not None:
            run.tick("clean", done, batches.examples)
    return logits, labels


def accuracy(logits: Tensor, labels: Tensor) -> float:
    """Return the fraction of rows of [n, C] whose largest logit, the first of equals, is the label."""
    if not len(labels):
        raise InputError("accuracy of no example; at least 1 is needed")
    return (logits.argmax(dim=1) == labels).double().mean().item()
