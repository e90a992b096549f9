"""`cloner receipt`: the signed records of what tasks did."""

from __future__ import annotations

import re
from pathlib import Path

import click
import msgspec

from cloner_cli.api import segment
from cloner_cli.commands import FilePath, Group, command
from cloner_cli.documents import read_document
from cloner_cli.invocation import Invocation
from cloner_cli.text import duration, fields, moment
from cloner_core.admin.tasks import ReceiptView
from cloner_core.decoding import UNREADABLE
from cloner_core.erasing.words import EraseReceipt, erase_statement
from cloner_core.errors import IntegrityError, InvalidError
from cloner_core.messages import Receipt, receipt_statement
from cloner_core.scripts import ScriptRun
from cloner_core.sizes import format_bytes

_KEY = re.compile(r"[0-9a-f]{64}")


@click.group("receipt", cls=Group)
def receipt_command() -> None:
    """Signed records of what was done to a node."""


@command("show", example="cloner receipt show node01 --json > node01-receipt.json", group=receipt_command)
@click.argument("key", metavar="NODE|TASK")
def receipt_show(run: Invocation, key: str) -> None:
    """Show the newest receipt of a node or a task."""
    view = run.api.get(f"/v1/receipts/{segment(key)}", ReceiptView)
    run.result(view, lambda: receipt_fields(view))


@command("verify", example="cloner receipt verify --file node01-receipt.json --key 3f0c…", group=receipt_command)
@click.argument("key", metavar="[NODE|TASK]", required=False)
@click.option("--file", "-f", "path", type=FilePath(), help="A receipt kept as JSON; - is stdin.")
@click.option("--key", "server_key", metavar="HEX", help="The server's public key, known from elsewhere.")
def receipt_verify(run: Invocation, key: str | None, *, path: Path | None, server_key: str | None) -> None:
    """Verify the signature of a receipt; exit status 7 when it does not hold.

    Without --key, the key is the one the running server names now: a file is then checked against the server, never
    against the key it carries itself.
    """
    if (key is None) == (path is None):
        raise click.UsageError("want either NODE|TASK or --file")
    if server_key is not None and not _KEY.fullmatch(server_key):
        raise click.UsageError(f"'{server_key}' is not a public key: want 64 hexadecimal digits")
    if path is not None:
        view = _read(path)
        trusted = server_key or _current_key(run, view)
    else:
        view = run.api.get(f"/v1/receipts/{segment(key or '')}", ReceiptView)
        trusted = server_key or view.server_key
    verify(view.receipt, trusted)
    told = {"verified": True, "task": view.receipt.body.task_id, "node": view.receipt.body.node, "server_key": trusted}
    text = f"the receipt of task {view.receipt.body.task_id} on {view.receipt.body.node} is signed by {trusted}"
    run.result(told, lambda: text)


