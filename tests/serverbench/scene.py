"""A whole server in one process, without sockets, and an agent that only talks: the scene of the server's tests."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from functools import cache, cached_property
from pathlib import Path
from typing import Any, TypeVar

import httpx
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from litestar.testing import TestClient

from cloner_core.admin.deploying import DeployRequest
from cloner_core.admin.nodes import NodeSpec
from cloner_core.admin.tasks import TaskView
from cloner_core.facts import Disk, Facts, Firmware, Nic
from cloner_core.image.tree import decode_root
from cloner_core.layout import parse_layout
from cloner_core.messages import (
    PROTOCOL,
    Beat,
    BeatReply,
    Confirm,
    Failure,
    Hello,
    HelloReply,
    PlanReport,
    Progress,
    Receipt,
    ReceiptBody,
    Stage,
    Task,
    Vaulted,
    proof_statement,
)
from cloner_core.plan import Plan, plan_digest, plan_task, render, written_by
from cloner_core.plan.contents import contents_of, has_old_xfs
from cloner_server import vault
from cloner_server.config import ServerConfig
from cloner_server.core import Core
from cloner_server.serve import open_core
from cloner_server.state import images, layouts, nodes
from cloner_server.state import tasks as rows
from cloner_server.tasks import arming, claims
from serverbench.apps import admins_client, agents_client
from store_images import BOOTABLE, Image, make_image, some_contents

T = TypeVar("T")
MIB, GIB = 1 << 20, 1 << 30
START_S = 1_800_000_000.0
LAYOUT = """{"name": "simple", "disks": [{"id": "system", "select": {"size_min": "1GiB"}, "partitions": [
  {"role": "esp", "size": "512MiB", "content": {"type": "filesystem", "kind": "vfat", "mount": "/boot/efi"}},
  {"role": "swap", "size": "256MiB", "content": {"type": "swap"}},
  {"role": "root", "size": "rest", "content": {"type": "filesystem", "kind": "ext4", "mount": "/"}}]}]}"""


def facts(mac: str = "52:54:00:00:00:01", *, serial: str = "D1", dmi: str = "") -> Facts:
    """Return a machine with one disk."""
    disk = Disk(path="/dev/vda", size_bytes=8 * GIB, serial=serial, model="VirtDisk", bus="virtio")
    machine = Facts(
        firmware=Firmware.UEFI,
        arch="x86_64",
        memory_bytes=2 * GIB,
        cpu_count=1,
        kernel_release="6.1.0",
        boot_mac=mac,
        disks=(disk,),
        nics=(Nic(name="eth0", mac=mac),),
    )
    return msgspec.structs.replace(machine, dmi=msgspec.structs.replace(machine.dmi, system_uuid=dmi))


@dataclass
class Clock:
    """A clock that stands until it is told to go."""

    now_s: float = START_S

    def __call__(self) -> float:
        return self.now_s


@dataclass(repr=False)
class Scene:
    """The server, its clock, and an image in its store."""

    core: Core
    clock: Clock
    image: Image
    sent_from: str = ""  # address of agents; "" none, as behind a socket

    @cached_property
    def agents(self) -> TestClient[Any]:
        """What agents talk to."""
        return agents_client(lambda: self.core, lambda: self.sent_from)

    @cached_property
    def admins(self) -> TestClient[Any]:
        """What the command line talks to."""
        return admins_client(lambda: self.core)

    def add_node(self, name: str = "n01", mac: str = "52:54:00:00:00:01", **fields: Any) -> None:
        """Add a node with image and layout."""
        spec = NodeSpec(name=name, macs=(mac,), image="golden", layout="simple", **fields)
        with self.core.database.write() as connection:
            nodes.add_node(connection, self.core.act("test"), spec)

    def arm(self, *names: str, has_identity: bool = True) -> str:
        """Arm a deploy of these nodes (n01 by default) and return the first task's id."""
        request, act = DeployRequest(nodes=names or ("n01",)), self.core.act("test")
        if has_identity:  # an RSA key takes long; most tests never open the vault
            vault.ensure_identities(self.core.database, act, list(request.nodes), self.core.site.vault_key)
        with self.core.database.write() as connection:
            return arming.arm(connection, act, arming.intend(connection, request, self.core.rules), self.core.rules)[
                0
            ].task_id

    def mint(self, name: str = "n01") -> str:
        """Serve the boot script of the agent to a node: return its claim token."""
        with self.core.database.write() as connection:
            return claims.mint_claim(connection, self.core.act("boot"), name, self.core.rules)

    def task(self, task_id: str) -> TaskView:
        """Return a task as it stands."""
        with self.core.database.read() as connection:
            return rows.view_task(connection, rows.get_task(connection, task_id))

    def netboot(self, name: str = "n01") -> str:
        """Return what a node gets at its next network boot."""
        with self.core.database.read() as connection:
            return nodes.get_node(connection, name).netboot

    def state_dump(self) -> list[tuple[Any, ...]]:
        """Return every row of every table, to see that nothing changed."""
        from cloner_server.state.tables import metadata

        with self.core.database.read() as connection:
            tables = [connection.exec_driver_sql(f'SELECT * FROM "{table.name}"') for table in metadata.sorted_tables]
            return [tuple(row) for table in tables for row in table]

    def admin(self, method: str, path: str, body: object = None, **query: Any) -> httpx.Response:
        """Send one request of an admin."""
        content = None if body is None else msgspec.json.encode(body)
        headers = {"content-type": "application/json"} if content else {}
        return self.admins.request(method, f"/v1{path}", content=content, headers=headers, params=query)


