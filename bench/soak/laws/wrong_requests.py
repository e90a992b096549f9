"""Wrong requests of every kind over TLS: not one byte of an image, a refusal each, and each of them in the audit."""

from __future__ import annotations

import random
import secrets
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

from cloner_core.image.compression import compress
from cloner_core.messages import Beat, Cause, Failure, Progress, Stage, proof_statement
from cloner_server.audit import LEFT_OUT, REFUSED
from cloner_server.state import events, images
from cloner_server.state.database import Act
from cloner_server.store.local import LocalStore
from cloner_server.tasks import claims
from serverbench.scene import Agent, Scene, facts, make_template, open_scene
from serverbench.wire import Answer, Wire, served
from soak.law import Case, Figures, Law, require
from store_images import Image, make_image, some_contents

_RUN_BYTES = 64
_KEY_BYTES, _STRIDE_BYTES = 32, 33  # any run of 64 bytes holds a key of 32 that begins at a multiple of 33
_MOST_BYTES = 4096  # of an answer, its head included
_REFUSALS = (400, 401, 403, 404, 405, 409)
_CLAIM_S, _AUDIT_S = 3600.0, 61.0
_FAILURE = Failure(stage=Stage.RESTORE, cause=Cause.DISK_IO, message="none", hint="none", is_destroyed=True)
_BEAT = Beat(progress=Progress(stage=Stage.RESTORE))
_CONTROL = ("beat", "plan", "identity", "commit", "receipt", "fail", "bundle", "rebooting")
_OF_THE_ACTIVE = ("identity", "commit")
_NO_DIGESTS = (
    "../../../../cloner.db",
    "..%2f..%2f..%2fcloner.db",
    "%2e%2e/%2e%2e/%2e%2e/cloner.db",
    "....//....//cloner.db",
    "%00",
    "%c0%ae%c0%ae%c0%afcloner.db",
    "..%5c..%5ccloner.db",
    "%2fetc%2fshadow",
    "A" * 64,
    "0" * 63,
    "0" * 65,
    "0" * 2000,
    "*",
)
_CREDENTIALS = ("", "Bearer", "Bearer ", "Bearer guess", "Basic cm9vdDpyb290", "Bearer " + "x" * 1000, "bearer x")
_TARGET, _IDLE = "n06", "n07"  # a node that is armed again and again, and one without a task


def _mac(name: str) -> str:
    return f"52:54:00:00:00:{name[1:]}"


class Runs:
    """Finds bytes of images, stored or unpacked, in what a server says."""

    def __init__(self, blobs: Iterable[bytes]) -> None:
        """Take everything that must not be seen."""
        self._keys = {
            blob[at : at + _KEY_BYTES] for blob in blobs for at in range(0, len(blob) - _KEY_BYTES + 1, _STRIDE_BYTES)
        }

    def are_in(self, data: bytes) -> bool:
        """Say whether `data` holds a run of 64 bytes of a blob, at any place in either."""
        return any(data[at : at + _KEY_BYTES] in self._keys for at in range(len(data) - _KEY_BYTES + 1))


