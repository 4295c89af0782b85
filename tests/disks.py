"""Disks that are full or read-only, for the commands of one forked process; nobody needs to be root.

Two mechanisms each: MOUNTED is a small tmpfs in a name space of the process's own, where the kernel says
ENOSPC or EROFS; LIMITED works everywhere: a limit on the size of files (EFBIG), or folders without the
permission to write (EACCES), which root feels too once it has given up its privileges.
"""

import contextlib
import ctypes
import io
import json
import os
import resource
import shutil
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from tests.forked import Forked, Operation, at
from tests.kills import digest, timeless_log

MOUNTED, LIMITED = "mounted", "limited"
SIZE = 64 * 2**20
CLONE_NEWNS, CLONE_NEWUSER = 0x00020000, 0x10000000
MS_RDONLY, MS_REMOUNT, MS_REC, MS_PRIVATE = 1, 32, 16384, 1 << 18
CAPABILITY_VERSION_3 = 0x20080522


def mechanisms() -> tuple[str, ...]:
    """Return the mechanisms that this machine allows."""
    return (MOUNTED, LIMITED) if Forked(_enter, None).wait() == 0 else (LIMITED,)


# ------------------------------------------------------------------------------------- full


def starved(
    command: Callable[[Path], Sequence[str | Path]], place: Path, moments: Sequence[Operation], mechanism: str
) -> list[dict[str, Any]]:
    """Run a command whose disk is full from a moment on, then once more with space; for each moment.

    Returns:
        For each moment: `status`, `said` (on standard error), `left` (files that a reader would find half) of
        the starved command; `resumed` (status), `digest` and `log` of the one after it.
    """
    place.mkdir(exist_ok=True)
    words = [str(word) for word in command(place / "run")]
    return _reported(_starve, words, place, [*moments], mechanism)


def _starve(words: list[str], place: Path, moments: list[Operation], mechanism: str) -> list[dict[str, Any]]:
    if mechanism == MOUNTED:
        _enter(place)
    out, found = place / "run", []
    for moment in moments:
        ballast = place / "ballast"

        def fill(ballast: Path = ballast) -> None:
            if mechanism == LIMITED:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
                return
            with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as stream:
                while True:
                    stream.write(bytes(4096))

        status, said = _attempt(words, lambda fill=fill, moment=moment: at(moment._replace(folder=out), fill))
        ballast.unlink(missing_ok=True)
        left = [str(path.relative_to(out)) for path in out.rglob("*") if _half(path)] if out.exists() else []
        resumed, again = _attempt(words)
        found.append({"status": status, "said": said, "left": left, "resumed": resumed, "again": again})
        found[-1] |= {"digest": digest(out), "log": timeless_log(out)}
        shutil.rmtree(out)
    return found


def _half(path: Path) -> bool:
    """Say whether a file is a part of something: an unfinished copy, a cut line, broken JSON."""
    if path.suffix == ".part":
        return True
    if path.is_dir() or (path.suffix not in (".json", ".jsonl") and path.name != "DONE"):
        return False
    content = path.read_bytes()
    lines = content.splitlines() if path.suffix == ".jsonl" else [content]
    try:
        for line in lines:
            json.loads(line)
    except ValueError:
        return True
    return path.suffix == ".jsonl" and bool(content) and not content.endswith(b"\n")


# ------------------------------------------------------------------------------------- read-only


def read_only(commands: Sequence[Sequence[str | Path]], place: Path, mechanism: str) -> list[tuple[int, str]]:
    """Run commands while nothing below `place` can be written; return each one's status and what it said."""
    words = [[str(word) for word in command] for command in commands]
    return [tuple(pair) for pair in _reported(_without_writing, words, place, mechanism)]


def _without_writing(commands: list[list[str]], place: Path, mechanism: str) -> list[tuple[int, str]]:
    if mechanism == MOUNTED:
        copy = place.with_name(f"{place.name}-copy")
        shutil.copytree(place, copy, symlinks=True)
        _enter(place)
        shutil.copytree(copy, place, symlinks=True, dirs_exist_ok=True)
        _call("mount", None, str(place).encode(), None, MS_REMOUNT | MS_RDONLY, None)
        return [_attempt(words) for words in commands]
    folders = [place, *(path for path in place.rglob("*") if path.is_dir())]
    files = [path for path in place.rglob("*") if path.is_file()]
    for path in (*files, *folders):
        path.chmod(0o555 if path.is_dir() else 0o444)
    try:
        return [_attempt(words, _give_up_privileges) for words in commands]
    finally:
        for path in (*folders, *files):
            path.chmod(0o755 if path.is_dir() else 0o644)


# ------------------------------------------------------------------------------------- processes


def _reported(task: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task in a forked process, which may change its own name space, and return what it returns."""
    place = next(argument for argument in arguments if isinstance(argument, Path))
    report = place.with_name(f"{place.name}-report.json")
    assert Forked(_report, task, arguments, report).wait() == 0
    return json.loads(report.read_text())


def _report(task: Callable[..., Any], arguments: tuple[Any, ...], report: Path) -> None:
    report.write_text(json.dumps(task(*arguments)))


def _attempt(words: list[str], prepare: Callable[[], object] = lambda: None) -> tuple[int, str]:
    """Run `hardtack` in a child; return its exit status and what it said on standard error."""
    reader, writer = os.pipe()
    child = os.fork()
    if not child:
        status = 99
        try:
            prepare()
            from hardtack.cli import main

            said = io.StringIO()  # no file: those may be limited
            with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
                status = main(words)
            os.write(writer, said.getvalue().encode()[-4000:])
        finally:
            os._exit(status)
    os.close(writer)
    with open(reader, "rb") as stream:
        said = stream.read().decode()
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), said


def _enter(place: Path | None) -> None:
    """Give this process a name space of mounts of its own, with a small tmpfs at `place`."""
    user, group = os.getuid(), os.getgid()
    if user == 0 and ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        pass
    else:
        _call("unshare", CLONE_NEWUSER | CLONE_NEWNS)
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"0 {user} 1")
        Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _call("mount", None, b"/", None, MS_REC | MS_PRIVATE, None)
    if place is None:
        sys.exit(0)
    _call("mount", b"none", str(place).encode(), b"tmpfs", 0, f"size={SIZE}".encode())


def _give_up_privileges() -> None:
    """Drop every capability: then the permissions of files bind root too."""
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    _call("capset", header, (ctypes.c_uint32 * 6)())


def _call(name: str, *arguments: Any) -> None:
    if getattr(ctypes.CDLL(None, use_errno=True), name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")
