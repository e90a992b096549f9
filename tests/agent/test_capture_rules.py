"""What is left out, and where filesystems end: decided from text alone."""

from __future__ import annotations

import os
import subprocess
import sys
from fnmatch import fnmatchcase
from pathlib import Path

import pytest

from cloner_agent.capture import golden_identity
from cloner_agent.capture.mounts import filesystems_of, find_boundaries, parse_fstab, parse_mountinfo
from cloner_agent.capture.rules import DEFAULTS, Action, RuleBook, parse_excludes
from cloner_cli.invocation import INDEX_DIRECTORY
from cloner_core import confirmation, identity
from cloner_core.errors import InvalidError
from cloner_core.image.linting.finding import Grade
from cloner_core.image.linting.kinds import KINDS
from cloner_server.config import ServerConfig


def action(book: RuleBook, path: bytes, is_file: bool = True) -> Action | None:
    parent, _, name = path.rpartition(b"/")
    rule = book.of_entry(book.of_directory(parent), name, is_file)
    return rule.action if rule else None


@pytest.mark.parametrize(
    ("path", "wanted"),
    [
        (b"etc/machine-id", Action.EMPTY),
        (b"etc/ssh/ssh_host_ed25519_key", Action.OMIT),
        (b"etc/ssh/ssh_host_rsa_key.pub", Action.OMIT),
        (b"etc/ssh/sshd_config", None),
        (b"home/etc/machine-id", None),
        (b"var/lib/dhcp/dhclient.eth0.leases", Action.OMIT),
        (b"var/lib/dhcp/dhclient.conf", None),
        (b"var/lib/wicked/lease-eth0-dhcp-ipv6.xml", Action.OMIT),
        (b"var/lib/wicked/nanny/policy.xml", None),
        (b"var/lib/systemd/random-seed", Action.OMIT),
        (b"etc/systemd/network/05-cloner-0.network", Action.OMIT),
        (b"etc/systemd/network/10-lan.network", None),
    ],
)
def test_the_golden_identity_is_never_captured(path: bytes, wanted: Action | None) -> None:
    assert action(RuleBook(golden_identity.RULES), path) == wanted


def test_identity_that_is_only_a_link_is_kept() -> None:
    assert action(RuleBook(golden_identity.RULES), b"var/lib/dbus/machine-id", is_file=False) is None


def test_the_identity_rules_are_paths_from_the_root_and_of_files_with_two_exceptions() -> None:
    whole = {rule.path for rule in golden_identity.RULES if not rule.files_only}
    assert whole == {b"var/lib/cloud/instance", b"var/lib/cloud/instances"}
    for rule in golden_identity.RULES:
        assert rule.kind is not None
        assert rule.kind.grade is Grade.IDENTITY
        assert not rule.path.startswith(b"/")
        assert b"*" not in rule.path.rpartition(b"/")[0]


def test_a_deploy_removes_whatever_a_capture_leaves_out() -> None:
    """For images that others made. What a deploy writes anew needs no removal."""
    written = {"/etc/machine-id", "/var/lib/dbus/machine-id"}
    removals = [removal.path for removal in identity.REMOVALS]
    for rule in golden_identity.RULES:
        shown = f"/{rule.path.decode()}" + ("/**" if rule.action is Action.HOLLOW else "")
        assert shown in written or any(fnmatchcase(shown, removal) for removal in removals), shown


def test_each_kind_of_identity_is_left_out_by_a_rule() -> None:
    left_out = {rule.kind for rule in golden_identity.RULES}
    assert left_out == {kind for kind in KINDS if kind.grade is Grade.IDENTITY}


def test_what_a_machine_remembers_of_its_captures_stays_behind() -> None:
    assert action(RuleBook(DEFAULTS), INDEX_DIRECTORY.lstrip("/").encode(), False) is Action.OMIT


def test_our_own_keys_and_secrets_stay_behind() -> None:
    """Of a server that is captured with its whole root, and of a clone captured before it called."""
    path = b"var/lib/cloner"
    assert ServerConfig().state == "/var/lib/cloner"
    assert confirmation.SETTINGS.startswith(f"/{path.decode()}/")
    assert action(RuleBook(DEFAULTS), path, False) is Action.HOLLOW


