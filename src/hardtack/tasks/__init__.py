"""What the data mean: tasks from the hub, from files and from the project's own grammar."""

from hardtack.tasks.made import made_task
from hardtack.tasks.task import Batch, Batches, Example, Metric, Table, Task
from hardtack.tasks.text import Encoder, load_task

__all__ = ["Batch", "Batches", "Encoder", "Example", "Metric", "Table", "Task", "load_task", "made_task"]
