"""Uploads an exported folder to the Hugging Face hub, or says in one line why it cannot."""

import re
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, OfflineModeIsEnabled
from huggingface_hub.utils import validate_repo_id

from hardtack.errors import InputError

SECRET = re.compile(r"hf_\w+|Bearer \S+")
"""What a message of a library must not show: a token that it was given."""
STATUS = {
    401: "not logged in, or the token is no longer good: `hf auth login`, or set HF_TOKEN",
    403: "the token may not write there: it needs the right to write, you the membership",
    404: "there is no such user or organisation, or the token may not see it",
}


def check_name(name: str) -> None:
    """Refuse what is no ORG/NAME of the hub, before anything is written for it."""
    try:
        validate_repo_id(name)
        if "/" not in name:
            raise HFValidationError("it has no /")
    except HFValidationError:
        raise InputError(
            f"--push {name!r} is no name on the hub; allowed: ORG/NAME of letters, digits, '-', '_' and '.', "
            "up to 96 characters"
        ) from None


def push(folder: Path, name: str, *, private: bool = True, hub: Any = None) -> str:
    """Upload a folder as a model of the hub and return where it is.

    The repository is made where there is none; one that is there gets a new commit and keeps its visibility.

    Args:
        folder: an exported folder; it stays as it is.
        name: ORG/NAME.
        private: whether a new repository is private.
        hub: what speaks to the hub; by default `huggingface_hub.HfApi`, with the saved token or HF_TOKEN.

    Raises:
        InputError: for a bad name, or where the hub cannot be reached, is switched off or refuses.
    """
    check_name(name)
    hub = HfApi() if hub is None else hub
    try:
        url = hub.create_repo(name, private=private, exist_ok=True)
        hub.upload_folder(
            repo_id=name, folder_path=str(folder), commit_message="Upload of a model exported by hardtack"
        )
    except Exception as error:  # whatever the hub's client raises, what was written stays
        more = " --private" if private else ""
        raise InputError(
            f"--push {name} did not work: {_reason(error)}; {folder} is written and stays, "
            f"`hf upload {name} {folder}{more}` tries again"
        ) from None
    return str(url)


def _reason(error: Exception) -> str:
    if isinstance(error, OfflineModeIsEnabled):
        return "the hub is switched off here (HF_HUB_OFFLINE)"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return STATUS.get(status, f"the hub answered {status} {_clean(error.server_message or '')}".strip())
    return f"the hub cannot be reached ({_clean(str(error)) or type(error).__name__})"


def _clean(message: str) -> str:
    """Return a short line of a library's message without anything secret in it."""
    return SECRET.sub("...", " ".join(message.split()))[:160]