def test_volatile_directories_stay_empty() -> None:
    book = RuleBook(DEFAULTS)
    assert {path: action(book, path, False) for path in (b"proc", b"sys", b"run", b"tmp")} == dict.fromkeys(
        (b"proc", b"sys", b"run", b"tmp"), Action.HOLLOW
    )
    assert action(book, b"var/tmp", False) is None


def test_an_exclude_is_anchored_and_its_star_stays_in_its_component() -> None:
    book = RuleBook(parse_excludes(["/srv/data", "/var/log/*.gz", "/home/*/cache/"]))
    assert action(book, b"srv/data", False) is Action.OMIT
    assert action(book, b"x/srv/data", False) is None
    assert action(book, b"srv/data2") is None
    assert action(book, b"var/log/a.gz") is Action.OMIT
    assert action(book, b"var/log/apt/a.gz") is None
    assert action(book, b"home/me/cache", False) is Action.OMIT
    assert action(book, b"home/cache", False) is None


def test_an_exclude_that_names_nothing_is_known() -> None:
    rules = parse_excludes(["/a", "/b"])
    book = RuleBook(rules)
    assert action(book, b"a") is Action.OMIT
    assert book.used == {rules[0]}


def test_every_wrong_exclude_is_told_at_once() -> None:
    with pytest.raises(InvalidError) as told:
        parse_excludes(["/good", "relative", "/", "/a/../b", ""])
    assert len(told.value.faults) == 4


def line(number: int, device: str, root: str, path: str, kind: str, source: str = "source") -> bytes:
    return f"{number} 1 {device} {root} {path} rw,relatime shared:1 - {kind} {source} rw\n".encode()


MOUNTINFO = b"".join(
    (
        line(20, "8:2", "/", "/", "ext4"),
        line(21, "0:5", "/", "/proc", "proc"),
        line(22, "0:6", "/", "/dev", "devtmpfs"),
        line(23, "0:7", "/", "/dev/pts", "devpts"),
        line(24, "8:1", "/", "/boot/efi", "vfat"),
        line(25, "8:3", "/", "/home", "xfs"),
        line(26, "0:50", "/", "/home/nfs", "nfs4"),
        line(27, "8:2", "/srv", "/bind", "ext4"),
        line(28, "8:4", "/", "/home/nfs/inner", "ext4"),
        line(29, "8:5", "/", "/with\\040blank", "ext4"),
        line(30, "8:3", "/", "/home-again", "xfs"),
        b"garbage\n",
    )
)


def test_local_filesystems_are_crossed_and_the_rest_is_closed() -> None:
    boundaries = find_boundaries(b"/", parse_mountinfo(MOUNTINFO))
    assert boundaries.crossed == {b"boot/efi": "vfat", b"home": "xfs", b"with blank": "ext4"}
    assert {b"proc", b"dev", b"home/nfs", b"bind", b"home-again"} <= boundaries.closed


def test_only_mounts_beneath_the_root_of_the_capture_count() -> None:
    boundaries = find_boundaries(b"/home", parse_mountinfo(MOUNTINFO))
    assert boundaries.crossed == {}
    assert b"nfs" in boundaries.closed
    assert find_boundaries(b"/hom", parse_mountinfo(MOUNTINFO)).closed == frozenset()


BTRFS = b"".join(
    (
        line(20, "0:40", "/@", "/", "btrfs"),
        line(21, "0:40", "/@home", "/home", "btrfs"),
        line(22, "0:40", "/@/srv", "/srv", "btrfs"),  # within /@, mounted where it lies
        line(23, "0:40", "/@var/log", "/var/log", "btrfs"),
        line(24, "0:40", "/@home", "/home-again", "btrfs"),
        line(25, "0:40", "/@/srv", "/srv-again", "btrfs"),
        line(26, "0:40", "/@/usr/share", "/bind", "btrfs"),
        line(27, "0:41", "/", "/data", "btrfs"),
        line(28, "0:41", "/", "/data-again", "btrfs"),
    )
)


def test_each_subvolume_of_a_btrfs_is_crossed_once() -> None:
    boundaries = find_boundaries(b"/", parse_mountinfo(BTRFS), lambda path: path != b"/bind")
    assert boundaries.crossed == dict.fromkeys((b"home", b"srv", b"var/log", b"data"), "btrfs")
    assert boundaries.closed == {b"home-again", b"srv-again", b"bind", b"data-again"}


