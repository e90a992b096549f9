"""Encrypted deploys from the server's side: what is refused before a disk is touched, and who gets the recovery key."""

from __future__ import annotations

import json
from typing import cast

import httpx
import msgspec
import pytest

from cloner_core.admin.fitting import FitView
from cloner_core.admin.nodes import NodePatch
from cloner_core.layout import parse_layout
from cloner_core.messages import PlanReport, Vaulted
from cloner_core.plan import plan_digest, render
from cloner_server import recoverykeys
from cloner_server.state import images, layouts, nodes
from cloner_server.store.local import LocalStore
from serverbench.scene import LAYOUT, Agent, Scene, facts
from store_images import BOOTABLE, make_image

PASSPHRASE = {b"usr/sbin/mkinitramfs": b"#!", b"usr/share/initramfs-tools/hooks/cryptroot": b"#!"}
CLEVIS = {
    b"usr/share/initramfs-tools/hooks/clevis": b"#!",
    b"usr/bin/clevis-luks-bind": b"#!",
    b"usr/bin/clevis-encrypt-tpm2": b"#!",
}


def armed(scene: Scene, unlock: str, *image: dict[bytes, bytes]) -> Agent:
    """Return an attempt of a deploy with an encrypted root, of an image that has these files too."""
    files = dict(BOOTABLE)
    for more in image:
        files |= more
    made = make_image(files, name="sealed")
    made.put(cast(LocalStore, scene.core.catalog.store))
    record = scene.core.catalog.store.publish(made.draft)
    document = json.loads(LAYOUT) | {"name": "sealed"}
    esp, swap, root = document["disks"][0]["partitions"]
    boot = {"size": "512MiB", "content": {"type": "filesystem", "kind": "ext4", "mount": "/boot"}}
    inner = {"type": "luks", "name": "root", "unlock": unlock, "content": root["content"]}
    document["disks"][0]["partitions"] = [esp, boot, swap, {"size": "rest", "content": inner}]
    scene.add_node()
    with scene.core.database.write() as connection:
        act = scene.core.act("test")
        images.add_version(connection, act, record.image, record.number, record.version)
        layouts.add_layout(connection, act, parse_layout(json.dumps(document)))
        nodes.change_node(connection, act, "n01", NodePatch(image="sealed", layout="sealed"))
    scene.arm()
    agent = Agent(scene, msgspec.structs.replace(facts(), tpm_major=2))
    agent.hello()
    return agent


def planned(agent: Agent) -> httpx.Response:
    plan = agent.plan()
    return agent.post("plan", PlanReport(digest=plan_digest(plan), rendered=render(plan)))


@pytest.mark.parametrize(
    ("unlock", "image", "lacking"),
    [
        ("passphrase", (), "an initramfs that opens root"),
        ("tpm2", (PASSPHRASE,), "what has a TPM 2.0 unlock root (packages clevis"),
    ],
)
def test_an_image_that_could_not_open_its_root_is_refused_before_anything_is_destroyed(
    scene: Scene, unlock: str, image: tuple[dict[bytes, bytes], ...], lacking: str
) -> None:
    answer = planned(armed(scene, unlock, *image))
    assert answer.status_code == 422
    assert lacking in answer.json()["error"]


@pytest.mark.parametrize(("unlock", "image"), [("passphrase", (PASSPHRASE,)), ("tpm2", (PASSPHRASE, CLEVIS))])
def test_the_attempt_gets_the_recovery_key_of_its_node_with_the_identity(
    scene: Scene, unlock: str, image: tuple[dict[bytes, bytes], ...]
) -> None:
    agent = armed(scene, unlock, *image)
    assert planned(agent).status_code == 200
    told = agent.told("identity", Vaulted)
    with scene.core.database.read() as connection:
        (key,) = recoverykeys.list_keys(connection, "n01", scene.core.site.vault_key)
    assert told.recovery_key == key.key
    assert agent.told("identity", Vaulted).recovery_key == key.key, "asked again it is the same"


def test_a_deploy_that_encrypts_nothing_makes_no_key(scene: Scene) -> None:
    scene.add_node()
    scene.arm()
    agent = Agent(scene)
    agent.hello()
    agent.confirm_plan()
    assert agent.told("identity", Vaulted).recovery_key is None
    with scene.core.database.read() as connection:
        assert not recoverykeys.has_key(connection, "n01")


def test_a_fit_report_says_the_same_before_the_machine_boots(scene: Scene) -> None:
    armed(scene, "tpm2", PASSPHRASE)
    answer = scene.admin("POST", "/fit", {"nodes": ["n01"], "image": "sealed"})
    (view,) = msgspec.json.decode(answer.content, type=list[FitView])
    assert [(one.cause, "what has a TPM 2.0 unlock root" in one.message) for one in view.refusals] == [
        ("not-bootable", True)
    ]
