"""What the server of `tests.forked` imports once, for all its children."""

import pyarrow.json  # noqa: F401
import transformers.models.bert.modeling_bert
import transformers.models.bert.tokenization_bert  # noqa: F401

import hardtack.cli
import hardtack.evaluation.attacks
import hardtack.methods
import hardtack.reports.compare
import hardtack.reports.show
import hardtack.reports.table
import hardtack.stages  # noqa: F401
