"""`cloner store`: upkeep of where the images are kept."""

from __future__ import annotations

from collections.abc import Sequence

import click

from cloner_cli.api import Query
from cloner_cli.asking import ask
from cloner_cli.checking import Checks
from cloner_cli.commands import Duration, Group, command, dry_run_option, yes_option
from cloner_cli.invocation import Invocation
from cloner_cli.text import columns, duration, fields, moment, parse_duration, printable
from cloner_core.admin.images import CheckReport, Collected, StoreFault
from cloner_core.admin.keeping import Applied, GcPlan, LetGo
from cloner_core.admin.store import ImageShare, Repacked, StoreStats, VersionShare
from cloner_core.errors import IntegrityError
from cloner_core.growth import Growth
from cloner_core.sizes import format_bytes

DEFAULT_GRACE = "24h"
_FAULTS_SHOWN = 50


@click.group("store", cls=Group)
def store_command() -> None:
    """Where images are kept: verified, and rid of what no version needs."""


@command("check", example="cloner store check --read-data", group=store_command)
@click.option("--read-data", is_flag=True, help="Read and hash every byte of every pack too; takes as long as that.")
def store_check(run: Invocation, *, read_data: bool) -> None:
    """Verify everything published: signatures, trees, maps, and that each pack is there with its size.

    Exit status 7 when anything is wrong; each fault is named. Nothing is changed, but a pack found damaged counts as
    missing until it is put again or found whole: no deploy begins with it, and the next capture sends its content.
    """
    # Reading a store takes as long as its disk does; there is no sensible limit.
    report = run.api.post("/v1/store/check", CheckReport, None, {"read_data": read_data}, is_long=True)
    run.result(report, lambda: _report(report, read_data=read_data))
    require_whole(report.faults, "the store")


def require_whole(faults: Sequence[StoreFault], where: str) -> None:
    """Raise IntegrityError that names each of `faults`, when there are any."""
    if faults:
        shown = [printable(f"{fault.what}: {fault.why}") for fault in faults[:_FAULTS_SHOWN]]
        more = len(faults) - len(shown)
        shown += [f"and {more} more (--json lists all)"] if more else []
        raise IntegrityError(
            "\n  - ".join((f"{len(faults)} faults in {where}:", *shown)),
            hint="'cloner new-image' once more sends what is damaged, or restore the store from a backup",
        )


@command("stats", example="cloner store stats --image debian", group=store_command)
@click.option("--image", "-i", default="", metavar="NAME", help="The versions of this image, one a line.")
def store_stats(run: Invocation, image: str) -> None:
    """Tell what images weigh: LOGICAL (their files), UNIQUE (each content once), STORED (compressed), ONLY.

    ONLY is what nothing else needs: what 'cloner store gc' would free if that image, or version, were removed. Content
    that several share is in UNIQUE and STORED of each, and once in the total.
    """
    checks = Checks()
    checks.exist(run.api, image=image)
    checks.settle("nothing was counted")
    stats = run.api.get("/v1/store/stats", StoreStats, within_s=None)
    run.result(stats, lambda: _shares(stats, image))
    for line in stats.unread:
        run.say(printable(f"note: not counted: {line}"))


@command("plan-gc", example="cloner store plan-gc", group=store_command)
def store_plan_gc(run: Invocation) -> None:
    """Show which versions the keep rules let go, what a gc would free then, and in how many days the disk is full.

    Why a version is kept is said of each. The days are from the growth of the whole filesystem in the last 30 days, in
    which the server notes its size once a day; with less than a week of that they are not known. Nothing is changed.
    """
    plan = run.api.get("/v1/store/plan-gc", GcPlan, within_s=None)
    run.result(plan, lambda: plan_text(plan))


@command("gc", example="cloner store gc --dry-run", group=store_command)
@click.option(
    "--grace",
    "grace_s",
    type=Duration(),
    default=DEFAULT_GRACE,
    show_default=True,
    metavar="TIME",
    help="Keep what is younger: 90s, 30min, 12h, 7d.",
)
@click.option("--apply-keep-rules", is_flag=True, help="First remove the versions that 'store plan-gc' lets go.")
@yes_option
@dry_run_option
def store_gc(run: Invocation, *, grace_s: float, apply_keep_rules: bool, yes: bool, dry_run: bool) -> None:
    """Remove what no published version needs: parts of captures that were broken off, maps no longer current.

    Nothing of a published version is ever removed, nor what a running deploy was told. A capture that runs now has
    stored parts that no version needs yet; the grace keeps them.

    With --apply-keep-rules the versions that the keep rules let go are removed first, after they were shown and a yes:
    never the newest of an image, nor one that a channel, a node or a task uses.
    """
    if not dry_run and grace_s < parse_duration(DEFAULT_GRACE):
        left = "no time" if not grace_s else duration(grace_s)
        ask(run, f"A capture that has run for longer than {left} would fail. Go on?", is_yes=yes)
    query: Query = {"grace_s": str(grace_s), "dry_run": dry_run}
    if apply_keep_rules:
        _apply(run, query, is_dry=dry_run, is_yes=yes)
        return
    collected = run.api.post("/v1/store/gc", Collected, None, query, is_long=True)
    told = f"{collected.files} files, {format_bytes(collected.stored_bytes)}"
    run.result(collected, lambda: f"{'would remove' if dry_run else 'removed'} {told}")


