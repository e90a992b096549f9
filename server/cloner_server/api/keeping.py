"""Keep rules over the API of admins, the plan of a gc, and letting go of what the rules let go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from litestar import delete, get, patch, post
from litestar.params import FromPath, FromQuery, JSONBody
from msgspec import UNSET

from cloner_core.admin.keeping import Freed, GcPlan, KeepChange, KeepView, LetGo
from cloner_core.errors import ConflictError
from cloner_core.growth import Sample, foresee
from cloner_server.api.callers import CoreDependency, who
from cloner_server.api.faults import AnyRequest
from cloner_server.api.images import GRACE_S, told_maps
from cloner_server.core import Core
from cloner_server.publishing import require_records, take_away
from cloner_server.state import images, keeprules, removal, sizes
from cloner_server.state.database import Act

_OK = 200
_SHOWN = 20


@get("/keep-rules", sync_to_thread=True)
def rule_list(core: CoreDependency, image: FromQuery[str] = "") -> list[KeepView]:
    """List every keep rule, or those of one image."""
    with core.database.read() as connection:
        if image:
            images.get_version(connection, image)
        return keeprules.list_rules(connection, image)


@patch("/images/{name:str}/keep-rule", sync_to_thread=True)
def rule_set(
    core: CoreDependency,
    *,
    request: AnyRequest,
    name: FromPath[str],
    data: JSONBody[KeepChange],
    channel: FromQuery[str] = "",
    dry_run: FromQuery[bool] = False,
) -> KeepView:
    """Give an image, or a channel of it, a keep rule in place of the one it has."""
    with core.database.trial(dry_run) as connection:
        return keeprules.set_rule(connection, who(core, request), name, channel, data.rule, revision=data.revision)


@delete("/images/{name:str}/keep-rule", sync_to_thread=True, status_code=_OK)
def rule_remove(
    core: CoreDependency,
    *,
    request: AnyRequest,
    name: FromPath[str],
    channel: FromQuery[str] = "",
    revision: FromQuery[int | None] = None,
    dry_run: FromQuery[bool] = False,
) -> KeepView:
    """Remove a keep rule; what no rule speaks of any more is kept."""
    known = UNSET if revision is None else revision
    with core.database.trial(dry_run) as connection:
        return keeprules.remove_rule(connection, who(core, request), name, channel, revision=known)


@get("/store/plan-gc")
async def plan_gc(core: CoreDependency, grace_s: FromQuery[float] = GRACE_S) -> GcPlan:
    """Tell what the keep rules let go, what a gc would free then, and how long the disk lasts; changes nothing."""
    return await core.work.keep_up(_plan, core, grace_s)


def _plan(core: Core, grace_s: float) -> GcPlan:
    store = core.catalog.store
    require_records(core.database, store)
    with core.database.read() as connection:
        fates = keeprules.find_fates(connection)
        keep, noted = told_maps(connection), sizes.samples(connection)
    let_go = {(fate.image, fate.number) for fate in fates if not fate.why}
    by_image, shared = store.freed(let_go)
    unused = store.gc(grace_s, keep_maps=keep, dry_run=True)
    used, room = store.space()
    return GcPlan(
        versions=tuple(fates),
        images=tuple(
            Freed(image, sum(one == image for one, _ in let_go), stored_bytes)
            for image, stored_bytes in by_image.items()
        ),
        shared_bytes=shared,
        now=store.gc(grace_s, keep_maps=keep, without=let_go, dry_run=True) if let_go else unused,
        unused=unused,
        growth=foresee(noted, Sample(core.clock(), used), room),
    )


@post("/store/let-go", status_code=_OK)
async def let_go(core: CoreDependency, request: AnyRequest, data: JSONBody[LetGo]) -> list[str]:
    """Remove versions that the keep rules let go: all of them, or none."""
    return await core.work.keep_up(_let_go, core, who(core, request), list(dict.fromkeys(data.versions)))


def _let_go(core: Core, act: Act, wanted: Sequence[tuple[str, int]]) -> list[str]:
    with core.database.write() as connection:
        free = {(fate.image, fate.number) for fate in keeprules.find_fates(connection) if not fate.why}
        if held := [f"{image}:{number}" for image, number in wanted if (image, number) not in free]:
            raise ConflictError(
                f"the keep rules do not let go of {', '.join(held[:_SHOWN])}",
                hint="a rule, a channel, a node or a task changed meanwhile: cloner store plan-gc",
            )
        for image, number in wanted:
            removal.remove_version(connection, act, image, number)
    for image, number in wanted:
        take_away(core.catalog.store, image, number)
    return [f"{image}:{number}" for image, number in wanted]


def keeping_handlers() -> list[Any]:
    """Return the handlers of keep rules."""
    return [rule_list, rule_set, rule_remove, plan_gc, let_go]
