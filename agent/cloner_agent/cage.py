"""Puts up the walls around one program of an image, then runs it: a program of its own, `python -I -S cage.py TARGET`.

Started by `confined` as a fresh process, so that nothing of the agent's memory is in it; reads the order (JSON, see
`Order`) from standard input. The program's output is this one's standard output; what goes wrong with the walls is
one line on standard error, status 125, and then the program was never started. Imports the standard library only.

The walls, each enough against a part, together for all:
- mount, PID, IPC, UTS, cgroup and network namespaces; the target is the root of the mount namespace, no device file
  on it works, and nothing else of the machine can be named;
- /dev holds null, zero, full, random, urandom, tty, terminals, and the devices the order names;
- /proc and /sys are read-only: the user is root of the machine to them;
- a user namespace in which every user is itself: capabilities in it are worth nothing for devices, mounts, modules,
  network and everything else that belongs to the machine; of those that concern files a few are kept;
- it has no way to more: no_new_privs, no further user namespace, a bounding set;
- its PID 1 ends with this process, and takes all of the rest along; SIGTERM ends both, this one last.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import stat
import sys
from base64 import b64decode
from typing import NoReturn, TypedDict

WALLS_STATUS = 125


class Order(TypedDict):
    """What `confined` writes to standard input."""

    argv: list[str]
    environment: dict[str, str]
    hostname: str
    files: dict[str, str]  # path beneath /run → content, base64; of mode 0500
    devices: list[str]  # paths of device files of this machine that the program may open


# include/uapi/linux/mount.h
MS_RDONLY, MS_NOSUID, MS_NODEV, MS_NOEXEC = 1, 2, 4, 8
MS_REMOUNT, MS_BIND, MS_MOVE, MS_REC, MS_PRIVATE = 1 << 5, 1 << 12, 1 << 13, 1 << 14, 1 << 18
_OPTION_FLAGS = {"ro": MS_RDONLY, "nosuid": MS_NOSUID, "nodev": MS_NODEV, "noexec": MS_NOEXEC}

# include/uapi/linux/sched.h
CLONE_NEWNS, CLONE_NEWCGROUP, CLONE_NEWUTS, CLONE_NEWIPC = 0x00020000, 0x02000000, 0x04000000, 0x08000000
CLONE_NEWUSER, CLONE_NEWPID, CLONE_NEWNET = 0x10000000, 0x20000000, 0x40000000

# include/uapi/linux/prctl.h
_PR_SET_PDEATHSIG, _PR_SET_DUMPABLE, _PR_CAPBSET_DROP, _PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT = 1, 4, 24, 38, 47
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_CAPABILITY_VERSION_3 = 0x20080522  # include/uapi/linux/capability.h
_SYS_KEYCTL = {"x86_64": 250, "aarch64": 219}
_KEYCTL_JOIN_SESSION_KEYRING = 1

# What hooks of packages do with files and users, and nothing else: include/uapi/linux/capability.h
KEPT_CAPABILITIES = (
    0,  # CHOWN
    1,  # DAC_OVERRIDE
    2,  # DAC_READ_SEARCH
    3,  # FOWNER
    4,  # FSETID
    5,  # KILL
    6,  # SETGID
    7,  # SETUID
    18,  # SYS_CHROOT
    31,  # SETFCAP
)

_ALL_IDS = "0 0 4294967295\n"
_DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
_DEVICE_LINKS = {
    "fd": "/proc/self/fd",
    "stdin": "/proc/self/fd/0",
    "stdout": "/proc/self/fd/1",
    "stderr": "/proc/self/fd/2",
    "ptmx": "pts/ptmx",
}
# The command line holds the claim; the others show memory, keys and messages of the machine.
_MASKED = ("cmdline", "kcore", "keys", "key-users", "kmsg", "kpagecgroup", "kpagecount", "kpageflags", "timer_list")

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long


class WallError(Exception):
    """A wall could not be put up."""


class _CapabilityHeader(ctypes.Structure):
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _CapabilityData(ctypes.Structure):
    _fields_ = [("effective", ctypes.c_uint32), ("permitted", ctypes.c_uint32), ("inheritable", ctypes.c_uint32)]


def main(arguments: list[str]) -> int:
    """Run as a program; see the module. Returns the exit status of the confined program, 128 + N for signal N."""
    try:
        if arguments[:1] == ["--inside"]:
            return _launch(arguments[1], json.load(sys.stdin.buffer))
        _leave_read_only(os.path.realpath(arguments[0]))
    except (OSError, WallError) as error:
        os.write(2, f"{error}\n".encode(errors="replace"))
    return WALLS_STATUS


def _leave_read_only(target: str) -> NoReturn:
    """Start anew from a read-only view of our own files.

    Else "#!/proc/self/exe" in a program of the image would lead to a descriptor of our interpreter that can be
    written (CVE-2019-5736): who holds one is in the agent, once no process runs it.
    """
    own = os.path.realpath(sys.executable)
    while not os.path.ismount(own):
        own = os.path.dirname(own)
    if own.startswith(target):
        raise WallError(f"{target} holds the agent's own {sys.executable}")
    _unshare(CLONE_NEWNS)
    _mount("none", "/", "", MS_REC | MS_PRIVATE)
    _mount(target, target, "", MS_BIND | MS_REC)
    _mount("none", own, "", MS_REMOUNT | MS_BIND | MS_RDONLY | _flags_of(own))
    os.execv(sys.executable, [sys.executable, "-I", "-S", os.path.abspath(__file__), "--inside", target])


def _launch(target: str, order: Order) -> int:
    """Fork PID 1 of the walls, map its users, and wait for it."""
    devices = {path: _device_of(path) for path in order["devices"]}
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))
    _unshare(CLONE_NEWPID | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWNET)
    with contextlib.suppress(OSError):  # a kernel without cgroups has nothing to hide there
        _unshare(CLONE_NEWCGROUP)
    asked, ask = os.pipe()
    answered, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
        os.close(asked)
        os.close(answer)
        _be_first(target, order, devices, ask, answered)
    os.close(ask)
    os.close(answered)
    # Whoever waits for this process may then unmount: it ends after everything behind the walls.
    signal.signal(signal.SIGTERM, lambda *_: os.kill(pid, signal.SIGKILL))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))
    _prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if os.read(asked, 1) == b"u":
        for name in ("uid_map", "gid_map"):
            with open(f"/proc/{pid}/{name}", "w", encoding="ascii") as file:
                file.write(_ALL_IDS)
        os.write(answer, b"m")
    is_up = os.read(asked, 1) == b"r"
    _, status = os.waitpid(pid, 0)
    return _status_of(status) if is_up else WALLS_STATUS


def _be_first(target: str, order: Order, devices: dict[str, tuple[int, int]], ask: int, answered: int) -> NoReturn:
    """Be PID 1: put up the walls, start the program, reap, and end as it ended."""
    status = WALLS_STATUS
    try:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        with contextlib.suppress(OSError), open("/proc/self/oom_score_adj", "w", encoding="ascii") as file:
            file.write("1000")
        kernel = os.open("/proc/sys", os.O_PATH | os.O_DIRECTORY)
        _unshare(CLONE_NEWNS)
        _enter(target)
        _furnish(order, devices)
        socket.sethostname(order["hostname"])
        _forget_keys()
        _unshare(CLONE_NEWUSER)
        os.write(ask, b"u")
        if os.read(answered, 1) != b"m":
            raise WallError("users could not be mapped")
        _renounce(kernel)
        null = os.open("/dev/null", os.O_RDWR)
        os.write(ask, b"r")
        os.setsid()
        # From here on nothing is ours but the program's output.
        for own in (0, 2):
            os.dup2(null, own)
        os.closerange(3, resource.getrlimit(resource.RLIMIT_NOFILE)[0])
        status = _run(order)
    except Exception as error:  # noqa: BLE001 — a process that was forked must not go on as the other one
        os.write(2, f"{error}\n".encode(errors="replace"))
    finally:
        os._exit(status)


def _enter(target: str) -> None:
    """Make `target`, with all that is mounted in it, the root, without a device file that works."""
    for point, flags in _mounts_below(target):
        _mount("none", point, "", MS_REMOUNT | MS_BIND | MS_NODEV | flags)
    # Not pivot_root(2), which cannot leave the root of an initramfs. ".." of a root that lies over another stays there.
    os.chdir(target)
    _mount(".", "/", "", MS_MOVE)
    os.chroot(".")
    os.chdir("/")


def _furnish(order: Order, devices: dict[str, tuple[int, int]]) -> None:
    """Mount what a program expects to find, on what the image has for it."""
    os.umask(0)
    _need_directory("/dev")
    _need_directory("/proc")
    _mount("dev", "/dev", "tmpfs", MS_NOSUID | MS_NOEXEC, "mode=755,size=1m")
    for name, (major, minor) in _DEVICES.items():
        os.mknod(f"/dev/{name}", stat.S_IFCHR | 0o666, os.makedev(major, minor))
    for name, leads_to in _DEVICE_LINKS.items():
        os.symlink(leads_to, f"/dev/{name}")
    for path, (kind, number) in devices.items():
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        os.mknod(path, kind, number)
    os.mkdir("/dev/pts")
    os.mkdir("/dev/shm")
    _mount("devpts", "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=0620,gid=5")
    _mount("shm", "/dev/shm", "tmpfs", MS_NOSUID | MS_NODEV, "mode=1777,size=16m")
    _mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    for name in _MASKED:
        if os.path.exists(f"/proc/{name}"):
            _mount("/dev/null", f"/proc/{name}", "", MS_BIND)
    if _is_directory("/sys"):
        _mount("sys", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC | MS_RDONLY)
    for path, options in (("/run", "mode=755,size=16m"), ("/tmp", "mode=1777,size=64m")):
        if _is_directory(path):
            _mount("tmpfs", path, "tmpfs", MS_NOSUID | MS_NODEV, options)
    if order["files"]:
        _need_directory("/run")
    for path, content in order["files"].items():
        os.makedirs(os.path.dirname(path), 0o755, exist_ok=True)
        with open(path, "xb") as file:
            file.write(b64decode(content))
        os.chmod(path, 0o500)
    os.umask(0o022)


def _renounce(kernel: int) -> None:
    """Keep of all privileges what files need, for this process and all that come of it."""
    # In a user namespace of its own a process could mount. The file is that of the namespace of who opens it.
    fd = os.open("user/max_user_namespaces", os.O_WRONLY, dir_fd=kernel)
    os.write(fd, b"0")
    os.close(fd)
    os.setgroups([])
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    for capability in range(64):
        if capability in KEPT_CAPABILITIES:
            continue
        if _libc.prctl(_PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            break  # EINVAL: the kernel knows no more
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    kept = sum(1 << capability for capability in KEPT_CAPABILITIES)
    header = _CapabilityHeader(_CAPABILITY_VERSION_3, 0)
    data = (_CapabilityData * 2)()
    data[0] = _CapabilityData(kept, kept, 0)
    if _libc.capset(ctypes.byref(header), ctypes.byref(data)) != 0:
        raise _error("capset(2)")
    _prctl(_PR_SET_NO_NEW_PRIVS, 1)
    # After the change of credentials, which forgets both: prctl(2).
    _prctl(_PR_SET_DUMPABLE, 0)
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _run(order: Order) -> int:
    pid = os.fork()
    if pid == 0:
        _exec(order)
    while True:
        ended, status = os.waitpid(-1, 0)
        if ended == pid:
            return _status_of(status)


def _exec(order: Order) -> NoReturn:
    try:
        os.setsid()
        os.dup2(1, 2)
        for number in (signal.SIGINT, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL)
        os.execvpe(order["argv"][0], order["argv"], order["environment"])
    except OSError as error:
        os.write(2, f"{order['argv'][0]}: {error.strerror}\n".encode(errors="replace"))
    finally:
        os._exit(127)


def _forget_keys() -> None:
    """Leave the keyrings of the agent, which the kernel hands on to children."""
    number = _SYS_KEYCTL.get(os.uname().machine)
    if number is not None:
        _libc.syscall(number, _KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)


def _mounts_below(target: str) -> list[tuple[str, int]]:
    """Return (mount point, flags that it has) of `target` and what is mounted in it: proc(5), mountinfo."""
    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            point = _unescaped(fields[4])
            if point == target or point.startswith(f"{target}/"):
                found.append((point, _flags(fields[5])))
    return found


def _flags_of(point: str) -> int:
    """Return the flags of what is mounted last on `point`."""
    return [flags for path, flags in _mounts_below(point) if path == point][-1]


def _flags(options: str) -> int:
    return sum(_OPTION_FLAGS.get(option, 0) for option in options.split(","))


def _unescaped(field: str) -> str:
    for code in ("040", "011", "012", "134"):
        field = field.replace(f"\\{code}", chr(int(code, 8)))
    return field


def _device_of(path: str) -> tuple[int, int]:
    status = os.stat(path)
    if not path.startswith("/dev/") or not (stat.S_ISBLK(status.st_mode) or stat.S_ISCHR(status.st_mode)):
        raise WallError(f"{path} is no device file in /dev")
    return stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev


def _need_directory(path: str) -> None:
    if not _is_directory(path):
        raise WallError(f"the image has no directory {path}")


def _is_directory(path: str) -> bool:
    """Tell whether `path` is a directory itself: through a link something else would be hidden."""
    return os.path.isdir(path) and not os.path.islink(path)


def _status_of(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _unshare(flags: int) -> None:
    if _libc.unshare(flags) != 0:
        raise _error(f"unshare(2) of {flags:#x}")


def _mount(source: str, target: str, kind: str, flags: int, data: str = "") -> None:
    names = tuple(os.fsencode(name) for name in (source, target, kind))
    if _libc.mount(*names, ctypes.c_ulong(flags), data.encode() or None) != 0:
        raise _error(f"mount(2) on {target}")


def _prctl(option: int, value: int) -> None:
    if _libc.prctl(option, value, 0, 0, 0) != 0:
        raise _error(f"prctl(2) of {option}")


def _error(where: str) -> WallError:
    return WallError(f"{where}: {os.strerror(ctypes.get_errno())}")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