@command("repack", example="cloner store repack --below 50 --dry-run", group=store_command)
@click.option(
    "--below",
    "below_percent",
    type=click.FloatRange(min=0, max=100, min_open=True),
    default=50.0,
    show_default=True,
    metavar="PERCENT",
    help="Packs of which versions use less than this.",
)
@dry_run_option
def store_repack(run: Invocation, *, below_percent: float, dry_run: bool) -> None:
    """Write packs of which little is used anew: removed versions leave holes in packs that others still need.

    No version changes, nor its digest; deploys and captures go on. What it frees goes with 'cloner store gc', when the
    grace is over; until then the new packs take room beside the old ones. It may be ended anywhere and begun again.
    """
    query: Query = {"below": str(below_percent / 100), "dry_run": dry_run}
    repacked = run.api.post("/v1/store/repack", Repacked, None, query, is_long=True)
    run.result(repacked, lambda: _repacked_text(repacked))


def _repacked_text(repacked: Repacked) -> str:
    old = f"{repacked.packs} packs, {format_bytes(repacked.stored_bytes)}, used {format_bytes(repacked.live_bytes)} of"
    if repacked.dry_run:
        maps = f"about {format_bytes(repacked.map_bytes)} of maps"
        return f"would write anew {old} their content, and {maps} for {repacked.versions} versions"
    new = f"{repacked.new_packs} packs, {format_bytes(repacked.new_stored_bytes)}"
    maps = f"{repacked.versions} versions have another map, {format_bytes(repacked.map_bytes)} in all"
    return f"wrote anew {old} their content: {new}; {maps}"


def _apply(run: Invocation, query: Query, *, is_dry: bool, is_yes: bool) -> None:
    """Show what the rules let go, have it agreed to, remove just that, and collect."""
    plan = run.api.get("/v1/store/plan-gc", GcPlan, {"grace_s": query["grace_s"]}, within_s=None)
    let_go = tuple((fate.image, fate.number) for fate in plan.versions if not fate.why)
    collected = plan.now
    if not is_dry:
        run.say(plan_text(plan))
        if let_go:
            ask(run, f"Remove {len(let_go)} version{'s' * (len(let_go) != 1)} for good?", is_yes=is_yes)
            run.api.post("/v1/store/let-go", list[str], LetGo(let_go))
        collected = run.api.post("/v1/store/gc", Collected, None, query, is_long=True)
    names = tuple(f"{image}:{number}" for image, number in let_go)
    applied = Applied(names, collected.files, collected.stored_bytes)
    told = f"{len(names)} versions, {collected.files} files, {format_bytes(collected.stored_bytes)}"
    named = f": {', '.join(names)}" if names else ""
    run.result(applied, lambda: f"{'would remove' if is_dry else 'removed'} {told}{named}")


def plan_text(plan: GcPlan) -> str:
    """Return what is let go, what is kept why, what that frees, and how long the disk lasts."""
    rows = [
        (f"{fate.image}:{fate.number}", "keep" if fate.why else "LET GO", "; ".join(fate.why)) for fate in plan.versions
    ]
    freed = [f"{one.image} {format_bytes(one.stored_bytes)} of {one.versions} versions" for one in plan.images]
    freed += [f"shared by several {format_bytes(plan.shared_bytes)}"] if plan.shared_bytes else []
    shown: list[tuple[str, object]] = [
        ("let go", sum(not fate.why for fate in plan.versions)),
        ("frees", "\n".join(freed) or "nothing"),
        (
            "gc now",
            f"{format_bytes(plan.now.stored_bytes)}, {format_bytes(plan.unused.stored_bytes)} of it unused today",
        ),
        ("full in", growth_text(plan.growth)),
    ]
    table = columns(("VERSION", "FATE", "WHY"), rows) + "\n\n" if rows else "no image has a keep rule\n\n"
    return table + fields(shown)


def growth_text(growth: Growth) -> str:
    """Return when the disk is full, and the figures that is from."""
    room = f"{format_bytes(growth.room_bytes)} left"
    if growth.from_s is None:
        return f"{growth.why}; {room}"
    grown = f"{'-' * (growth.grown_bytes < 0)}{format_bytes(abs(growth.grown_bytes))}"
    figures = f"grew {grown} since {moment(growth.from_s)}, {room}"
    days = growth.days_until_full
    return f"{growth.why}; {figures}" if days is None else f"{days:.0f} days: {figures}"


def _shares(stats: StoreStats, image: str) -> str:
    if image:
        titles = ("VERSION", "LOGICAL", "UNIQUE", "STORED", "ONLY")
        return columns(
            titles, [(f"{one.image}:{one.number}", *_weights(one)) for one in stats.versions if one.image == image]
        )
    lines: list[tuple[object, ...]] = [(one.image, one.versions, *_weights(one)) for one in stats.images]
    total = (stats.logical_bytes, stats.unique_bytes, stats.stored_bytes)
    lines.append(("all", len(stats.versions), *map(format_bytes, total), "-"))
    more = [
        ("trees, maps", format_bytes(stats.metadata_bytes)),
        ("unused", format_bytes(stats.unused_bytes)),
        ("free", format_bytes(stats.free_bytes)),
    ]
    heads = ("IMAGE", "VERSIONS", "LOGICAL", "UNIQUE", "STORED", "ONLY")
    return columns(heads, lines) + "\n\n" + fields(more)


def _weights(share: ImageShare | VersionShare) -> tuple[str, ...]:
    weights = (share.logical_bytes, share.unique_bytes, share.stored_bytes, share.only_bytes)
    return tuple(map(format_bytes, weights))


def _report(report: CheckReport, *, read_data: bool) -> str:
    return fields(
        [
            ("versions", report.versions),
            ("packs", f"{report.packs}, {format_bytes(report.stored_bytes)}"),
            ("content", "read and hashed" if read_data else "not read (--read-data reads it)"),
            ("unused", format_bytes(report.unused_bytes)),
            ("faults", len(report.faults) or "none"),
        ]
    )
