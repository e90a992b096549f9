"""A server or a client killed anywhere in a capture, and a server whose disk fills: the version is the old or the new.

A real server serves over TLS, a real `cloner new-image` captures with a token; both are forked from here, so that
their start costs little. Of 27 cases 20 kill the server, 5 the client, and 2 fill the server's disk. A process is
killed right before its n-th effect (of the server: what changes its disk; of the client: what it sends), a quarter of
the servers by the clock; half of them come back while the client runs. Whatever happened: the store is clean, the
newest version is the old or the new tree, the new one when the client was told so, one gc takes away all that is left
over, and the next capture is published.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import torture
from cloner_cli import upload
from cloner_core.errors import ExitStatus
from cloner_server.store.local import LocalStore
from cloner_server.store.upkeep import published
from clones import capture_into
from serverbench.served import Served
from soak.book import Entry
from soak.effects import Fuse, is_sending
from soak.law import Case, Figures, Law, LawBrokenError, require
from store_images import Key

_CONTEXT = multiprocessing.get_context("fork")
_IMAGE = "debian"
_ROUND = ("client",) * 5 + ("disk",) * 2 + ("server",) * 20
_LATE = 25  # effects of a server at the end of a capture that are tried more often: they publish
_MOST_TRIES = 12
_DYING_S = 20.0
_AWAY_S = 3.0  # that a client looks for a version of whose publishing it heard nothing: of most there is none
_DISK_BYTES = 80 << 20
_ENOUGH = {"server": 200, "client": 50, "disk": 20}


@dataclass(frozen=True)
class _Golden:
    """A tree before and after a change, and what the versions of both are."""

    before: Path
    after: Path
    old: str
    new: str


@dataclass
class _Yard:
    """A server's directory, the process that serves it, and what a golden node was told of it."""

    base: Path
    served: Served = field(init=False)
    fuse: Fuse = field(default_factory=Fuse)
    process: BaseProcess | None = None

    def __post_init__(self) -> None:
        self.served = Served(self.base)

    def start(self) -> None:
        """Serve, with a fuse that nobody has lit yet."""
        reading, writing = os.pipe()
        self.fuse = Fuse()
        words = self.served.arguments()[3:]
        self.process = _CONTEXT.Process(target=_serve, args=(words, writing, self.served.log, self.fuse))
        self.process.start()
        os.close(writing)
        with os.fdopen(reading) as told:
            line = told.readline()
        require(line.startswith("CLONER READY"), f"the server does not start: {self.served.log.read_text()[-2000:]}")

    def end(self) -> int:
        """Kill the server, if it still is there; return how it ended."""
        if self.process is None:
            return 0
        self.process.kill()
        self.process.join()
        ended, self.process = self.process.exitcode or 0, None
        return ended

    def capture(self, tree: Path, fuse: Fuse | None = None) -> _Client:
        """Have a golden node begin to capture."""
        (self.base / "node").mkdir(exist_ok=True)
        shutil.copy(self.served.state / "site/ca.pem", self.base / "node/ca.pem")
        node = self.base / "node/node.toml"
        node.touch(0o600)
        token = (self.base / "token").read_text()
        node.write_text(f"server = '127.0.0.1:{self.served.tls}'\ntoken = '{token}'\n")
        words = ["new-image", "--server", f"127.0.0.1:{self.served.tls}", "--image", _IMAGE]
        words += ["--root", str(tree), "--disklayout", "simple"]
        said = self.base / "said"
        process = _CONTEXT.Process(target=_run_client, args=(words, node, said, fuse))
        process.start()
        return _Client(process, said)

    def versions(self) -> list[str]:
        """Return the digests of the versions, as the server shows them, the newest last."""
        views = self.served.admin("GET", "/images")
        return [view["digest"] for view in sorted(views, key=lambda view: view["number"]) if view["image"] == _IMAGE]

    def settle(self) -> None:
        """Wait until the server has ended the requests of a client that is gone."""
        deadline_s, changed = time.monotonic() + 20, -1
        while changed != self.fuse.changed and time.monotonic() < deadline_s:
            changed = self.fuse.changed
            time.sleep(0.3)


@dataclass(frozen=True)
class _Client:
    """A capture under way."""

    process: BaseProcess
    said: Path

    def wait(self) -> tuple[int, str]:
        """Return its exit status and what it said."""
        self.process.join()
        return self.process.exitcode or 0, self.said.read_text(errors="replace")


def _serve(words: list[str], writing: int, log: Path, fuse: Fuse) -> None:
    with log.open("ab") as said:
        _become(writing, said.fileno())
    fuse.burn()
    _command(words)


def _run_client(words: list[str], node: Path, said: Path, fuse: Fuse | None) -> None:
    with said.open("wb") as file:
        _become(file.fileno(), file.fileno())
    os.environ |= {"CLONER_NODE_FILE": str(node), "CLONER_SOCKET": "", "CLONER_INDEXES": str(node.parent / "indexes")}
    if fuse is not None:
        fuse.burn(is_sending)
    upload.AWAY_S = _AWAY_S
    _command(words)