@dataclass
class Siege:
    """A server with nodes in every state, and machines that ask for what they must not have."""

    scene: Scene
    wire: Wire
    secret: Image  # a version that no task restores
    runs: Runs
    live: Agent  # at work
    rival: Agent  # at work for another node
    finished: Agent  # its receipt was accepted
    failed: Agent
    revoked: Agent  # another attempt took its place
    used: str  # the claim of `finished`
    chance: random.Random = field(default_factory=random.Random)
    seen: Counter[str] = field(default_factory=Counter)
    _kind: str = ""  # of the request that is under way; "" it is a right one
    _refused: int = 0

    def case(self, seed: int) -> Figures:
        """Send wrong requests of every kind; hold each answer, and the audit of them all, to the law."""
        self.chance, self.seen, self._refused = random.Random(seed), Counter(), 0
        self.wire.heard = self._hear
        core = self.scene.core
        with core.database.read() as connection:
            last = events.last_id(connection)
        kinds = list(_KINDS)
        self.chance.shuffle(kinds)
        for kind in kinds:
            before = self.seen[kind]
            self._kind = kind
            _KINDS[kind](self)
            self._kind = ""
            require(self.seen[kind] > before, f"no request of the kind {kind} was sent")
        self._a_right_request_is_answered()
        self.scene.clock.now_s += _AUDIT_S
        with core.audit.news(core.clock()) as news, core.database.write() as connection:
            core.audit.record(connection, core.act("server"), news)
            told = events.list_events(connection, after=last, limit=100_000)
        noted = sum(event.what == REFUSED for event in told)
        counted = sum(event.detail["of"].get(REFUSED, 0) for event in told if event.what == LEFT_OUT)
        require(noted + counted == self._refused, f"{self._refused} refusals, {noted} noted and {counted} counted")
        alarms = sum(event.is_alarm for event in told)
        require(alarms >= len(_ALARMED), f"{alarms} alarms over claims of two other machines")
        return self.seen | Counter({"noted": noted, "counted": counted, "requests": self._refused})

    def _hear(self, answer: Answer) -> None:
        if not self._kind:
            return
        said = f"{self._kind} got {answer.status_code}: {answer.text[:200]}"
        require(answer.status_code in _REFUSALS, said)
        require(len(answer.head) + len(answer.content) <= _MOST_BYTES, f"{said}: {len(answer.content)} bytes")
        require(not self.runs.are_in(answer.head + answer.content), f"{said}: it holds bytes of an image")
        self.seen[self._kind] += 1
        self.seen[f"status {answer.status_code}"] += 1
        self.seen["answer bytes"] += len(answer.head) + len(answer.content)
        self._refused += 1

    @contextmanager
    def _rightly(self) -> Iterator[None]:
        kind, self._kind = self._kind, ""
        yield
        self._kind = kind

    def _a_right_request_is_answered(self) -> None:
        """Else nothing would be learnt: the very same paths, asked for by who may have them."""
        for path in self._blobs(self.live):
            answer = self.live.get(path)
            require(answer.status_code == 200, f"a right request got {answer.status_code}: {answer.text}")
            if ("/packs/" in path or "/segments/" in path) and len(answer.content) >= _RUN_BYTES:
                require(self.runs.are_in(answer.content), f"bytes of an image are not recognised in {path}")

    def _blobs(self, agent: Agent) -> list[str]:
        assert agent.reply is not None
        version, image = agent.reply.task.version, self.scene.image
        packs = [pack.digest.hex() for pack in image.packs]
        return [
            *(f"/versions/{version.digest}/packs/{pack}" for pack in packs),
            *(f"/versions/{version.digest}/placements/{pack}" for pack in packs),
            *(f"/versions/{version.digest}/{name}" for name in ("root", "verified")),
            *(f"/segments/{segment.ref.digest.hex()}" for segment in image.segments),
            f"/packmaps/{version.pack_map}",
        ]

    def _some_blob(self, agent: Agent) -> str:
        return self.chance.choice(self._blobs(agent))

    def _ended(self, agent: Agent) -> None:
        agent.get(self._some_blob(agent))
        agent.post(self.chance.choice(_OF_THE_ACTIVE))

    def unknown_machine(self) -> None:
        """A machine nobody knows, with a claim it made up."""
        stranger = facts(f"52:54:00:99:{self.chance.randrange(256):02x}:{self.chance.randrange(256):02x}")
        Agent(self.scene, stranger).try_hello(secrets.token_hex(20))

    def no_task(self) -> None:
        """A node without a task."""
        idle = Agent(self.scene, facts(_mac(_IDLE)))
        idle.try_hello(secrets.token_hex(20))
        idle.get(self._some_blob(self.live))

    def no_credential(self) -> None:
        """Nothing to show, or something that is no credential."""
        word = self.chance.choice(_CREDENTIALS)
        self.live.get(self._some_blob(self.live), Authorization=word)
        self.live.post(self.chance.choice(_CONTROL), _BEAT, Authorization=word)

    def finished_task(self) -> None:
        """The attempt whose receipt was accepted."""
        self._ended(self.finished)

    def failed_task(self) -> None:
        """The attempt that failed and holds."""
        self._ended(self.failed)

    def claim_of_finished_task(self) -> None:
        """The used claim of a task that has ended, from the right hardware with a new key."""
        Agent(self.scene, self.finished.facts).try_hello(self.used)

    def claim_of_another(self) -> None:
        """A fresh claim of one node, shown by the machine of another."""
        token = self.scene.mint(_TARGET)
        other = self.chance.choice((_mac(_IDLE), "52:54:00:99:00:01"))
        Agent(self.scene, facts(other)).try_hello(token)
        self._thaw()

    def expired_claim(self) -> None:
        """A claim older than its hour, from the right machine."""
        core, age_s = self.scene.core, _CLAIM_S + self.chance.randrange(100_000)
        with core.database.write() as connection:
            token = claims.mint_claim(connection, Act("boot", core.clock() - age_s), _TARGET, core.rules)
        Agent(self.scene, facts(_mac(_TARGET))).try_hello(token)

    def replayed_claim(self) -> None:
        """A claim that has become an attempt, shown again by another boot of the same hardware."""
        token = self.scene.mint(_TARGET)
        with self._rightly():
            Agent(self.scene, facts(_mac(_TARGET))).hello(token)
        Agent(self.scene, facts(_mac(_TARGET))).try_hello(token)
        self._thaw()

    def other_version(self) -> None:
        """A live attempt, for parts of a version that is not its task's."""
        assert self.live.reply is not None
        own, other = self.live.reply.task.version.digest, self.secret.version.hex()
        pack, segment = self.secret.packs[0].digest.hex(), self.secret.segments[0].ref.digest.hex()
        signed = self.scene.core.catalog.store.signed_map(self.secret.version)
        paths = [f"/versions/{other}/{name}" for name in ("root", "verified", f"packs/{pack}")]
        paths += [f"/versions/{own}/packs/{pack}", f"/versions/{own}/placements/{pack}", f"/segments/{segment}"]
        self.live.get(self.chance.choice([*paths, f"/packmaps/{signed.map}", f"/segments/{secrets.token_hex(32)}"]))

    def attempt_of_another(self) -> None:
        """The credential and key of one attempt, for the requests of another."""
        assert self.live.reply is not None
        thief = Agent(self.scene, self.rival.facts, self.rival.key, self.rival.reply)
        assert thief.reply is not None
        credential = thief.reply.credential.value
        path = f"/agent/v1/attempts/{self.live.reply.task.attempt_id}/{self.chance.choice(_CONTROL)}"
        proof = thief.key.sign(proof_statement("POST", path, b"{}", credential)).hex()
        self.wire.post(path, b"{}", {"Authorization": f"Bearer {credential}", "Cloner-Proof": proof})

    def revoked_credential(self) -> None:
        """An attempt whose place another has taken."""
        self.revoked.get(self._some_blob(self.revoked))
        self.revoked.post(self.chance.choice(_CONTROL), _BEAT)

    def wrong_proof(self) -> None:
        """A credential read off a screen, without the key."""
        thief = Agent(self.scene, self.live.facts, reply=self.live.reply)
        thief.post(self.chance.choice(_CONTROL), _BEAT)
        proof = self.chance.choice(("", "00" * 64, "zz", "0" * 127))
        self.live.post(self.chance.choice(_CONTROL), _BEAT, **{"Cloner-Proof": proof})

    def wrong_method(self) -> None:
        """The right path, asked for in another way."""
        assert self.live.reply is not None
        headers = {"Authorization": f"Bearer {self.live.reply.credential.value}"}
        method = self.chance.choice(("POST", "PUT", "DELETE", "PATCH", "HEAD", "PROPFIND"))
        self.wire.request(method, f"/agent/v1{self._some_blob(self.live)}", headers=headers)
        control = f"/agent/v1/attempts/{self.live.reply.task.attempt_id}/{self.chance.choice(_CONTROL)}"
        self.wire.request("GET", control, headers=headers)

    def no_digest(self) -> None:
        """A live attempt, with names that try to lead out of the store."""
        assert self.live.reply is not None
        version, name = self.live.reply.task.version.digest, self.chance.choice(_NO_DIGESTS)
        places = (f"/segments/{name}", f"/packmaps/{name}", f"/versions/{version}/packs/{name}")
        more = (f"/versions/{version}/placements/{name}", f"/versions/{name}/root", f"/{name}")
        self.live.get(self.chance.choice((*places, *more)))

    def wrong_protocol(self) -> None:
        """A hello of another version, or no hello at all; the claim is good and stays so."""
        token = self.scene.mint(_TARGET)
        Agent(self.scene, facts(_mac(_TARGET))).try_hello(token, protocol=self.chance.choice((-1, 0, 10**6)))
        self.wire.post("/agent/v1/hello", self.chance.randbytes(self.chance.randrange(1, 200)))

    def _thaw(self) -> None:
        """Queue the node's task anew: the foreign claim has frozen it."""
        task_id = self._task_of(_TARGET)
        require(self.scene.task(task_id).state.value == "frozen", "a foreign claim did not freeze the task")
        require(self.scene.admin("POST", f"/tasks/{task_id}/retry").status_code == 200, "a frozen task is not queued")

    def _task_of(self, name: str) -> str:
        listed = self.scene.admin("GET", "/tasks", node=name).json()
        return str(listed[0]["id"])


