"""One race for the claims of two nodes, and what must be true of every answer, by a model that knows no database.

The model knows which hardware was accepted, who was given which token and when, and who became an attempt last. A
seed decides every step; only inside a rush, where hellos are sent at once, the machine decides.
"""

from __future__ import annotations

import random
import threading
from collections import Counter
from dataclasses import dataclass, field

import httpx
import msgspec
from sqlalchemy import func, select

from cloner_core.admin.tasks import TaskState, TaskView
from cloner_core.errors import RefusedError
from cloner_core.facts import fingerprint
from cloner_core.messages import Beat, BeatReply, Cause, Failure, HelloReply, Progress, Stage, Vaulted
from cloner_server.state import events
from cloner_server.state import tasks as rows
from cloner_server.state.tables import attempts
from cloner_server.tasks import housekeeping
from cloner_server.tasks.states import ACTIVE, CLAIMABLE
from serverbench.scene import START_S, Agent, Scene, facts
from soak.law import require

_TOKEN_S, _LOST_S, _ATTEMPTS = 3600.0, 60.0, 5
_NODES = {"n01": "52:54:00:00:00:01", "n02": "52:54:00:00:00:02"}
_BEAT = Beat(progress=Progress(stage=Stage.RESTORE, done=1, total=2, unit="bytes"))
_FAILURE = Failure(stage=Stage.RESTORE, cause=Cause.DISK_IO, message="none", hint="none", is_destroyed=True)
_WISHES: dict[str, object] = {"identity": {}, "commit": {}, "beat": _BEAT, "fail": _FAILURE, "rebooting": {}}
_OTHER_DMI = "11111111-1111-4111-8111-111111111111"


@dataclass
class _Token:
    value: str
    node: str
    task_id: str
    minted_s: float
    user: Agent | None = None  # who became an attempt by it


@dataclass
class _Task:
    """What is known of a task from outside."""

    node: str
    latest: Agent | None = None  # whose attempt is the newest
    heard_s: float = 0.0  # when it beat last
    has_rival: bool = False  # a second machine of the same hardware was told to wait