def _become(out: int, err: int) -> None:
    """Take these for standard output and error."""
    os.dup2(out, 1)
    os.dup2(err, 2)
    sys.stdout, sys.stderr = os.fdopen(1, "w"), os.fdopen(2, "w")
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)


def _command(words: list[str]) -> None:
    from cloner_cli.main import cli

    try:
        cli.main(words)
    except SystemExit as ended:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(ended.code if isinstance(ended.code, int) else 1)


@contextmanager
def open_capture_kill(work: Path) -> Iterator[Case]:
    """Every case has a copy of one server, which has captured the tree before its change."""
    golden = _make_golden(work)
    template = work / "template"
    template.mkdir()
    yard = _Yard(template)
    try:
        yard.start()
        yard.served.fill()
        (template / "token").write_text(yard.served.admin("POST", "/tokens", json={"image": _IMAGE})["token"])
        status, said = yard.capture(golden.before).wait()
        require(status == ExitStatus.OK and yard.versions() == [golden.old], f"the first capture: {said}")
    finally:
        yard.end()
    effects, seconds, sends = _measure(work, template, golden)

    def case(seed: int) -> Figures:
        kind = _ROUND[seed % len(_ROUND)]
        chance = random.Random(f"capture {seed}")
        if kind == "disk":
            return {"kind": kind, **_fill_disk(work, template, golden, chance)}
        for _ in range(_MOST_TRIES):
            with _copied(template, work) as yard:
                figures = (
                    _kill_client(yard, golden, chance, sends)
                    if kind == "client"
                    else _kill_server(yard, golden, chance, effects, seconds)
                )
                if figures:
                    return {"kind": kind, **figures}
        raise LawBrokenError(f"none of {_MOST_TRIES} captures was broken off")

    yield case


def _make_golden(work: Path) -> _Golden:
    before, after, chance = work / "before", work / "after", random.Random("golden")
    (before / "etc").mkdir(parents=True)
    for number in range(60):
        (before / f"etc/{number:02}").write_bytes(chance.randbytes(chance.randrange(5000)))
    (before / "big").write_bytes(chance.randbytes(5 << 20))
    os.link(before / "big", before / "same")
    shutil.copytree(before, after, symlinks=True)
    for number in range(0, 60, 3):
        (after / f"etc/{number:02}").write_bytes(chance.randbytes(3000))
    (after / "etc/01").unlink()
    (after / "more").write_bytes(chance.randbytes(13 << 20))
    store = LocalStore(work / "scratch", Key())
    old, new = (capture_into(store, tree).record.version for tree in (before, after))
    shutil.rmtree(work / "scratch")
    return _Golden(before, after, old, new)


@contextmanager
def _copied(template: Path, into: Path) -> Iterator[_Yard]:
    """Give a server that runs over a copy of the template."""
    with tempfile.TemporaryDirectory(dir=into) as directory:
        base = Path(directory) / "s"
        shutil.copytree(template, base, ignore=shutil.ignore_patterns("*.sock"))
        yard = _Yard(base)
        try:
            yard.start()
            yield yard
        finally:
            yard.end()


def _measure(work: Path, template: Path, golden: _Golden) -> tuple[int, float, int]:
    """Return how many effects a capture has at the server, how long it takes, and how often the client sends."""
    with _copied(template, work) as yard:
        before, started_s, sending = yard.fuse.seen, time.monotonic(), Fuse()
        status, said = yard.capture(golden.after, sending).wait()
        require(status == ExitStatus.OK and yard.versions() == [golden.old, golden.new], f"the capture: {said}")
        return yard.fuse.seen - before, time.monotonic() - started_s, sending.seen


def _kill_server(yard: _Yard, golden: _Golden, chance: random.Random, effects: int, seconds: float) -> Figures | None:
    """Kill the server; return None when the capture was done before."""
    is_counted = chance.random() < 0.75
    if is_counted:
        first = max(1, effects - _LATE) if chance.random() < 0.5 else 1
        yard.fuse.light(chance.randint(first, effects))
    client = yard.capture(golden.after)
    if not is_counted:
        time.sleep(chance.uniform(0, seconds))
        yard.end()
    if chance.random() < 0.5 and _survives(client, yard):
        yard.end()
        yard.start()
        status, said = client.wait()
        require("Traceback" not in said, f"the client had no words: {said}")
        return {"killed": "and back", "outcome": _look(yard, golden, chance, was_told=status == ExitStatus.OK)}
    status, said = client.wait()
    if yard.process is not None and status != ExitStatus.OK:
        yard.process.join(_DYING_S)  # the kernel closes the sockets of a killed process before it is gone
    if yard.process is not None and yard.process.is_alive():
        require(status == ExitStatus.OK, f"the server lives, and the client ended with {status}: {said}")
        return None
    yard.end()
    if not is_counted and status == ExitStatus.OK:
        return None
    require("Traceback" not in said, f"the client had no words: {said}")
    yard.start()
    outcome = _look(yard, golden, chance, was_told=status == ExitStatus.OK)
    return {"killed": "at a call" if is_counted else "by the clock", "outcome": outcome}


