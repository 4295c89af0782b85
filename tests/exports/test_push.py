"""Uploads to a stand-in for the hub on this machine, and every way in which the hub says no."""

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import HfApi, constants

from hardtack.errors import InputError
from hardtack.exports.push import check_name, push

TOKEN = "hf_abcdefghijklmnop"


class Hub(BaseHTTPRequestHandler):
    """Takes what the client sends for a small model, or answers all with one status."""

    status = 200
    seen: list

    def do_POST(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.seen.append((self.path, body, self.headers.get("Authorization")))
        place = f"http://{self.headers['Host']}/me/small"
        answer = {"url": place}
        if self.path.endswith("/preupload/main"):
            asked = json.loads(body)["files"]
            answer = {"files": [
                {"path": one["path"], "uploadMode": "regular", "shouldIgnore": False} for one in asked
            ]}  # fmt: skip
        elif self.path.endswith("/commit/main"):
            answer = {"success": True, "commitUrl": f"{place}/commit/1", "commitOid": "1" * 40}
        self._answer(answer)

    def do_GET(self):
        self.seen.append((self.path, b"", self.headers.get("Authorization")))
        self._answer({"error": "not here"}, 404)

    def _answer(self, answer, status=200):
        content = json.dumps(answer if self.status == 200 else {"error": "no"}).encode()
        self.send_response(self.status if self.status != 200 else status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def hub(monkeypatch):
    """A hub on this machine that remembers what it was sent, and what speaks to it."""
    seen: list = []
    handler = type("OneHub", (Hub,), {"seen": seen})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    address = f"http://127.0.0.1:{server.server_port}"
    yield handler, HfApi(endpoint=address, token=TOKEN), seen
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "small").mkdir()
    (tmp_path / "small" / "config.json").write_text("{}")
    (tmp_path / "small" / "README.md").write_text("# small\n")
    return tmp_path / "small"


def test_a_folder_is_uploaded(hub, folder):
    _, speaker, seen = hub
    assert push(folder, "me/small", hub=speaker).endswith("/me/small")
    (_, made, _), *_ = seen
    assert json.loads(made)["visibility"] == "private"
    (commit,) = [body for path, body, _ in seen if path.endswith("/commit/main")]
    assert b'"config.json"' in commit
    assert b'"README.md"' in commit
    assert {token for *_, token in seen} == {f"Bearer {TOKEN}"}


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "not logged in, or the token is no longer good: `hf auth login`, or set HF_TOKEN"),
        (403, "the token may not write there: it needs the right to write, you the membership"),
        (404, "there is no such user or organisation, or the token may not see it"),
        (418, "the hub answered 418 no"),
    ],
)
def test_a_refusal_is_one_line_and_the_folder_stays(hub, folder, status, reason):
    handler, speaker, _ = hub
    handler.status = status
    with pytest.raises(InputError) as error:
        push(folder, "me/small", hub=speaker)
    assert str(error.value) == (
        f"--push me/small did not work: {reason}; {folder} is written and stays, "
        f"`hf upload me/small {folder} --private` tries again"
    )
    assert (folder / "config.json").read_text() == "{}"


def test_a_hub_that_is_switched_off_or_cannot_be_reached(hub, folder, monkeypatch):
    with pytest.raises(InputError, match="the hub cannot be reached"):
        push(folder, "me/small", private=False, hub=HfApi(endpoint="http://127.0.0.1:9", token=TOKEN))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match=r"the hub is switched off here \(HF_HUB_OFFLINE\)"):
        push(folder, "me/small", hub=hub[1])


def test_no_message_shows_a_token(folder):
    class Careless:
        def create_repo(self, *_, **__):
            raise RuntimeError(f"Illegal header value b'Bearer {TOKEN}\\n'\n  for {TOKEN}")

    with pytest.raises(InputError) as error:
        push(folder, "me/small", hub=Careless())
    assert TOKEN not in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["small", "me/small/er", "me/ small", "me/-small", "/small", "me/", "", "a/b..c"]
)
def test_names_that_are_none(name, folder):
    with pytest.raises(InputError) as error:
        check_name(name)
    assert str(error.value).startswith(f"--push {name!r} is no name on the hub; allowed: ORG/NAME of")
    with pytest.raises(InputError, match="is no name on the hub"):
        push(folder, name, hub=None)
