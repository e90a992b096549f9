"""A node that only talks: the real agent's client, doing over real sockets what the agent does, and no work at all."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import httpx2
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from cloner_agent.client import Endpoint
from cloner_agent.session import HttpsServer
from cloner_core.errors import UnreachableError
from cloner_core.facts import Facts
from cloner_core.image.tree import decode_root
from cloner_core.messages import PROTOCOL, Beat, Hello, HelloReply, PlanReport, Progress, ReceiptBody, Stage
from cloner_core.plan import Plan, plan_digest, plan_task, render
from cloner_core.plan.contents import contents_of, has_old_xfs
from serverbench.scene import make_receipt


@dataclass(frozen=True, slots=True)
class Where:
    """How a node reaches its server."""

    address: str
    tls: int
    http: int

    def boot_script(self, mac: str) -> str:
        """Ask for the boot script as iPXE does."""
        url = f"http://{self.address}:{self.http}/boot/ipxe?mac={mac.replace(':', '-')}&platform=efi"
        return str(httpx2.get(url).text)


@dataclass
class TalkingNode:
    """One machine; `secrets` gathers what must be in no log."""

    where: Where
    ca_pem: str
    facts: Facts
    server: HttpsServer = field(init=False)
    key: Ed25519PrivateKey = field(default_factory=Ed25519PrivateKey.generate)
    secrets: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.server = HttpsServer(Endpoint(self.where.address, self.where.tls, self.ca_pem), self.key, patience_s=30)

    def hello(self) -> None:
        """Become an attempt, by the claim of the boot script."""
        claim = re.search(r"cloner\.claim=(\S+)", self.where.boot_script(self.facts.boot_mac))
        assert claim is not None
        public = self.key.public_key().public_bytes_raw().hex()
        hello = Hello(
            protocol=PROTOCOL, agent_version="test", claim=claim.group(1), public_key=public, facts=self.facts
        )
        reply = self.server.hello(hello)
        assert isinstance(reply, HelloReply)
        self.reply = reply
        assert self.reply.task.confirm is not None
        assert self.reply.console is not None
        self.secrets += [claim.group(1), self.reply.credential.value, self.reply.task.confirm.secret.value]
        self.secrets += [self.reply.console.password.digest, *self.reply.console.host_key.value.splitlines()[1:-1]]

    def plan(self) -> Plan:
        """Plan as the agent does."""
        version = self.reply.task.version.digest
        root = decode_root(self.server.root(version), bytes.fromhex(version))
        return plan_task(self.facts, self.reply.task, contents_of(root), has_old_xfs=has_old_xfs(root))

    def steps(self) -> Iterator[str]:
        """Do a deploy, one request at a time; between two, anything may happen to the server."""
        self.hello()
        yield "hello"
        self.server.verify(self.reply.task.version.digest)
        yield "verified"
        plan = self.plan()
        self.server.confirm_plan(PlanReport(digest=plan_digest(plan), rendered=render(plan)))
        yield "plan"
        with contextlib.suppress(UnreachableError):  # a beat has no patience: the next one carries newer news
            self.server.beat(Beat(progress=Progress(stage=Stage.RESTORE, done=1, total=2, unit="bytes")))
        yield "beat"
        vaulted = self.server.vaulted()
        self.secrets += [vaulted.random_seed.value]
        self.secrets += [line for key in vaulted.host_keys for line in key.private.value.splitlines()[1:-1]]
        yield "identity"
        self.server.commit()
        yield "commit"
        self.body: ReceiptBody = make_receipt(self.reply.task, plan, vaulted.machine_id)
        self.server.receipt(self.body)
        yield "receipt"

    def confirm(self) -> int:
        """Call as the clone does; return the HTTP status."""
        assert self.reply.task.confirm is not None
        call = {
            "secret": self.reply.task.confirm.secret.value,
            "machine_id": self.body.machine_id,
            "boot_id": "b" * 32,
            "root_part_uuid": self.body.root_part_uuid,
        }
        return int(httpx2.post(f"http://{self.where.address}:{self.where.http}/confirm", json=call).status_code)