@dataclass(repr=False)
class Agent:
    """Talks like an agent: claims, proves, beats, reports."""

    scene: Scene
    facts: Facts = field(default_factory=facts)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    reply: HelloReply | None = None

    def try_hello(self, claim: str, **changes: Any) -> httpx.Response:
        """Send a hello and return the answer, whatever it is."""
        hello = Hello(
            protocol=PROTOCOL,
            agent_version="test",
            claim=claim,
            public_key=self.key.public_key().public_bytes_raw().hex(),
            facts=self.facts,
        )
        body = msgspec.json.encode(msgspec.to_builtins(hello) | changes)
        return self.scene.agents.post("/agent/v1/hello", content=body)

    def hello(self, claim: str | None = None) -> HelloReply:
        """Become an attempt."""
        answer = self.try_hello(claim if claim is not None else self.scene.mint())
        assert answer.status_code == 200, answer.text
        self.reply = msgspec.json.decode(answer.content, type=HelloReply)
        return self.reply

    def post(self, name: str, message: object = None, **headers: str) -> httpx.Response:
        """Send one control request with credential and proof."""
        assert self.reply is not None
        path = f"/agent/v1/attempts/{self.reply.task.attempt_id}/{name}"
        body = msgspec.json.encode({} if message is None else message)
        credential = self.reply.credential.value
        proof = self.key.sign(proof_statement("POST", path, body, credential)).hex()
        sent = {"Authorization": f"Bearer {credential}", "Cloner-Proof": proof} | headers
        return self.scene.agents.post(path, content=body, headers=sent)

    def get(self, path: str, **headers: str) -> httpx.Response:
        """Fetch a blob with the credential alone."""
        credential = self.reply.credential.value if self.reply else "none"
        return self.scene.agents.get(f"/agent/v1{path}", headers={"Authorization": f"Bearer {credential}"} | headers)

    def told(self, name: str, kind: type[T], message: object = None) -> T:
        """Send one control request that must be granted."""
        answer = self.post(name, message)
        assert answer.status_code == 200, answer.text
        return msgspec.json.decode(answer.content, type=kind)

    def beat(self, stage: Stage = Stage.RESTORE, done: int = 0) -> BeatReply:
        """Send one heartbeat."""
        return self.told("beat", BeatReply, Beat(progress=Progress(stage=stage, done=done, total=100, unit="bytes")))

    def plan(self) -> Plan:
        """Plan as the agent does, from what it was told and fetched."""
        assert self.reply is not None
        digest = self.reply.task.version.digest
        root = decode_root(self.get(f"/versions/{digest}/root").content, bytes.fromhex(digest))
        return plan_task(self.facts, self.reply.task, contents_of(root), has_old_xfs=has_old_xfs(root))

    def confirm_plan(self) -> Plan:
        """Have the plan confirmed."""
        plan = self.plan()
        answer = self.post("plan", PlanReport(digest=plan_digest(plan), rendered=render(plan)))
        assert answer.status_code == 200, answer.text
        return plan

    def up_to_commit(self) -> tuple[Plan, Vaulted]:
        """Go on until the commit is granted."""
        plan = self.confirm_plan()
        vaulted = self.told("identity", Vaulted)
        self.told("commit", dict[str, Any])
        return plan, vaulted

    def receipt_body(self, plan: Plan, vaulted: Vaulted) -> ReceiptBody:
        """Return the receipt of a deploy that went as planned."""
        assert self.reply is not None
        return make_receipt(self.reply.task, plan, vaulted.machine_id)

    def deploy(self) -> tuple[ReceiptBody, Receipt]:
        """Do everything up to the acknowledged receipt."""
        body = self.receipt_body(*self.up_to_commit())
        return body, self.told("receipt", Receipt, body)

    def fail(self, failure: Failure) -> None:
        """Report a failure."""
        self.told("fail", dict[str, Any], failure)

    def confirmation(self, body: ReceiptBody, **changes: Any) -> Confirm:
        """Return what the clone will call with."""
        assert self.reply is not None
        assert self.reply.task.confirm is not None
        call = Confirm(
            secret=self.reply.task.confirm.secret.value,
            machine_id=body.machine_id,
            boot_id="b" * 32,
            root_part_uuid=body.root_part_uuid,
        )
        return msgspec.structs.replace(call, **changes)