@dataclass
class Race:
    """Two nodes, their right machines, the same with exchanged boards, a stranger, and time."""

    scene: Scene
    seed: int
    seen: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        """Add and arm both nodes."""
        self._chance = random.Random(self.seed)
        self._accepted = dict.fromkeys(_NODES, "")
        self._tokens: list[_Token] = []
        self._agents: list[tuple[Agent, str]] = []  # who ever was an attempt, and of which task
        self._planned: set[str] = set()  # attempts whose plan was confirmed
        self._tasks: dict[str, _Task] = {}
        self._armed: dict[str, str] = {}
        for node, mac in _NODES.items():
            self.scene.add_node(node, mac)
            self._arm(node)
        stranger = facts("52:54:00:00:00:99")
        right = {node: facts(mac) for node, mac in _NODES.items()}
        self._machines = {
            node: (
                right[node],
                facts(mac, dmi=_OTHER_DMI),
                (stranger, *(right[other] for other in right if other != node)),
            )
            for node, mac in _NODES.items()
        }

    def step(self) -> None:
        """Let one thing happen, and hold the server to its laws."""
        steps = {
            self._hello: 30,
            self._rush: 8,
            self._beat: 20,
            self._ask_for_secret: 14,
            self._steal: 6,
            self._wait: 16,
            self._tidy: 4,
            self._admin: 16,
        }
        chosen = self._chance.choices(list(steps), list(steps.values()))[0]
        self.seen[chosen.__name__.strip("_")] += 1
        chosen()
        for task_id in self._tasks:
            require(self._live(task_id) <= 1, f"{self._live(task_id)} live attempts of task {task_id}")

    def _hello(self) -> None:
        token = self._choose_token()
        if token is not None:
            self._claim([(self._choose_agent(token), token)])

    def _rush(self) -> None:
        """Two to four hellos at once."""
        chosen = [self._choose_token() for _ in range(self._chance.randint(2, 4))]
        self._claim([(self._choose_agent(token), token) for token in chosen if token is not None])

    def _claim(self, hellos: list[tuple[Agent, _Token]]) -> None:
        before = {token.task_id: self._view(token.task_id) for _, token in hellos}
        alarms = {task_id: self._alarms(task_id) for task_id in before}
        foreign = {
            token.task_id
            for agent, token in hellos
            if self._is_good(token) and before[token.task_id].state in CLAIMABLE and self._is_foreign(agent, token)
        }
        answers = self._send(hellos)
        winners: dict[str, Agent] = {}
        for (agent, token), answer in zip(hellos, answers, strict=True):
            self.seen[f"hello {answer.status_code}"] += 1
            if answer.status_code == 200:
                self._check_welcome(agent, token, before[token.task_id], winners)
                winners[token.task_id] = agent
                agent.reply = msgspec.json.decode(answer.content, type=HelloReply)
            else:
                require(answer.status_code in (401, 409, 503), f"a hello got {answer.status_code}: {answer.text}")
                self._tasks[token.task_id].has_rival |= answer.status_code == 503
        for task_id in foreign:
            state = self._view(task_id).state
            has_alarm = self._alarms(task_id) > alarms[task_id]
            require(has_alarm, f"a foreign claim of task {task_id} raised no alarm")
            require(state in (TaskState.FROZEN, TaskState.FAILED), f"after a foreign claim the task is {state.value}")
            self.seen["foreign"] += 1

    def _check_welcome(self, agent: Agent, token: _Token, before: TaskView, winners: dict[str, Agent]) -> None:
        """Hold a granted hello to the laws, then take it into the model."""
        task = self._tasks[token.task_id]
        now_s = self.scene.clock.now_s
        require(self._is_good(token), "a token was good after its hour")
        require(before.state in CLAIMABLE, f"a task that is {before.state.value} was claimed")
        require(not self._is_foreign(agent, token), "a foreign machine became an attempt")
        if token.user is None:
            require(token.task_id not in winners, "two of one rush became attempts")
            is_alive = before.state in ACTIVE and task.latest is not None and now_s < task.heard_s + _LOST_S
            require(not is_alive, "a live attempt was displaced")
            require(before.attempts < _ATTEMPTS or before.state is TaskState.QUEUED, "too many attempts")
            token.user, task.latest, task.has_rival = agent, agent, False
        self._accepted[token.node] = fingerprint(agent.facts)
        task.heard_s = now_s
        self._agents.append((agent, token.task_id))

    def _send(self, hellos: list[tuple[Agent, _Token]]) -> list[httpx.Response]:
        if len(hellos) == 1:
            return [agent.try_hello(token.value) for agent, token in hellos]
        answers: dict[int, httpx.Response] = {}
        start = threading.Barrier(len(hellos))

        def send(number: int) -> None:
            agent, token = hellos[number]
            start.wait()
            answers[number] = agent.try_hello(token.value)

        threads = [threading.Thread(target=send, args=(number,)) for number in range(len(hellos))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return [answers[number] for number in range(len(hellos))]

    def _beat(self) -> None:
        agent, task_id = self._choose_attempt()
        if agent is None:
            return
        before, task = self._view(task_id), self._tasks[task_id]
        answer = agent.post("beat", _BEAT)
        self.seen[f"beat {answer.status_code}"] += 1
        if answer.status_code != 200:
            return
        require(agent is task.latest, "a former attempt is still believed")
        order = msgspec.json.decode(answer.content, type=BeatReply).order
        after = self._view(task_id)
        if task.has_rival and before.state in ACTIVE and order != "retry":
            require(after.state is TaskState.FROZEN, "two machines beat for one task and it goes on")
            require(order == "hold", f"two machines beat for one task and one is told to {order}")
            self.seen["rival found"] += 1
        require(after.state is not TaskState.FROZEN or order != "go", "a frozen task goes on")
        task.heard_s = self.scene.clock.now_s

    def _ask_for_secret(self) -> None:
        agent, task_id = self._choose_attempt()
        if agent is None or agent.reply is None:
            return
        task, before = self._tasks[task_id], self._view(task_id)
        attempt = agent.reply.task.attempt_id
        if agent is task.latest and before.state in ACTIVE and self._is_live(attempt) and self._chance.random() < 0.8:
            agent.confirm_plan()
            self._planned.add(attempt)
        answer = agent.post("identity")
        self.seen[f"identity {answer.status_code}"] += 1
        if answer.status_code == 200:
            require(bool(msgspec.json.decode(answer.content, type=Vaulted).machine_id), "an identity without content")
            accepted = self._accepted[task.node]
            require(fingerprint(agent.facts) == accepted, "a secret left for hardware that is not accepted")
            require(agent is task.latest and before.state in ACTIVE, "a secret left for an attempt that has ended")
            require(attempt in self._planned, "a secret left before the plan was confirmed")

    def _steal(self) -> None:
        """Someone has read a credential off the wire, and has not the key."""
        victim, _ = self._choose_attempt()
        if victim is not None:
            thief = Agent(self.scene, victim.facts, reply=victim.reply)
            for name, message in _WISHES.items():
                status = thief.post(name, message).status_code
                require(status == 401, f"a stolen credential was good for {name}: {status}")

    def _wait(self) -> None:
        self.scene.clock.now_s += self._chance.choice((0.5, 5, 5, 30, 59, 61, 61, 1800, 3601))

    def _tidy(self) -> None:
        core = self.scene.core
        with core.database.write() as connection:
            housekeeping.tidy(connection, core.act("server"), core.rules, START_S)

    def _admin(self) -> None:
        node = self._chance.choice(list(_NODES))
        task_id = self._armed[node]
        state = self._view(task_id).state
        if state is TaskState.ABORTED:
            self._arm(node)
        elif self._chance.random() < 0.1:
            require(self.scene.admin("POST", f"/tasks/{task_id}/abort").status_code == 200, "no abort")
        elif state in (TaskState.FROZEN, TaskState.FAILED):
            if self._chance.random() < 0.5:
                forgotten = self.scene.admin("PATCH", f"/nodes/{node}", {"fingerprint": ""})
                require(forgotten.status_code == 200, f"hardware not forgotten: {forgotten.text}")
                self._accepted[node] = ""
            require(self.scene.admin("POST", f"/tasks/{task_id}/retry").status_code == 200, "no retry")

    def _arm(self, node: str) -> None:
        self._armed[node] = task_id = self.scene.arm(node, has_identity=False)  # the template has identities
        self._tasks[task_id] = _Task(node)

    def _choose_token(self) -> _Token | None:
        """Return a token, more often a new one; None when the node has nothing to claim."""
        if self._tokens and self._chance.random() < 0.25:
            return self._chance.choice(self._tokens[-8:])
        node = self._chance.choice(list(_NODES))
        try:
            token = _Token(self.scene.mint(node), node, self._armed[node], self.scene.clock.now_s)
        except RefusedError:
            return None
        self._tokens.append(token)
        return token

    def _choose_agent(self, token: _Token) -> Agent:
        """Return who says hello: often the right machine, sometimes the very agent that did so before."""
        if token.user is not None and self._chance.random() < 0.4:
            return token.user
        right, exchanged, others = self._machines[token.node]
        return Agent(self.scene, self._chance.choices((right, exchanged, self._chance.choice(others)), (7, 2, 1))[0])

    def _choose_attempt(self) -> tuple[Agent | None, str]:
        return self._chance.choice(self._agents[-6:]) if self._agents else (None, "")

    def _is_good(self, token: _Token) -> bool:
        return self.scene.clock.now_s < token.minted_s + _TOKEN_S

    def _is_foreign(self, agent: Agent, token: _Token) -> bool:
        accepted = self._accepted[token.node]
        is_other_user = token.user is not None and (
            agent is not token.user or self._tasks[token.task_id].latest is not agent
        )
        return (
            agent.facts.boot_mac != _NODES[token.node]
            or accepted not in ("", fingerprint(agent.facts))
            or is_other_user
        )

    def _view(self, task_id: str) -> TaskView:
        with self.scene.core.database.read() as connection:
            return rows.view_task(connection, rows.get_task(connection, task_id))

    def _alarms(self, task_id: str) -> int:
        with self.scene.core.database.read() as connection:
            return len(events.list_events(connection, obj=f"task/{task_id}", alarms=True))

    def _live(self, task_id: str) -> int:
        query = select(func.count()).where(attempts.c.task == int(task_id), attempts.c.state == "live")
        with self.scene.core.database.read() as connection:
            return int(connection.execute(query).scalar_one())

    def _is_live(self, attempt_id: str) -> bool:
        query = select(attempts.c.state).where(attempts.c.id == attempt_id)
        with self.scene.core.database.read() as connection:
            return bool(connection.execute(query).scalar_one() == "live")
