"""One deploy from hello to reboot: verifies everything first, then applies the plan step by step.

A task that erases is handed on to `erase.job` once the hello has told so, one that captures to `atrest.job`.

Nothing on a disk changes before the server confirmed the plan. Must not know how a step works (`apply`), nor what
happens after a failure (`ending`).
"""

from __future__ import annotations

import logging

from cloner_agent.apply import apply_step
from cloner_agent.attempt import Attempt, Record, Tools
from cloner_agent.erase.job import EraseJob
from cloner_agent.failures import StageError, is_destructive
from cloner_agent.planreport import confirm_plan
from cloner_agent.protocol import ServerFault
from cloner_agent.stages.verify import verify_version
from cloner_agent.version import agent_version
from cloner_core.atrest import CaptureReply
from cloner_core.erasing.words import EraseReply
from cloner_core.messages import PROTOCOL, Cause, Hello, HelloReply, PlanReport, Stage
from cloner_core.plan import apply, foreign_identifiers, plan_digest, plan_task, render
from cloner_core.plan.contents import contents_of, has_old_xfs
from cloner_core.steps import Step

log = logging.getLogger(__name__)


class Deploy:
    """One attempt; `record` and `attempt` tell, after an exception, how far it came."""

    def __init__(self, tools: Tools, *, claim: str, public_key: bytes) -> None:
        self.record = Record()
        self._tools = tools
        self._claim = claim
        self._public_key = public_key
        self._done = 0

    def run(self) -> None:
        """Do all of it; returns only when `Machine.reboot` did.

        Raises what failed; `record.is_destroyed` then says whether the old content is lost.
        """
        tools = self._tools
        facts = tools.probe()
        hello = Hello(
            protocol=PROTOCOL,
            agent_version=agent_version(),
            claim=self._claim,
            public_key=self._public_key.hex(),
            facts=facts,
        )
        reply = _hello(tools, hello)
        tools.accepted(reply)
        if isinstance(reply, EraseReply):
            EraseJob(tools, reply.task, facts, self.record).run()
            return
        if isinstance(reply, CaptureReply):
            # Late: a deploy needs none of it.
            from cloner_agent.atrest.job import CaptureJob

            CaptureJob(tools, reply.task, facts).run()
            return
        task = reply.task
        log.info(
            "node %s, image %s:%d, layout %s", task.node, task.version.image, task.version.number, task.layout.name
        )

        tools.reporter.enter(Stage.VERIFY)
        version = verify_version(tools.server, task.version, tools.server_key)
        tools.reporter.check()

        tools.reporter.enter(Stage.PLAN)
        plan = plan_task(facts, task, contents_of(version.root), has_old_xfs=has_old_xfs(version.root))
        if found := foreign_identifiers(plan, facts):
            raise StageError(Cause.FOREIGN_UUID, f"an identifier of this deploy is on another disk: {'; '.join(found)}")
        log.info("%s", render(plan))
        confirm_plan(tools.server, PlanReport(digest=plan_digest(plan), rendered=render(plan)))

        attempt = Attempt(tools=tools, task=task, facts=facts, version=version, plan=plan, record=self.record)
        apply(plan, lambda step: self._step(attempt, step))

    def _step(self, attempt: Attempt, step: Step) -> None:
        reporter = self._tools.reporter
        reporter.enter(step.stage)
        reporter.tick(self._done, len(attempt.plan.steps), "steps", step.why)
        if step.destroys or is_destructive(step.stage):
            self.record.is_destroyed = True
        self._done += 1
        log.info("step %d of %d: %s", self._done, len(attempt.plan.steps), step.why)
        apply_step(attempt, step.action)


def _hello(tools: Tools, hello: Hello) -> HelloReply | EraseReply | CaptureReply:
    try:
        return tools.server.hello(hello)
    except ServerFault as error:
        if "protocol" in error.message.lower():
            raise StageError(Cause.PROTOCOL, error.message, hint=error.hint) from error
        raise
