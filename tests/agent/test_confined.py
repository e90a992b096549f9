"""What a program of an image can do behind the walls, and what no program can. Starts hostile ones as root."""

from __future__ import annotations

import logging
import os
import socket
import stat
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbench.loop import loop_disk
from agentbench.mountedtree import mounted_tree
from cloner_agent.cage import KEPT_CAPABILITIES
from cloner_agent.confined import LOGGED_BYTES, Ended, Program, confine
from cloner_agent.failures import AbortError, StageError
from cloner_core.sizes import MIB

pytestmark = pytest.mark.root

_SYSCALLS = """
import ctypes, os, socket, stat, sys, time
libc = ctypes.CDLL(None, use_errno=True)
def call(name, *arguments):
    if getattr(libc, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)
def write(path):
    os.close(os.open(path, os.O_WRONLY))
"""


@pytest.fixture
def target(tmp_path: Path) -> Iterator[Path]:
    with mounted_tree(tmp_path / "target") as root:
        yield root


def _python(target: Path, code: str, **how: object) -> Ended:
    return confine(
        str(target),
        Program(("/usr/bin/python3", "/run/cloner/it"), 60, files={"it": (_SYSCALLS + code).encode()}, **how),  # type: ignore[arg-type]
    )


def _shell(target: Path, line: str, timeout_s: float = 60) -> Ended:
    return confine(str(target), Program(("sh", "-c", line), timeout_s))


ATTACKS = {
    "makes a device file of a disk": "os.mknod('/disk', stat.S_IFBLK | 0o600, os.makedev({major}, {minor}))",
    "makes one where devices work": "os.mknod('/dev/disk', stat.S_IFBLK | 0o600, os.makedev({major}, {minor}))",
    "opens a disk by a file that the image brought": "os.open('/brought', os.O_RDONLY)",
    "opens a disk by a file on another filesystem of the clone": "os.open('/boot/brought', os.O_RDONLY)",
    "mounts": "call('mount', b'x', b'/tmp', b'tmpfs', 0, None)",
    "makes /proc writable": "call('mount', None, b'/proc', None, 32 | 4096, None)",
    "takes away what hides a file": "call('umount2', b'/proc/cmdline', 2)",
    "makes a user namespace": "call('unshare', 0x10000000)",
    "makes a mount namespace": "call('unshare', 0x00020000)",
    "sets a variable of the kernel": "write('/proc/sys/kernel/core_pattern')",
    "writes to a device's attributes": "write('/sys/block/{name}/queue/read_ahead_kb')",
    "restarts the machine": "call('reboot', 0)",
    "sets the clock": "time.clock_settime(time.CLOCK_REALTIME, time.time())",
    "swaps": "call('swapon', b'/etc/passwd', 0)",
    "names the machine": "socket.sethostname('other')",
    "kills the agent": "os.kill({agent}, 0)",
    "looks into the process that started it": "os.readlink('/proc/1/root')",
    "holds the process that started it": "call('ptrace', 16, 1, None, None)",
    "calls the machine's own services": "socket.create_connection(('127.0.0.1', {port}), 5)",
    "calls a service by an abstract name": "socket.socket(socket.AF_UNIX).connect('\\0{abstract}')",
    "brings a network up": "import fcntl; fcntl.ioctl(socket.socket(), 0x8914, b'lo'.ljust(16, b'\\0') + b'\\1' * 24)",
    "leaves its root": """
os.mkdir('/tmp/inner')
os.chroot('/tmp/inner')
os.chdir('../../../../../..')
os.chroot('.')
assert os.path.exists('{marker}')
""",
    "raises a limit": "import resource; resource.setrlimit(resource.RLIMIT_CORE, (1, 1))",
}


@pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS.keys())
def test_a_hostile_program_reaches_nothing_of_the_machine(attack: str, target: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    marker.touch()
    with (
        loop_disk(tmp_path / "disk", MIB) as disk,
        socket.create_server(("127.0.0.1", 0)) as service,
        socket.socket(socket.AF_UNIX) as abstract,
    ):
        abstract.bind(f"\0{marker}")
        abstract.listen()
        number = os.stat(disk.device).st_rdev
        for place in ("brought", "boot/brought"):
            os.mknod(target / place, stat.S_IFBLK | 0o666, number)
        code = attack.format(
            major=os.major(number),
            minor=os.minor(number),
            name=Path(disk.device).name,
            agent=os.getpid(),
            port=service.getsockname()[1],
            abstract=marker,
            marker=marker,
        )
        ended = _python(target, f"try:\n  exec({code!r})\nexcept Exception as e:\n  print(repr(e)); sys.exit(42)\n")
        assert ended.status == 42, ended.last_lines
        # The attack failed at a wall, not at its own mistake.
        assert "Error" in ended.last_lines[-1]
        assert "NameError" not in ended.last_lines[-1]
        assert "SyntaxError" not in ended.last_lines[-1]


def test_the_agents_own_interpreter_is_read_only_to_a_program_that_names_it(target: Path) -> None:
    script = b"#!/proc/self/exe\nimport os\nos.chmod('/proc/self/exe', 0o755)\n"
    ended = confine(str(target), Program(("/run/cloner/it",), 60, files={"it": script}))
    assert "Read-only file system: '/proc/self/exe'" in ended.last_lines[-1]


def test_of_all_capabilities_those_over_files_and_users_are_left_and_no_way_to_more(target: Path) -> None:
    ended = _shell(target, "grep -E '^(Cap|NoNewPrivs)' /proc/self/status")
    kept = f"{sum(1 << number for number in KEPT_CAPABILITIES):016x}"
    assert [line.split()[-1] for line in ended.last_lines] == ["0" * 16, kept, kept, kept, "0" * 16, "1"]


def test_hooks_of_packages_can_do_their_work(target: Path) -> None:
    ended = _shell(
        target,
        """set -e
        cd /var; touch a; chown 1000:1000 a; chmod 4755 a; mkfifo f; ln -s a l; rm l
        setcap cap_net_raw+p a; getcap a | grep -q cap_net_raw
        setpriv --reuid 1000 --regid 1000 --clear-groups id -u | grep -qx 1000
        chroot / true; echo x >/dev/null; head -c 4 /dev/urandom >/tmp/x; script -qc true /dev/null >/dev/null
        echo boot >/boot/file; [ "$(hostname)" = clone ]; [ "$$" != 1 ]; [ "$(id -u)" = 0 ]
        [ -z "$(cat /proc/cmdline)" ]; mkdir /run/lock
        """,
    )
    assert ended.is_good, ended.last_lines
    assert (target / "var/a").stat().st_mode & 0o7777 == 0o4755
    assert (target / "boot/file").read_text() == "boot\n"
    assert list((target / "run").iterdir()) == []
    assert list((target / "tmp").iterdir()) == []
    assert list((target / "dev").iterdir()) == []


def test_nothing_of_the_agent_is_handed_on(target: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "canary")
    reading, writing = os.pipe()
    os.set_inheritable(reading, True)
    ended = confine(str(target), Program(("sh", "-c", "env; ls /proc/self/fd"), 60, environment={"CLONER_NODE": "n1"}))
    os.close(reading)
    os.close(writing)
    # 3 is what ls reads the directory with.
    assert sorted(ended.last_lines) == [
        *("0", "1", "2", "3", "CLONER_NODE=n1", "HOME=/root", "LC_ALL=C.UTF-8"),
        *("PATH=/usr/sbin:/usr/bin:/sbin:/bin", "PWD=/", "SHELL=/bin/sh", "TERM=dumb"),
    ]


def test_a_device_is_there_when_the_caller_names_it(target: Path, tmp_path: Path) -> None:
    with loop_disk(tmp_path / "disk", MIB) as given, loop_disk(tmp_path / "other", MIB) as other:
        Path(given.device).write_bytes(b"given")
        ended = confine(
            str(target),
            Program(("sh", "-c", f"head -c 5 {given.device}; cat {other.device}"), 60, devices=(given.device,)),
        )
    assert ended.last_lines == (f"givencat: {other.device}: No such file or directory",)


def _still_runs(token: str) -> bool:
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if token in place.read_bytes().decode(errors="replace"):
                return True
        except OSError:
            continue
    return False


@pytest.mark.parametrize(("tail", "is_late"), [("sleep 600", True), ("exit 0", False)], ids=["overruns", "ends"])
def test_nothing_that_it_starts_outlives_it(target: Path, tail: str, is_late: bool) -> None:
    token = "987654.25"
    line = f"trap '' TERM; setsid sleep {token} >/dev/null 2>&1 </dev/null & sleep 0.1; {tail}"
    ended = _shell(target, line, timeout_s=1.5 if is_late else 60)
    assert not _still_runs(token)
    assert ended.is_late is is_late
    assert ended.is_good is not is_late


def test_an_abort_of_the_deploy_ends_it(target: Path) -> None:
    started = time.monotonic()

    def watch() -> None:
        if time.monotonic() - started > 0.5:
            raise AbortError("enough")

    token = "987654.5"
    with pytest.raises(AbortError, match="enough"):
        confine(str(target), Program(("sleep", token), 600), watch=watch)
    assert not _still_runs(token)


def test_the_output_is_logged_as_it_comes_bounded_and_obeyed_by_no_terminal(
    target: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    ended = _shell(
        target, "printf 'one\\033[2Jtwo\\n'; yes abcdefgh | head -c 1000000; printf '%5000s' x; echo last >&2"
    )
    lines = [record.getMessage() for record in caplog.records if record.getMessage().startswith("sh: ")]
    assert lines[0] == "sh: one?[2Jtwo"
    assert ended.last_lines[-1].endswith("xlast")
    logged = sum(len(line.removeprefix("sh: ")) + 1 for line in lines[:-1])
    assert LOGGED_BYTES - 1000 < logged <= LOGGED_BYTES
    assert ended.dropped_bytes > 1_000_000 - LOGGED_BYTES - 1
    assert any("bytes more are not logged" in line for line in lines)


def test_how_it_ended_is_told(target: Path) -> None:
    assert _shell(target, "exit 7").tell().startswith("ended with status 7 after ")
    assert _shell(target, "kill -9 $$").status == 137
    missing = confine(str(target), Program(("nothing-like-it",), 60))
    assert (missing.status, missing.last_lines) == (127, ("nothing-like-it: No such file or directory",))


def test_a_program_with_the_status_of_a_failed_wall_is_not_taken_for_one(target: Path) -> None:
    assert _shell(target, "echo mount: no >&2; exit 125").status == 125


@pytest.mark.parametrize("name", ["proc", "dev"])
def test_an_image_without_a_place_for_a_wall_is_refused(target: Path, name: str) -> None:
    (target / name).rmdir()
    (target / name).symlink_to("etc")
    with pytest.raises(StageError, match=f"the image has no directory /{name}"):
        _shell(target, "true")


def test_a_file_that_is_no_device_cannot_be_given_as_one(target: Path) -> None:
    for path in ("/etc/passwd", "/dev/shm"):
        with pytest.raises(StageError, match="no device file"):
            confine(str(target), Program(("true",), 60, devices=(path,)))
