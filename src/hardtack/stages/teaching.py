"""The teacher of a distillation: what it may be, and its answers, each asked for once."""

from hardtack.errors import InputError
from hardtack.evaluation.clean import predict
from hardtack.loading import Loaded
from hardtack.runs import Run
from hardtack.stages.alike import check_tokenizer, open_trained
from hardtack.stages.common import Common
from hardtack.tasks.task import Batches, Task
from hardtack.tasks.text import Encoder


def open_teacher(name: str, student: Loaded, encoder: Encoder, data: Task, common: Common) -> Loaded:
    """Load the teacher, frozen, and refuse one that cannot answer what its student is asked.

    Args:
        name: a fine-tuned model: hub id, folder or run folder.
        student: the model that is trained.
        encoder: the student's.
        data: the task.
        common: settings that every stage takes.
    """
    if not data.labels:
        raise InputError(f"task {data.name!r} has texts alone; a teacher's answers are about classes")
    loaded = open_trained(name, data.labels, common)
    check_tokenizer(loaded, name, student, "the model that it teaches")
    own = common.encoder(loaded)
    if own.max_length < encoder.max_length:
        raise InputError(
            f"{name} reads {own.max_length} tokens, its student {encoder.max_length}; allowed: a max_length "
            f"(--max-length) of {own.max_length} or less"
        )
    if other := sorted(own.keys ^ encoder.keys):
        raise InputError(
            f"{name} and its student do not take the same inputs ({', '.join(other)}); allowed: a teacher of "
            "its student's family"
        )
    loaded.model.requires_grad_(False)
    return loaded


def taught(batches: Batches, teacher: Loaded, run: Run) -> Batches:
    """Return the training batches with the teacher's logits, [N, C] float32, as `extra["teacher"]`.

    The teacher, in evaluation mode, is asked once for each row of the split, before training. Its answers lie
    in the run's scratch: a killed run goes on at the batch where the teacher was, and asks nothing twice.
    """
    kept = run.kept("teacher")
    if kept is None:
        logits, _ = predict(teacher.model, batches, run=run, row="teacher")
        run.keep("teacher", {"logits": logits})
        kept = run.kept("teacher")  # several processes go on with the same bits
    assert kept is not None
    tensors, facts = kept
    run.clock.catch_up(facts["seconds"])
    return batches.beside(teacher=tensors["logits"])
