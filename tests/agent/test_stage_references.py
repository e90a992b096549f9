"""References are rewritten in the closed list of files only, and everything else of a file stays."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agentbench.scene import Scene
from cloner_agent.rooted import Rooted
from cloner_agent.stages.listed import listed_files
from cloner_agent.stages.references import rewrite
from cloner_core.steps import Rewrite

OLD = "0a0a0a0a-1b1b-4c2c-8d3d-4e4e4e4e4e4e"
OLD_FSTAB = f"UUID={OLD} / ext4 errors=remount-ro 0 1\nUUID=AAAA-0000 /boot/efi vfat umask=0077 0 1\n"


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    scene = Scene(tmp_path)
    for path, text in {
        "etc/fstab": OLD_FSTAB,
        "etc/default/grub": f'GRUB_CMDLINE_LINUX="root=UUID={OLD}"\n',
        "boot/grub/grub.cfg": f"search --fs-uuid {OLD}\nlinux /boot/vmlinuz root=UUID={OLD} ro\n",
        "home/notes": f"UUID={OLD}\n",
    }.items():
        file = scene.target / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return scene


def test_every_listed_file_names_the_new_filesystems(scene: Scene) -> None:
    os.chmod(scene.target / "etc/fstab", 0o640)
    rewrite(scene.attempt, scene.action(Rewrite))
    root = scene.attempt.plan.root.uuid
    for path in ("etc/fstab", "etc/default/grub", "boot/grub/grub.cfg"):
        text = (scene.target / path).read_text()
        assert OLD not in text
        assert f"UUID={root}" in text
    assert "errors=remount-ro" in (scene.target / "etc/fstab").read_text()
    assert (scene.target / "etc/fstab").stat().st_mode & 0o777 == 0o640
    assert sorted(scene.attempt.record.rewritten) == ["/boot/grub/grub.cfg", "/etc/default/grub", "/etc/fstab"]


def test_command_lines_lose_what_tells_dracut_of_devices_of_the_golden_node(scene: Scene) -> None:
    words = f"root=UUID={OLD} ro rd.lvm.lv=rl/root rd.md.uuid=00000000:901d4000:80000000:0000c0de quiet"
    variables = f"# GRUB Environment Block\nkernelopts={words}\n".ljust(1024, "#")
    for path, text in {
        "boot/grub2/grubenv": variables,
        "boot/loader/entries/a.conf": f"options {words}\n",
        "etc/default/grub": f'GRUB_CMDLINE_LINUX="{words}"\n',
    }.items():
        (scene.target / path).parent.mkdir(parents=True, exist_ok=True)
        (scene.target / path).write_text(text)
    rewrite(scene.attempt, scene.action(Rewrite))
    left = f"root=UUID={scene.attempt.plan.root.uuid} ro quiet"
    wanted = f"# GRUB Environment Block\nkernelopts={left}\n".ljust(1024, "#")
    assert (scene.target / "boot/grub2/grubenv").read_text() == wanted
    assert (scene.target / "boot/loader/entries/a.conf").read_text() == f"options {left}\n"
    assert (scene.target / "etc/default/grub").read_text() == f'GRUB_CMDLINE_LINUX="{left}"\n'


def test_no_other_file_is_touched(scene: Scene) -> None:
    rewrite(scene.attempt, scene.action(Rewrite))
    assert (scene.target / "home/notes").read_text() == f"UUID={OLD}\n"


def test_rewriting_twice_changes_nothing_more(scene: Scene) -> None:
    rewrite(scene.attempt, scene.action(Rewrite))
    rewrite(scene.attempt, scene.action(Rewrite))
    assert scene.attempt.record.rewritten == ()


def test_a_device_that_the_layout_does_not_make_is_noted(scene: Scene) -> None:
    with (scene.target / "etc/fstab").open("a") as file:
        file.write("UUID=ffffffff-0000-4000-8000-000000000000 /srv xfs defaults 0 2\n")
    rewrite(scene.attempt, scene.action(Rewrite))
    assert any("/srv" in note for note in scene.attempt.tools.reporter.notes)


def test_no_boot_waits_for_a_container_of_the_image_where_the_layout_encrypts_nothing(scene: Scene) -> None:
    (scene.target / "etc/crypttab").write_text("# none\ndata UUID=99 none luks\n")
    rewrite(scene.attempt, scene.action(Rewrite))
    assert (scene.target / "etc/crypttab").read_text() == "# none\ndata\tUUID=99\tnone\tluks,nofail\n"
    assert any("/etc/crypttab still opens 'data'" in note for note in scene.attempt.tools.reporter.notes)
    assert "/etc/crypttab" in scene.attempt.record.rewritten


def test_a_crypttab_without_anything_to_change_stays_to_the_byte(scene: Scene) -> None:
    (scene.target / "etc/crypttab").write_text("data UUID=99 none luks,nofail")
    rewrite(scene.attempt, scene.action(Rewrite))
    assert (scene.target / "etc/crypttab").read_text() == "data UUID=99 none luks,nofail"


def test_patterns_stand_for_one_name_and_links_stay_inside(scene: Scene, tmp_path: Path) -> None:
    (scene.target / "boot/efi/EFI/debian").mkdir(parents=True)
    (scene.target / "boot/efi/EFI/debian/grub.cfg").write_text("x")
    (scene.target / "boot/efi/EFI/deeper/still").mkdir(parents=True)
    (scene.target / "boot/efi/EFI/deeper/still/grub.cfg").write_text("x")
    (tmp_path / "outside.cfg").write_text("x")
    (scene.target / "etc/default/grub.d").mkdir()
    (scene.target / "etc/default/grub.d/out.cfg").symlink_to(tmp_path / "outside.cfg")
    (scene.target / "etc/default/grub.d/in.cfg").symlink_to("/etc/fstab")
    with Rooted(scene.target) as tree:
        found = listed_files(tree, ("/boot/efi/EFI/*/grub.cfg", "/etc/default/grub.d/*.cfg", "/missing/*/x", "/etc"))
    assert found == ["/boot/efi/EFI/debian/grub.cfg", "/etc/default/grub.d/in.cfg"]
