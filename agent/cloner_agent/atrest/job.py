"""One capture at rest from the accepted hello to the restart: disks read-only, tree mounted, surveyed, published.

Nothing is written to a disk. The same survey, lint and capture as on a running node; what would be asked there ends
the task here, with the option that answers it. Must not know what happens after a failure (`ending`).
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Protocol

import msgspec

from cloner_agent import detecting
from cloner_agent.atrest.assembling import Assembly, assembled
from cloner_agent.atrest.mounting import UncleanError
from cloner_agent.atrest.systems import Systems, names_of, refuse_twins
from cloner_agent.atrest.tree import Mounter, placed
from cloner_agent.atrest.untouched import Untouched
from cloner_agent.attempt import Tools
from cloner_agent.capture.booting import boot_lacks
from cloner_agent.capture.job import Captured, CaptureOptions, CaptureProgress, capture
from cloner_agent.capture.sink import CaptureSink
from cloner_agent.capture.source import closed_paths, read_start
from cloner_agent.capture.survey import Survey, survey
from cloner_agent.failures import StageError
from cloner_agent.host import Runner
from cloner_agent.rooted import Rooted
from cloner_core.atrest import CaptureTask, LayoutFound, LayoutTold
from cloner_core.detection import Told, UndescribedError, detect, parse_excluded
from cloner_core.detection.parsing import parse_crypttab
from cloner_core.errors import ClonerError
from cloner_core.facts import Facts
from cloner_core.image.pack import Pack
from cloner_core.image.tree import SegmentDelta, SegmentRef
from cloner_core.image.version import Base, Draft, VersionRecord
from cloner_core.layout import Layout
from cloner_core.messages import Cause, Stage
from cloner_core.roots import choose_root
from cloner_core.sizes import format_bytes

log = logging.getLogger(__name__)

PLACE = "/mnt/captured"


class Ask(Protocol):
    """How it is found out what the disks carry."""

    def __call__(self, run: Runner, *, tree: str) -> Told:
        """See `detecting.ask`."""


class CaptureJob:
    """One attempt at a capture of a node at rest."""

    def __init__(
        self, tools: Tools, task: CaptureTask, facts: Facts, *, place: str = PLACE, ask: Ask = detecting.ask
    ) -> None:
        """Take the task and the machine; the tree is mounted at `place`, and `ask` tells what the disks carry."""
        self._tools = tools
        self._task = task
        self._order = task.order
        self._facts = facts
        self._place = place
        self._ask = ask
        self._closed: frozenset[bytes] = frozenset()

    def run(self) -> None:
        """Do all of it; returns only when `Machine.reboot` did."""
        tools, reporter = self._tools, self._tools.reporter
        log.info("node %s: capture at rest, image %s", self._task.node, self._order.image)
        reporter.enter(Stage.GUARD)
        untouched = Untouched(tools.run, self._facts.disks)
        reporter.enter(Stage.ASSEMBLE)
        with ExitStack() as made:
            made.enter_context(placed(self._place))
            disks = [disk.path for disk in self._facts.disks if disk.size_bytes]
            assembly = made.enter_context(assembled(tools.run, disks, tools.server.disk_keys))
            self._mount(assembly, made)
            reporter.enter(Stage.SURVEY)
            told, found = self._layout()
            surveyed = self._survey(told)
            if found is not None:
                told = tools.server.layout(LayoutFound(found, is_to_be_kept=True))
            reporter.enter(Stage.CAPTURE)
            captured = self._capture(told.layout, surveyed, untouched)
        self._tell(captured)
        self._end(untouched)

    def _mount(self, assembly: Assembly, made: ExitStack) -> None:
        """Choose the root and mount its tree; raises when it cannot be told, or is not whole."""
        run, asked = self._tools.run, self._order.root_device
        refuse_twins(assembly)
        names = names_of(assembly, self._facts.disks)
        systems = Systems(run, assembly, names, self._place)
        for why in systems.unread:
            log.warning("not looked into: %s", why)
        unclean = next((why for why in systems.unread if isinstance(why, UncleanError)), None)
        device = (names.find(asked) or asked) if asked else ""
        if unclean is not None and (not asked or not any(root.device == device for root in systems.roots)):
            # It may be the root that is meant; another system that is clean must not be taken in its place.
            raise unclean
        if not systems.roots and assembly.locked:
            listed = ", ".join(block.path for block in assembly.locked)
            raise StageError(
                Cause.LOCKED, f"no system can be seen: {listed} is encrypted, and no key of it is kept here"
            )
        root = choose_root(systems.roots, device if device in assembly.blocks else asked)
        log.info("root: %s", root.name)
        self._mounter(assembly).mount_root(root, made)
        self._rename(assembly)
        mounter = self._mounter(assembly)
        mounter.mount_rest(made)
        for note in mounter.notes:
            self._tools.reporter.note(note)

    def _mounter(self, assembly: Assembly) -> Mounter:
        return Mounter(
            self._tools.run,
            names_of(assembly, self._facts.disks),
            assembly.blocks,
            self._place,
            excludes=self._order.options.exclude_paths,
            locked=[block.path for block in assembly.locked],
        )

    def _rename(self, assembly: Assembly) -> None:
        """Have what is encrypted called as the system calls it: its layout has that name, and its fstab may."""
        with Rooted(self._place) as tree:
            listed = parse_crypttab(read_start(tree, "etc/crypttab").decode(errors="replace"))
        names = names_of(assembly, self._facts.disks)
        devices = {names.find(one.device): one.name for one in listed}
        assembly.rename({device: name for device, name in devices.items() if device in assembly.blocks})

    def _layout(self) -> tuple[LayoutTold, Layout | None]:
        """Return the layout the version is for, and the one found here where it is to be kept after the survey."""
        options = self._order.options
        found, why = None, ""
        asked = self._ask(self._tools.run, tree=self._place)
        # As they were before they were made read-only: no layout takes a disk that cannot be written.
        before = {disk.path: disk for disk in self._facts.disks}
        asked = msgspec.structs.replace(asked, disks=tuple(before.get(disk.path, disk) for disk in asked.disks))
        try:
            detected = detect(asked, options.layout, parse_excluded(options.exclude_devices, os.path.realpath))
            found, left_out = detected.layout, detected.left_out
            for note in detected.notes:
                self._tools.reporter.note(note)
        except UndescribedError as undescribed:
            why, left_out = str(undescribed), undescribed.left_out
        self._closed = closed_paths(left_out)
        told = self._tools.server.layout(LayoutFound(found, why))
        for note in told.notes:
            self._tools.reporter.note(note)
        return told, found

    def _survey(self, told: LayoutTold) -> Survey:
        reporter = self._tools.reporter
        with Rooted(self._place) as tree:
            if lacking := boot_lacks(tree, self._facts.arch):
                reporter.note(f"a clone would not boot: it lacks {' and '.join(lacking)}")
        found = survey(
            self._place,
            self._order.options.exclude_paths,
            told.layout,
            allow_secrets=self._order.allow_secrets,
            closed=self._closed,
            progress=lambda entries: reporter.tick(entries, 0, "steps", "entries"),
        )
        for mount in found.mounts:
            log.info("%s (%s): %d entries, %s", mount.path, mount.type, mount.entries, format_bytes(mount.data_bytes))
        for folder in found.largest:
            log.info("large: %s, %s", folder.path, format_bytes(folder.data_bytes))
        log.info("image %s: %d entries, %s", self._order.image, found.entries, format_bytes(found.data_bytes))
        if found.data_bytes > told.free_bytes:
            room = format_bytes(told.free_bytes)
            reporter.note(f"up to {format_bytes(found.data_bytes)} may be new to the server, which has room for {room}")
        return found

    def _capture(self, layout: Layout, surveyed: Survey, untouched: Untouched) -> Captured:
        tools, order = self._tools, self._order
        whole = format_bytes(surveyed.data_bytes)

        def show(progress: CaptureProgress) -> None:
            read, sent = format_bytes(progress.data_bytes), format_bytes(progress.stored_bytes)
            text = f"{progress.inodes} of {surveyed.entries} files, {read} of {whole} read, {sent} new"
            tools.reporter.tick(progress.data_bytes, surveyed.data_bytes, "bytes", text)

        def before_publish() -> None:
            tools.reporter.check()
            tools.reporter.enter(Stage.PUBLISH)
            untouched.require()

        options = CaptureOptions(
            image=order.image,
            excludes=order.options.exclude_paths,
            layout=layout,
            allow_secrets=order.allow_secrets,
            closed=self._closed,
            mounts=tuple(one.path for one in surveyed.mounts),
        )
        if tools.sink is None:
            raise StageError(Cause.INTERNAL, "there is nowhere to put what is captured")
        return capture(Path(self._place), _Announced(tools.sink(), before_publish), options, show)

    def _tell(self, captured: Captured) -> None:
        record, notes = captured.record, captured.notes
        for paths, what in (
            (notes.vanished, "vanished"),
            (notes.inexact, "changed while it was read"),
            (notes.mount_points, "is a mount point whose content is not captured"),
            (notes.snapshots, "is a read-only snapshot, which is not captured"),
        ):
            for path in paths:
                log.warning("/%s %s", path.decode(errors="backslashreplace"), what)
        for text in captured.unmatched_excludes:
            log.warning("--exclude-paths %s names nothing in this tree", text)
        log.info(
            "published %s:%d, %s: %d files, %s; %s new",
            record.image,
            record.number,
            record.version,
            captured.inodes,
            format_bytes(captured.data_bytes),
            format_bytes(captured.new_stored_bytes),
        )

    def _end(self, untouched: Untouched) -> None:
        tools = self._tools
        tools.reporter.commit()
        tools.reporter.enter(Stage.REBOOT)
        untouched.require()
        try:
            tools.server.rebooting()
        except ClonerError as error:
            log.debug("rebooting: %s", error)
        tools.reporter.console.reboot("captured")
        tools.machine.reboot()


class _Announced:
    """A sink that has something done before it publishes; satisfies `CaptureSink`."""

    def __init__(self, sink: CaptureSink, before_publish: Callable[[], None]) -> None:
        self._sink = sink
        self._before_publish = before_publish

    def base(self, image: str) -> Base | None:
        return self._sink.base(image)

    def put_pack(self, pack: Pack) -> None:
        self._sink.put_pack(pack)

    def put_segment(self, ref: SegmentRef, stored: bytes, delta: SegmentDelta | None = None) -> None:
        self._sink.put_segment(ref, stored, delta)

    def publish(self, draft: Draft) -> VersionRecord:
        self._before_publish()
        return self._sink.publish(draft)