SNAPPER = b"".join(
    (
        line(20, "0:40", "/@/.snapshots/1/snapshot", "/", "btrfs"),
        line(21, "0:40", "/@/.snapshots", "/.snapshots", "btrfs"),
        line(22, "0:40", "/@/home", "/home", "btrfs"),
    )
)
POOL = b"".join(
    (
        line(20, "0:40", "/@", "/", "btrfs"),
        line(21, "0:40", "/", "/mnt/pool", "btrfs"),
        line(22, "0:40", "/@home", "/home", "btrfs"),
    )
)


def test_a_mount_that_leads_down_to_the_root_shows_it_no_second_time() -> None:
    boundaries = find_boundaries(b"/", parse_mountinfo(SNAPPER), lambda path: True)
    assert boundaries.crossed == dict.fromkeys((b".snapshots", b"home"), "btrfs")
    assert boundaries.closed == {b".snapshots/1/snapshot"}


def test_what_a_pool_shows_counts_where_it_is_mounted_itself() -> None:
    boundaries = find_boundaries(b"/", parse_mountinfo(POOL), lambda path: True)
    assert boundaries.crossed == dict.fromkeys((b"mnt/pool", b"home"), "btrfs")
    assert boundaries.closed == {b"mnt/pool/@", b"mnt/pool/@home"}


def test_a_directory_mounted_on_itself_is_as_if_it_were_not() -> None:
    told = (
        line(20, "8:2", "/", "/", "ext4"),
        line(21, "8:3", "/", "/srv", "xfs"),
        line(22, "8:2", "/home", "/home", "ext4"),
        line(23, "8:3", "/", "/srv", "xfs"),
        line(24, "8:3", "/data", "/srv/data", "xfs"),
    )
    boundaries = find_boundaries(b"/", parse_mountinfo(b"".join(told)))
    assert (boundaries.crossed, boundaries.closed) == ({b"srv": "xfs"}, frozenset())
    first = (line(20, "0:40", "/@", "/", "btrfs"), line(21, "0:40", "/@h", "/h", "btrfs"))
    again = (line(22, "0:40", "/@h", "/h", "btrfs"), line(23, "0:40", "/@/d", "/d", "btrfs"))
    boundaries = find_boundaries(b"/", parse_mountinfo(b"".join(first + again)), lambda path: path != b"/d")
    assert (boundaries.crossed, boundaries.closed) == ({b"h": "btrfs"}, frozenset())


def test_images_that_the_system_has_mounted_are_closed_unless_it_is_one_itself() -> None:
    told = line(21, "7:0", "/", "/snap/x", "ext4", "/dev/loop0")
    on_disk = line(20, "8:2", "/", "/", "ext4", "/dev/sda2") + told
    assert find_boundaries(b"/", parse_mountinfo(on_disk)).closed == {b"snap/x"}
    at_root = line(20, "8:2", "/", "/", "ext4", "/dev/sda2") + line(21, "7:0", "/", "/srv/tree/x", "ext4", "/dev/loop0")
    assert find_boundaries(b"/srv/tree", parse_mountinfo(at_root)).crossed == {b"x": "ext4"}
    on_loop = line(20, "7:1", "/", "/", "ext4", "/dev/loop1p2") + told
    assert find_boundaries(b"/", parse_mountinfo(on_loop)).crossed == {b"snap/x": "ext4"}


def test_what_is_closed_by_name_is_so_with_all_that_is_mounted_beneath() -> None:
    boundaries = find_boundaries(b"/", parse_mountinfo(MOUNTINFO), closed={b"home", b"srv"})
    assert boundaries.crossed == {b"boot/efi": "vfat", b"with blank": "ext4"}
    assert {b"home", b"srv"} <= boundaries.closed