def make_receipt(task: Task, plan: Plan, machine_id: str) -> ReceiptBody:
    """Return the receipt of a deploy that went as planned."""
    return ReceiptBody(
        task_id=task.task_id,
        attempt_id=task.attempt_id,
        node=task.node,
        version_digest=task.version.digest,
        layout=task.layout.name,
        plan_digest=plan_digest(plan),
        disks=written_by(plan).disks,
        packs=1,
        files=1,
        bytes_restored=1,
        bytes_read_back=1,
        identity=(),
        rewritten=(),
        machine_id=machine_id,
        host_key_fingerprints=(),
        root_part_uuid=written_by(plan).root_part_uuid,
        nvram_before=(),
        nvram_after=(),
        stages=(),
    )


def add_version(core: Core, image: Image) -> None:
    """Have the server's next version of an image."""
    image.put(core.catalog.store)
    record = core.catalog.store.publish(image.draft)
    with core.database.write() as connection:
        images.add_version(connection, core.act("test"), record.image, record.number, record.version)


def make_template(state: Path) -> None:
    """Make the state of a server with one image, one layout and identities for two nodes; it takes a second."""
    scene = open_scene(state)
    core = scene.core
    add_version(core, _image())
    act = core.act("test")
    with core.database.write() as connection:
        layouts.add_layout(connection, act, parse_layout(LAYOUT))
    vault.ensure_identities(core.database, act, ["n01", "n02"], core.site.vault_key)
    core.database.close()


def open_scene(state: Path) -> Scene:
    """Return the server over `state`, its clock standing."""
    clock = Clock()
    config = ServerConfig(state=str(state), tftp_port=0)
    core = dataclasses.replace(open_core(config, "10.77.0.1"), clock=clock)
    return Scene(core, clock, _image())


@cache
def _image() -> Image:
    return make_image(some_contents() | BOOTABLE)


def make_scene(state: Path) -> Scene:
    """Return a new server over `state` with what the template has."""
    make_template(state)
    return open_scene(state)
