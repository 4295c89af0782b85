"""Console examples taken apart."""

import pytest

from hardtack_docs.console import Block, Command, blocks, commands

PAGE = "# A\n\n```console\n$ one\n| x |\n$ two\n```\n\n```python\nx = 1\n```\n\n```sh\nnot this\n```\n"


def test_blocks_know_where_they_stand():
    console, python = blocks(PAGE)
    assert console == Block(
        "console", "$ one\n| x |\n$ two\n", PAGE.index("$ one"), PAGE.index("```\n\n```python")
    )
    assert python.text == "x = 1\n"


def test_commands_have_what_is_shown_below_them():
    assert commands("$ one\n| x |\n\n$ two\n") == [Command("one", ("| x |", "")), Command("two", ())]


def test_output_without_a_command_is_refused():
    with pytest.raises(ValueError, match="starts with its output"):
        commands("| x |\n$ one\n")


@pytest.mark.parametrize(
    ("shown", "status"),
    [
        ((), 0),
        (("hardtack: no",), 2),
        (("hardtack search: no",), 2),
        (("^C", "hardtack: interrupted"), 130),
        (("says hardtack: no",), 0),
    ],
)
def test_a_page_promises_an_exit_status(shown, status):
    assert Command("hardtack x", shown).status == status
