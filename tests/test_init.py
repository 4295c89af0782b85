import subprocess
import sys

import pytest

import hardtack


def test_every_public_name_is_there():
    for name in hardtack.__all__:
        assert getattr(hardtack, name).__module__.startswith("hardtack.")


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="has no attribute 'prune'"):
        _ = hardtack.prune


def test_importing_has_no_side_effects():
    loaded = "import sys, hardtack; print([m for m in sys.modules if m in ('torch', 'transformers')])"
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_module_is_the_command():
    done = subprocess.run(
        [sys.executable, "-m", "hardtack", "--help"], capture_output=True, text=True, check=True
    )
    assert "hardtack" in done.stdout
