"""The server as one process: API and boot listeners, DHCP, TFTP, and what time makes due.

Nothing lives in memory alone: a kill at any moment and a new start go on where the database stands.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import ipaddress
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from blake3 import blake3
from sqlalchemy import Connection
from sqlalchemy.exc import DatabaseError

from cloner_core.decoding import settle_types
from cloner_core.errors import ClonerError, RefusedError
from cloner_initramfs.memory import KERNEL_BYTES
from cloner_pxe.boot_files import GrubFiles, tftp_files
from cloner_pxe.decision import BootPolicy
from cloner_pxe.dhcp import DhcpConfig, DhcpServer, Mode
from cloner_pxe.dhcp_leases import Pool
from cloner_pxe.dhcp_service import DhcpService
from cloner_pxe.loaders import find_loaders
from cloner_pxe.router import RouterService
from cloner_pxe.tftp import TftpService
from cloner_server.api.app import admin_app, agent_app
from cloner_server.api.boot import boot_app
from cloner_server.api.faults import DiskFullError, trouble_of
from cloner_server.audit import audited
from cloner_server.boot import BootDesk
from cloner_server.catalog import Catalog
from cloner_server.clock import SteadyClock
from cloner_server.config import ServerConfig, keep, pool
from cloner_server.confirming import Confirming
from cloner_server.consoles import console_key, default_warning
from cloner_server.core import Core
from cloner_server.house import House
from cloner_server.imagedrivers import DriverShelf
from cloner_server.installer import assemble
from cloner_server.listeners import (
    Listener,
    interface_network,
    listener,
    own_macs,
    tcp_socket,
    unix_socket,
    use_certificate,
)
from cloner_server.multicast.links import find_link
from cloner_server.multicast.querier import EVERY_S as QUERY_S
from cloner_server.multicast.supervisor import Supervisor
from cloner_server.outlets import OwnOutlet
from cloner_server.parcelshelf import ParcelShelf
from cloner_server.relayhub import RelayHub
from cloner_server.sessiondesk import SessionDesk, run_desk
from cloner_server.shelf import Shelf, open_shelf
from cloner_server.site import Site, open_site
from cloner_server.state import events, images, installers, publishing
from cloner_server.state.database import Act, open_database
from cloner_server.state.leases import SqlLeases
from cloner_server.statedir import locked, refuse_unfinished
from cloner_server.store.local import LocalStore
from cloner_server.store.protocol import Store
from cloner_server.tasks import timeshift
from cloner_server.tasks.multicasting import Wire
from cloner_server.tasks.rules import Rules
from cloner_server.verified import Verifier

log = logging.getLogger(__name__)

READY = "CLONER READY"
_FAILED_TURNS = 20  # to wait after one that failed, or the log fills the disk that is full already
_WARN_OF_RESERVE = 2  # times the reserve: time to act before uploads end
_TURN_S = 0.25  # between two looks at what is due; events of the wire are written once a turn


@dataclass(frozen=True, slots=True)
class _Network:
    address: str
    network: ipaddress.IPv4Network | None  # None without an interface


def serve(config: ServerConfig, announce: Callable[[str], None] = print) -> None:
    """Run until SIGTERM or SIGINT; raises ClonerError when something is in the way of starting."""
    if os.geteuid() != 0:
        raise RefusedError("cloner serve needs root: it has ports below 1024 and a socket for root alone")
    logging.basicConfig(stream=sys.stderr, level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("uvicorn", "alembic", "asyncio"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    import uvloop

    settle_types()
    with locked(Path(config.state)), asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(config, announce))


async def _run(config: ServerConfig, announce: Callable[[str], None]) -> None:
    place, clock = _place(config), SteadyClock()
    core = open_core(config, place.address, clock)
    supervisor = Supervisor()
    hub = RelayHub(core.database, core.catalog.store, config.multicast_group, config.multicast_port, clock)
    sending = _session_desk(config, core, supervisor, hub)
    core = dataclasses.replace(core, sessions=sending, relays=hub)
    desk, loaders = _boot_desk(config, core, place)
    core = desk.core
    async with contextlib.AsyncExitStack() as stack:
        stack.callback(core.database.close)
        stack.callback(supervisor.close)  # senders first: their sessions stand in the database
        stack.callback(sending.close)
        admin = unix_socket(Path(config.socket))
        stack.callback(Path(config.socket).unlink, missing_ok=True)
        tls = tcp_socket(place.address, config.tls_port, "the API of nodes (TLS)")
        plain = tcp_socket(place.address, config.http_port, "boot HTTP")
        listeners = [
            listener(admin_app(lambda: core)),
            listener(audited(agent_app(lambda: core), core.audit, clock), core.site),  # type: ignore[arg-type]  # one protocol, two names
            listener(audited(boot_app(core, desk, loaders), core.audit, clock)),
        ]
        # Netboot first: when another DHCP server answers here, nobody has been served anything yet.
        await _start_netboot(config, place, desk, loaders, stack)
        serving = [asyncio.create_task(one.serve([on])) for one, on in zip(listeners, (admin, tls, plain), strict=True)]
        _stop_on_signals(core)
        started = await _all_started(listeners, serving)
        if started:
            _warn(core)
            announce(
                f"{READY} https={place.address}:{config.tls_port} http={place.address}:{config.http_port} "
                f"socket={config.socket} state={config.state}"
            )
            loop = asyncio.get_running_loop()
            house = House(
                core,
                desk,
                clock,
                warn_bytes=_WARN_OF_RESERVE * config.reserve_mib << 20,
                keep=keep(config),
                # On the loop: it makes connections from the same context.
                on_certificate=partial(loop.call_soon_threadsafe, use_certificate, listeners[1], core.site),
            )
            looking = asyncio.create_task(Confirming(core, lambda: house.started_s).run())
            stack.callback(looking.cancel)
            sessions = asyncio.create_task(run_desk(sending))
            stack.callback(sessions.cancel)
            await until_stopped(core.stopping, serving, house.turn)
        core.stopping.set()
        for one in listeners:
            one.should_exit = True
        await asyncio.gather(*serving)
    log.info("stopped")


def _warn(core: Core) -> None:
    """Say loudly what nobody should leave as it is: at each start, until it is changed."""
    if not core.rules.console_key:
        return
    with core.database.read() as connection:
        text = default_warning(connection)
    if text:
        log.warning("%s", text)
        _keep(core, partial(_alarm, core, "default console password"))


def _alarm(core: Core, what: str) -> None:
    with core.database.write() as connection:
        events.record(connection, core.act("server"), "site", what, alarm=True)


def open_core(config: ServerConfig, address: str, clock: Callable[[], float] = time.time) -> Core:
    """Open or make everything that lasts: keys, database, store. Published versions of the store are adopted."""
    state = Path(config.state)
    refuse_unfinished(state)
    site, is_new = open_site(state, clock())
    database = open_database(state / "cloner.db")
    store: Store = LocalStore(state / "store", site, reserve_bytes=config.reserve_mib << 20)
    catalog = Catalog(store)
    core = Core(
        state_directory=state,
        database=database,
        site=site,
        rules=_rules(config, site, address),
        catalog=catalog,
        verifier=Verifier(catalog),
        drivers=DriverShelf(store),
        address=address,
        tls_port=config.tls_port,
        services=_services(config),
        clock=clock,
    )
    _keep(core, partial(_begin, core, is_new=is_new))
    return core


def _keep(core: Core, write: Callable[[], None]) -> None:
    """Write what a start has to; on a full disk it is left to housekeeping, for all that needs no room is served."""
    try:
        write()
    except (DatabaseError, OSError) as fault:
        told = trouble_of(fault)
        if not isinstance(told, DiskFullError):
            raise
        log.error("%s; %s", told.message, told.hint)
        core.unkept.append(write)


def _begin(core: Core, *, is_new: bool) -> None:
    act = core.act("server")
    with core.database.write() as connection:
        timeshift.rein_in(connection, act)
        if is_new:
            events.record(connection, act, "site", "made", key=core.site.public_key.hex())
        events.record(connection, act, "site", "started", address=core.address)
        _adopt(connection, act, core.catalog.store)


def _adopt(connection: Connection, act: Act, store: Store) -> None:
    """Bring the store and what is known of it together: a kill may have come between a step in one and the other."""
    removed = images.removed_versions(connection)
    for image in store.images():
        for number in store.numbers(image):
            if (image, number) in removed:  # a kill came between our removal and the store's
                store.remove_version(image, number)
            elif not images.is_known(connection, image, number):
                _show_or_take_back(connection, act, store, image, number)


def _show_or_take_back(connection: Connection, act: Act, store: Store, image: str, number: int) -> None:
    """Show a version that is whole, unless it would have been refused: its options were changed meanwhile.

    One that cannot be read is told and left as it is: all others are served.
    """
    try:
        record = store.version(image, number)
    except (ClonerError, OSError) as fault:
        log.error("%s:%d is not shown: %s", image, number, fault)
        events.record(connection, act, f"image/{image}:{number}", "version not shown", alarm=True, why=str(fault))
        return
    try:
        publishing.show(connection, act, record)
    except ClonerError:
        store.take_back(image, number)


def _rules(config: ServerConfig, site: Site, address: str) -> Rules:
    return Rules(
        claim_life_s=config.claim_life_s,
        beat_every_s=config.beat_every_s,
        lost_s=config.lost_s,
        confirm_s=config.confirm_s,
        boot_s=config.boot_s,
        wait_s=config.multicast_wait_hours * 3600,
        attempts=config.attempts,
        accept=config.accept,
        confirm=config.confirm,
        confirm_host=address,
        confirm_port=config.http_port,
        has_agent=bool(config.installer),
        own_macs=own_macs(),
        console_key=console_key(site.vault_key) if config.console else b"",
        seed_key=blake3(site.vault_key, derive_key_context="cloner 2026 seeds of attempts").digest(),
    )


def _services(config: ServerConfig) -> tuple[str, ...]:
    parts = [f"api {config.tls_port}", f"http {config.http_port}"]
    parts += [f"tftp {config.tftp_port}"] if config.tftp_port else []
    parts += [f"dhcp {config.dhcp} on {config.interface}"] if config.dhcp != "none" else []
    parts += [f"installer {config.installer}"] if config.installer else ["no installer: no agent is offered"]
    return tuple(parts)


def _session_desk(config: ServerConfig, core: Core, supervisor: Supervisor, hub: RelayHub) -> SessionDesk:
    own = OwnOutlet(
        lambda: Wire(find_link(config), config.multicast_group, config.multicast_port),
        supervisor.start,
        supervisor.require_room,
        str(core.catalog.store.files_root),
    )
    return SessionDesk(
        database=core.database,
        shelf=ParcelShelf(core.catalog.store),
        outlet=lambda relay: hub.outlet(relay) if relay else own,
        clock=core.clock,
        query_every_s=QUERY_S if config.multicast_querier else 0.0,
    )


def _place(config: ServerConfig) -> _Network:
    if not config.interface:
        return _Network(config.address or "127.0.0.1", None)
    found = interface_network(config.interface)
    return _Network(config.address or str(found.ip), found.network)


def _boot_desk(config: ServerConfig, core: Core, place: _Network) -> tuple[BootDesk, dict[str, Path]]:
    installer, shelf = None, None
    if config.installer:
        boot = core.state_directory / "boot"
        boot.mkdir(exist_ok=True)
        installer = assemble(Path(config.installer), core.site, boot)
        log.info("installer %s needs %d MiB of memory", installer.initramfs_key, installer.memory_bytes >> 20)
        shelf = ready_shelf(Path(config.installer), core, config.reserve_mib << 20)
    # MemTotal, which nodes report, lacks already what the kernel takes for itself.
    needed_bytes = max(0, installer.memory_bytes - KERNEL_BYTES) if installer else 0
    rules = dataclasses.replace(core.rules, agent_memory_bytes=needed_bytes)
    core = dataclasses.replace(core, rules=rules, installer=installer.initramfs if installer else None, shelf=shelf)
    policy = BootPolicy(
        server_address=place.address,
        http_base=f"http://{place.address}:{config.http_port}",
        agent_memory_bytes=needed_bytes,
    )
    needs_loaders = bool(config.tftp_port) or config.dhcp != "none"
    desk = BootDesk(
        core=core,
        policy=policy,
        installer=installer,
        server_url=f"https://{place.address}:{config.tls_port}",
        network=place.network,
        kernel_arguments=config.kernel_arguments,
    )
    return desk, find_loaders(policy.offered_files) if needs_loaders else {}


def ready_shelf(directory: Path, core: Core, reserve_bytes: int = 0) -> Shelf:
    """Return the installers that were made from nodes, each put together with the userland in `directory`."""
    shelf = open_shelf(directory, core.site, core.state_directory, reserve_bytes)
    with core.database.read() as connection:
        builds = installers.kept_builds(connection)
    shelf.ready(builds)
    return shelf


async def _start_netboot(
    config: ServerConfig, place: _Network, desk: BootDesk, loaders: dict[str, Path], stack: contextlib.AsyncExitStack
) -> None:
    if config.tftp_port:
        files = tftp_files(desk.policy, loaders)
        tftp = TftpService(
            files,
            desk.emit,
            dynamic=GrubFiles(desk),
            address=place.address,
            port=config.tftp_port,
            interface=config.interface,
        )
        tftp.start()
        stack.callback(tftp.stop)
    if config.dhcp == "none" or place.network is None:
        return
    is_proxy = config.dhcp == "proxy"
    settings = DhcpConfig(
        server_address=ipaddress.IPv4Address(place.address),
        network=place.network,
        pool=None if is_proxy else Pool(*pool(config)),
        mode=Mode.PROXY if is_proxy else Mode.AUTHORITATIVE,
        router=ipaddress.IPv4Address(config.router) if config.router else None,
    )
    leases = SqlLeases(desk.core.database)
    dhcp = DhcpService(config.interface, DhcpServer(settings, leases), desk, desk.emit, clock=desk.core.clock)
    await dhcp.start(beside_another=config.beside_another_dhcp)
    stack.push_async_callback(dhcp.stop)
    router = RouterService(config.interface)
    router.start()
    stack.callback(router.stop)


def _stop_on_signals(core: Core) -> None:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, core.stopping.set)


async def _all_started(listeners: list[Listener], serving: list[asyncio.Task[None]]) -> bool:
    while not all(one.started for one in listeners):
        if any(task.done() for task in serving):
            return False
        await asyncio.sleep(0.02)
    return True


async def until_stopped(
    stopping: asyncio.Event,
    serving: list[asyncio.Task[None]],
    keep_house: Callable[[], None],
    *,
    turn_s: float = _TURN_S,
) -> None:
    """Call `keep_house` every `turn_s` seconds until told to stop, or until one that serves has ended.

    A turn that fails (the disk of the database is full) is logged and tried again: what can still be served is.
    """
    while not stopping.is_set() and not any(task.done() for task in serving):
        wait_s = turn_s
        try:
            await asyncio.to_thread(keep_house)
        except Exception as error:  # noqa: BLE001 — deploys that run must not end over our book-keeping
            log.error("housekeeping failed and is tried again: %s", error)
            wait_s = _FAILED_TURNS * turn_s
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), wait_s)