def _survives(client: _Client, yard: _Yard) -> bool:
    """Wait for the end of the server or the client; return whether the server's was first."""
    while yard.process is not None and yard.process.is_alive():
        if not client.process.is_alive():
            return False
        time.sleep(0.002)
    return client.process.is_alive()


def _kill_client(yard: _Yard, golden: _Golden, chance: random.Random, sends: int) -> Figures | None:
    fuse = Fuse()
    fuse.light(chance.randint(1, sends))
    status, _ = yard.capture(golden.after, fuse).wait()
    if status == ExitStatus.OK:
        return None
    require(status == -signal.SIGKILL, f"the client ended with {status}")
    yard.settle()
    return {"outcome": _look(yard, golden, chance, was_told=False)}


def _fill_disk(work: Path, template: Path, golden: _Golden, chance: random.Random) -> Figures:
    with (
        tempfile.TemporaryDirectory(dir=work) as directory,
        torture.small_disk(Path(directory) / "d", f"{_DISK_BYTES}") as disk,
        _copied(template, disk) as yard,
    ):
        filesystem = os.statvfs(disk)
        reserve = filesystem.f_blocks * filesystem.f_frsize // 10
        room = chance.randrange(reserve + (12 << 20))
        with (disk / "ballast").open("wb", buffering=0) as ballast:
            status = os.statvfs(disk)
            ballast.write(bytes(max(0, status.f_bavail * status.f_frsize - room)))
        exit_status, said = yard.capture(golden.after).wait()
        require(exit_status not in (ExitStatus.OK, ExitStatus.UNREACHABLE), f"{room} bytes were enough: {said}")
        if is_store := "no room" in said:
            require("bytes are missing" in said, f"the client is not told how much is missing: {said}")
        else:
            require("full" in said, f"the client is told something else: {said}")
        require(yard.versions() == [golden.old], "a version came to be on a full disk")
        faults = yard.served.admin("POST", "/store/check", params={"read_data": True})["faults"]
        require(faults == [], f"the store has faults: {faults}")
        left = list((yard.served.state / "store/tmp").iterdir())
        require(left == [], f"temporary files are left: {left}")
        (disk / "ballast").unlink()
        _look(yard, golden, chance, was_told=False)
        return {"room_mib": room / (1 << 20), "refused by": "the store" if is_store else "the database"}


def _look(yard: _Yard, golden: _Golden, chance: random.Random, *, was_told: bool) -> str:
    """Hold what is there to the law, have the next capture made, and say which version was found."""
    found = _check(yard)
    require(found in ([golden.old], [golden.old, golden.new]), f"the versions are {found}")
    outcome = "new" if golden.new in found else "old"
    require(not was_told or outcome == "new", "the client was told of a version that is not there")
    if chance.random() < 0.5:
        _collect(yard)
    status, said = yard.capture(golden.after).wait()
    require(status == ExitStatus.OK, f"the next capture ended with {status}: {said}")
    require(_check(yard) == [*found, golden.new], "the next capture made no version")
    _collect(yard)
    return outcome


def _check(yard: _Yard) -> list[str]:
    report = yard.served.admin("POST", "/store/check", params={"read_data": True})
    require(report["faults"] == [], f"the store has faults: {report['faults']}")
    versions = yard.versions()
    require(report["versions"] == len(versions) + 1, f"{report['versions']} versions are stored")  # and "golden"
    return versions


def _collect(yard: _Yard) -> None:
    """Have one gc; nothing is left in the store that no version needs."""
    yard.served.admin("POST", "/store/gc", params={"grace_s": 0})
    store = LocalStore(yard.served.state / "store")
    needed = published(store)
    require(needed.missing == (), f"the gc took what is needed: {needed.missing}")
    present = {path for path in store.files.root.rglob("*") if path.is_file()}
    locks = {store.files.root / name for name in ("lock", "numbers.lock")}
    left = present - {*needed.files, *needed.pack_files} - locks
    require(not left, f"one gc left {sorted(left)[:3]} and {len(left)} in all")
    require(yard.served.admin("POST", "/store/check")["unused_bytes"] == 0, "the gc left packs nobody needs")


def enough(entries: Sequence[Entry]) -> str:
    """See `Law.enough`: of each kind as many as the law promises, on both sides of the moment that publishes."""
    rare = [
        f"{_count(entries, 'kind', kind)} of the {kind}"
        for kind, least in _ENOUGH.items()
        if _count(entries, "kind", kind) < least
    ]
    killed = [entry for entry in entries if entry.figures.get("kind") == "server"]
    for name, value in (("killed", "at a call"), ("killed", "by the clock"), ("outcome", "old"), ("outcome", "new")):
        if _count(killed, name, value) * 50 < len(killed):
            rare.append(f"{_count(killed, name, value)} with {name}: {value}")
    return f"there were only {', '.join(rare)}" if rare else ""


def _count(entries: Sequence[Entry], name: str, value: str) -> int:
    return sum(entry.figures.get(name) == value for entry in entries)


LAW = Law(
    "capture-kill",
    "a server or a client killed anywhere in a capture, or a full disk, leaves the old version or the new, all clean",
    270,
    open_capture_kill,
    enough=enough,
)