SUBVOLUMES = """
set -e
mkdir $0/top $0/view; mount -o loop $0/disk $0/top; device=$(losetup -nO NAME -j $0/disk)
for name in @ @home @/nested; do btrfs -q subvolume create $0/top/$name; done
mkdir $0/top/@/home $0/top/@/dir $0/top/@/bound
mount -o subvol=@ $device $0/view; mount -o subvol=@home $device $0/view/home
mount --bind $0/view/dir $0/view/bound
for name in file dir/file home/file nested/file; do echo $name > $0/view/$name; done
mkdir $0/view/.snapshots; btrfs -q subvolume snapshot -r $0/view $0/view/.snapshots/1
btrfs -q subvolume snapshot $0/view/nested $0/view/restored; btrfs -q subvolume create $0/view/own
btrfs -q property set $0/view/own ro true
mount -o subvol=/ $device $0/view/dir
exec $1 -c "$2" $0/view
"""
LOOK = """
import sys
from cloner_agent.capture.survey import survey
told = survey(sys.argv[1], (), None, allow_secrets=False)
print([one.path for one in told.mounts], list(told.closed), list(told.snapshots), told.data_bytes)
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_subvolumes_as_the_kernel_shows_them_are_captured_once(tmp_path: Path) -> None:
    (tmp_path / "disk").touch()
    os.truncate(tmp_path / "disk", 256 << 20)
    subprocess.run(["mkfs.btrfs", "-q", tmp_path / "disk"], check=True, capture_output=True)
    argv: list[str | Path] = ["unshare", "-m", "sh", "-c", SUBVOLUMES, tmp_path, sys.executable, LOOK]
    told = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout
    size = sum(len(f"{name}\n") for name in ("file", "home/file", "nested/file", "nested/file"))
    shown = "['/', '/dir', '/home'] ['/bound', '/dir/@', '/dir/@home'] ['/.snapshots/1']"
    assert told == f"{shown} {size}\n"


MEANWHILE = """
set -e
mkdir $0/top; mount -o loop $0/disk $0/top; mkdir $0/top/data $0/top/late; mount -o loop $0/other $0/top/data
touch $0/top/data/file $0/top/late/file
exec $1 -c "$2" $0/top
"""
CHANGE = """
import subprocess, sys
from cloner_agent.capture.records import CaptureError, Notes
from cloner_agent.capture.source import opened
from cloner_agent.capture.survey import Weigher
from cloner_agent.capture.walk import Walker
for command in ("mount -t tmpfs late {0}/late", "umount -l {0}/data"):
    with opened(sys.argv[1], None, (), None, allow_secrets=False) as source:
        notes = Notes()
        weigher = Weigher(source.boundaries, lambda path, status: False)
        walk = Walker(source.boundaries, source.book, weigher, notes, source.linter).walk(source.rooted.fd)
        next(walk)
        subprocess.run(command.format(sys.argv[1]).split(), check=True)
        try:
            print(len(list(walk)), notes.mount_points)
        except CaptureError as error:
            print(error.message)
"""


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounts")
def test_what_is_mounted_or_unmounted_while_the_tree_is_walked_is_seen(tmp_path: Path) -> None:
    for name in ("disk", "other"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 64 << 20)
        subprocess.run(["mkfs.ext4", "-q", tmp_path / name], check=True, capture_output=True)
    argv: list[str | Path] = ["unshare", "-m", "sh", "-c", MEANWHILE, tmp_path, sys.executable, CHANGE]
    told = subprocess.run(argv, check=True, capture_output=True, text=True, timeout=120).stdout
    assert told == "3 [b'late']\nwhat was mounted on /data is no longer there\n"


FSTAB = b"""# comment
UUID=1111-2222 / ext4 defaults 0 1
UUID="AAAA-BBBB" /boot/efi vfat umask=0077 0 1
LABEL=homes /home xfs defaults
/dev/sdb1 /with\\040blank ext4
UUID=swap none swap sw
short
"""


def test_filesystems_know_their_role_and_what_fstab_says() -> None:
    boundaries = find_boundaries(b"/", parse_mountinfo(MOUNTINFO))
    told = [(fs.mount, fs.role, fs.type, fs.uuid, fs.label) for fs in filesystems_of(boundaries, b"boot/efi", FSTAB)]
    assert told == [
        (b"", "root", "ext4", "1111-2222", ""),
        (b"boot/efi", "esp", "vfat", "AAAA-BBBB", ""),
        (b"home", "data", "xfs", "", "homes"),
        (b"with blank", "data", "ext4", "", ""),
    ]
    assert b"none" not in parse_fstab(FSTAB)