def verify(receipt: Receipt | EraseReceipt, server_key: str) -> None:
    """Raise IntegrityError unless the holder of `server_key` (hex) signed `receipt`."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        signature = bytes.fromhex(receipt.signature)
        statement = statement_of(receipt)
        Ed25519PublicKey.from_public_bytes(bytes.fromhex(server_key)).verify(signature, statement)
    except (InvalidSignature, ValueError) as fault:
        body = receipt.body
        raise IntegrityError(
            f"the receipt of task {body.task_id} on {body.node} is not signed by the key {server_key}",
            hint="it was altered, or another server signed it",
        ) from fault


def statement_of(receipt: Receipt | EraseReceipt) -> bytes:
    """Return what the signature of `receipt` covers."""
    if isinstance(receipt, EraseReceipt):
        return erase_statement(receipt.body, receipt.accepted_s)
    return receipt_statement(receipt.body, receipt.accepted_s)


def receipt_fields(view: ReceiptView) -> str:
    """Return a receipt as text."""
    receipt = view.receipt
    return _erase_fields(view, receipt) if isinstance(receipt, EraseReceipt) else _deploy_fields(view, receipt)


def _erase_fields(view: ReceiptView, receipt: EraseReceipt) -> str:
    body = receipt.body
    shown: list[tuple[str, object]] = [
        ("node", body.node),
        ("task", f"{body.task_id}, attempt {body.attempt_id}"),
        ("accepted", moment(receipt.accepted_s)),
        ("plan", body.plan_digest),
    ]
    for disk in body.disks:
        serial = f"serial {disk.serial or 'none'}, WWN {disk.wwn or 'none'}"
        named = f"{disk.path} ({disk.model} {serial}, {format_bytes(disk.size_bytes)})"
        read = f"read back {format_bytes(disk.bytes_read)} in {disk.places} places ({disk.checked})"
        lines = (named, f"by {disk.way} in {duration(disk.seconds)}", read, *disk.evidence)
        shown.append((disk.result, "\n".join(lines)))
    shown += [("left", one) for one in body.left]
    shown.append(("stages", ", ".join(f"{each.stage} {duration(each.seconds)}" for each in body.stages)))
    shown += [("note", note) for note in body.notes]
    return fields([*shown, ("signature", receipt.signature), ("server key", view.server_key)])


def _deploy_fields(view: ReceiptView, receipt: Receipt) -> str:
    body = receipt.body
    if receipt.confirmed_s is not None:
        confirmed = f"{moment(receipt.confirmed_s)} by {receipt.confirmed_by or 'phone-home'}"
    else:
        confirmed = "not asked for" if receipt.confirmed_by == "none" else "not yet"
    stages = ", ".join(f"{each.stage} {duration(each.seconds)}" for each in body.stages)
    rates = ", ".join(f"{each.moved} {each.mb_per_s:.1f} MB/s" for each in body.rates or ())
    shown: list[tuple[str, object]] = [
        ("node", body.node),
        ("task", f"{body.task_id}, attempt {body.attempt_id}"),
        ("accepted", moment(receipt.accepted_s)),
        ("confirmed", confirmed),
        ("version", body.version_digest),
        ("layout", body.layout),
        ("plan", body.plan_digest),
        *(("disk", f"{d.path} ({d.model} serial {d.serial}, {format_bytes(d.size_bytes)})") for d in body.disks),
        ("restored", f"{body.files} files, {format_bytes(body.bytes_restored)} from {body.packs} packs"),
        ("packs", f"all verified, digest of their list {body.packs_digest}" if body.packs_digest else ""),
        ("read back", format_bytes(body.bytes_read_back)),
        ("machine-id", body.machine_id),
        ("host keys", "\n".join(body.host_key_fingerprints)),
        ("root partition", body.root_part_uuid),
        ("identity", "\n".join(body.identity)),
        ("rewritten", "\n".join(body.rewritten)),
        ("boot before", "\n".join(body.nvram_before)),
        ("boot after", "\n".join(body.nvram_after)),
        ("stages", stages),
        ("rates", rates),
        *(("script", _script(run)) for run in body.scripts or ()),
        *(("note", note) for note in body.notes),
        ("signature", receipt.signature),
        ("server key", view.server_key),
    ]
    return fields(shown)


def _script(run: ScriptRun) -> str:
    how = "failed" if run.status < 0 else f"status {run.status}"
    return f"{run.type} {run.name}: {how}, {duration(run.seconds)}, digest {run.digest}"


def _read(path: Path) -> ReceiptView:
    try:
        document = read_document(path)
        if isinstance(document, dict) and isinstance(document.get("receipt"), dict):
            document["receipt"].setdefault("kind", "deploy")  # kept before there were others
        return msgspec.convert(document, ReceiptView)
    except UNREADABLE as fault:
        raise InvalidError(
            f"{path} does not hold a receipt: {fault}", hint="cloner receipt show NODE --json"
        ) from fault


def _current_key(run: Invocation, view: ReceiptView) -> str:
    return run.api.get(f"/v1/receipts/{segment(view.receipt.body.task_id)}", ReceiptView).server_key
