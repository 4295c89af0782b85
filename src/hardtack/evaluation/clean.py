"""What a model answers when nobody attacks it."""

import torch
import xxhash
from torch import Tensor, nn

from hardtack.errors import InputError
from hardtack.evaluation.answers import Answers
from hardtack.evaluation.victim import check_finite, device_of, evaluating, logits_of
from hardtack.runs import Run
from hardtack.tasks.task import Batches
from hardtack.training.losses import token_surprise


def predict(
    model: nn.Module, batches: Batches, *, run: Run | None = None, row: str = ""
) -> tuple[Tensor, Tensor]:
    """Return a split's logits, float32 [n, C] on the CPU, and labels [n], both in row order.

    Of a language model nats and tokens of each text are returned in their place, [n, 2]: all that perplexity
    needs. The model runs in evaluation mode without gradients and gets its own mode back. NaN or infinite
    logits are refused: an accuracy computed from them would be an accident.

    Args:
        model: called as model(**batch.inputs), never with labels.
        batches: a split; every row is read once.
        run: is told about progress, if given.
        row: names the result row. With it, every batch of logits is kept in the run's scratch, and a killed
            prediction goes on at its batch; whoever names rows names the model by them.
    """
    if not batches.examples:
        raise InputError("a split without examples cannot be evaluated; at least 1 is needed")
    device = device_of(model)
    logits, labels, done = torch.empty(0, 0), torch.empty(batches.examples, dtype=torch.int64), 0
    run = run or Run.nowhere()
    path = run.scratch / f"clean-{row}.answers" if row and run.scratch is not None else None
    binding = xxhash.xxh3_128(f"{row}/{batches.examples}/{batches.size}".encode()).digest()
    with Answers(path, binding, None, clock=run.clock) as answers:
        for batch in batches.in_order():
            answer = answers.replay(len(batch.ids))
            if answer is None:
                inputs = {key: value.to(device) for key, value in batch.inputs.items()}
                with evaluating(model):
                    answer = logits_of(model(**inputs))
                    answer = (token_surprise(answer, inputs) if answer.dim() == 3 else answer).float().cpu()
                check_finite(answer, "the model")
                answers.append(answer)
            if not done:
                logits = torch.empty(batches.examples, answer.shape[1])
            logits[batch.ids] = answer
            labels[batch.ids] = batch.labels
            done += len(batch.ids)
            run.tick("clean", done, batches.examples)
        answers.log_resumption(run, "clean")
    return logits, labels
