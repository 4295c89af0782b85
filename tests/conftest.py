"""What every test can rely on: no network, one thread, the same examples each time."""

import os
import shutil
import socket

os.environ.setdefault("HF_HUB_OFFLINE", "1")  # read once, when huggingface_hub is imported

import hypothesis
import pytest
import torch

# Hypothesis: no deadline (shared machines stall), the same examples in every run, nothing kept on disk.
hypothesis.settings.register_profile("suite", deadline=None, derandomize=True, database=None, max_examples=50)
hypothesis.settings.load_profile("suite")
torch.set_num_threads(1)

AVAILABLE = {
    "gpu": torch.cuda.is_available,
    "browser": lambda: any(map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))),
    "network": lambda: os.environ.get("HARDTACK_NETWORK") == "1",
}


def pytest_collection_modifyitems(config, items):
    """Leave out tests whose marker names something that this machine does not have."""
    missing = {name for name, there in AVAILABLE.items() if not there()}
    left_out = [item for item in items if missing & {mark.name for mark in item.iter_markers()}]
    if left_out:
        config.hook.pytest_deselected(items=left_out)
        items[:] = [item for item in items if item not in left_out]


@pytest.fixture(autouse=True)
def offline(request, monkeypatch):
    """Fail at once, instead of waiting, when a test that is not marked network reaches for one."""
    if request.node.get_closest_marker("network"):
        return
    connect = socket.socket.connect

    def refuse(self, address):
        if self.family in (socket.AF_INET, socket.AF_INET6) and address[0] not in ("127.0.0.1", "::1"):
            raise AssertionError(f"this test reached for the network: {address}")
        return connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", refuse)


@pytest.fixture(autouse=True)
def same_torch_seed():
    """Start every test from the same torch seed, so that one test's draws never decide another's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@pytest.fixture
def saved_ticket(tmp_path):
    """A folder with the ticket of a toy BERT."""
    from tests.tickets import drawn
    from tests.toys import TOYS

    drawn(TOYS["bert"](), method="random", settings={"sparsities": [0.3]}).save(tmp_path / "ticket")
    return tmp_path / "ticket"