_KINDS: dict[str, Callable[[Siege], None]] = {
    name.replace("_", " "): function
    for name, function in vars(Siege).items()
    if callable(function) and not name.startswith("_") and name != "case"
}
_ALARMED = ("claim of another", "replayed claim")


def _start(scene: Scene, name: str, *, has_identity: bool = False) -> tuple[Agent, str]:
    """Add a node, arm it, and have its machine become an attempt; return it and its claim."""
    scene.add_node(name, _mac(name))
    scene.arm(name, has_identity=has_identity)
    agent, token = Agent(scene, facts(_mac(name))), scene.mint(name)
    agent.hello(token)
    return agent, token


def _besiege(scene: Scene, wire: Wire) -> Siege:
    secret = make_image(some_contents(9), name="secret")
    store = cast(LocalStore, scene.core.catalog.store)
    secret.put(store)
    record = store.publish(secret.draft)
    with scene.core.database.write() as connection:
        images.add_version(connection, scene.core.act("test"), record.image, record.number, record.version)
    live, _ = _start(scene, "n01")
    finished, used = _start(scene, "n02", has_identity=True)
    finished.deploy()
    rival, _ = _start(scene, "n03")
    failed, _ = _start(scene, "n04")
    failed.fail(_FAILURE)
    revoked, _ = _start(scene, "n05")
    scene.clock.now_s += _AUDIT_S  # the attempt counts as lost
    Agent(scene, revoked.facts).hello(scene.mint("n05"))
    for name in (_TARGET, _IDLE):
        scene.add_node(name, _mac(name))
    scene.arm(_TARGET, has_identity=False)
    runs = Runs(_everything(store, (scene.image, secret)))
    return Siege(
        scene, wire, secret, runs, live=live, rival=rival, finished=finished, failed=failed, revoked=revoked, used=used
    )


def _everything(store: LocalStore, known: Iterable[Image]) -> Iterator[bytes]:
    """Give every part of the images as it is stored, and unpacked."""
    for image in known:
        signed = store.signed_map(image.version)
        yield from (image.draft.root, store.pack_map(bytes.fromhex(signed.map)))
        for segment in image.segments:
            yield from (segment.raw, compress(segment.raw))
        for pack in image.packs:
            yield pack.stored
    for seed in (0, 9):
        yield from some_contents(seed).values()


@contextmanager
def open_wrong_requests(work: Path) -> Iterator[Case]:
    """All cases ask one server, whose nodes stay as they are."""
    make_template(work / "state")
    scene = open_scene(work / "state")
    try:
        with served(scene) as wire:
            yield _besiege(scene, wire).case
    finally:
        scene.core.database.close()


LAW = Law(
    "wrong-requests",
    "a request that should not be is refused, is noted or counted, and gets no byte of an image",
    1000,
    open_wrong_requests,
)
