"""Docstrings as Markdown and as reStructuredText."""

from docutils.core import publish_doctree
from hypothesis import given
from hypothesis import strategies as st

from hardtack_docs.plain import escaped, halves, inline, markdown, table


def test_labels_become_headings_and_indented_blocks_stay():
    text = """Says it.

    Claim: a ticket
    of *stars* holds.

        1. loss + lambda(t) * open

    Differs from the paper: none, see arXiv 2211.03013.
    """
    assert markdown(text) == (
        "Says it.\n\n## Claim\n\nA ticket\nof \\*stars\\* holds.\n\n"
        "```text\n1. loss + lambda(t) * open\n```\n\n"
        "## Differs from the paper\n\nNone, see [arXiv 2211.03013](https://arxiv.org/abs/2211.03013)."
    )


def test_only_known_labels_are_headings():
    assert (
        markdown("The mean loss as it is: ordinary training.") == "The mean loss as it is: ordinary training."
    )


def test_lists_keep_their_lead_and_their_items():
    assert markdown("Twice:\n1. once\n   more\n2. again") == "Twice:\n\n1. once\n   more\n2. again"


def test_halves_leave_the_first_line_out():
    assert halves("First.\n\nPlain.\n\nSource: a paper.\n\nMore.") == ("Plain.", "Source: a paper.\n\nMore.")
    assert halves(None) == ("", "")


def test_code_is_left_alone():
    assert inline("`a_b*` and a_b*") == "`a_b*` and a\\_b\\*"


def test_flags_are_code():
    assert inline("raise --max-length, or `--seed 1`.") == "raise `--max-length`, or `--seed 1`."


def test_tables_are_one_line_a_row():
    assert table(("a", "b"), [("1\n2", "3")]) == "| a | b |\n| --- | --- |\n| 1 2 | 3 |"


def test_examples_are_not_escaped():
    lines = ["Say hold_ of |A|.", "", ">>> f(*a_)", "b_", "", "`x`s"]
    assert escaped(lines) == ["Say hold\\_ of \\|A\\|.", "", ">>> f(*a_)", "b_", "", "``x``\\ s"]


@given(st.text("ab_*|` \\", max_size=30))
def test_an_escaped_line_is_read_without_complaint(text):
    """Whatever characters a docstring holds, reStructuredText finds no markup in them but code."""
    if text.count("`") % 2 or "``" in text or text != text.strip():
        return
    settings = {"report_level": 1, "halt_level": 1, "warning_stream": "", "file_insertion_enabled": False}
    publish_doctree("so " + escaped([text])[0] + " on", settings_overrides=settings)
