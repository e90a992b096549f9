"""`./run soak NAME --count N --seed S`, `./run soak --list`."""

from __future__ import annotations

import argparse
import importlib
import logging
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from cloner_core.errors import ClonerError, ExitStatus, NotFoundError
from soak.book import Book, Heading
from soak.evidence import make_evidence, this_commit, write_evidence
from soak.law import Law
from soak.place import held_place
from soak.runner import run

CHECKOUT = Path(__file__).parents[2]
LAWS = (
    "pack-orders",
    "trees",
    "restore-million",
    "store-kill",
    "capture-kill",
    "flipped-bytes",
    "hostile-images",
    "store-beside",
    "server-kill",
    "server-full",
    "claim-race",
    "lost-updates",
    "wrong-requests",
    "fleet",
    "tftp-names",
    "tree-codec",
    "multicast-sim",
    "multicast-net",
    "multicast-crowd",
    "power-cut",
    "power-cut-nvram",
    "disk-errors",
    "layouts",
    "disks",
    "golden-machine",
    "disk-orders",
    "power-cut-apply",
    "power-cut-bios",
)


def find_law(name: str) -> Law:
    """Return the law `name`; raises NotFoundError."""
    if name not in LAWS:
        raise NotFoundError(f"there is no soak {name}", hint=f"there are {', '.join(LAWS)}")
    law: Law = importlib.import_module(f"soak.laws.{name.replace('-', '_')}").LAW
    return law


def soak(law: Law, count: int, seed: int) -> bool:
    """Run `count` cases from `seed` on and write the evidence; return whether the law held in all of them."""
    cache = CHECKOUT / ".cache" / "soak"
    heading = Heading(law.name, this_commit(CHECKOUT), seed, count)
    # A short run, to see one seed again, replaces neither the evidence nor the book of a long one under way.
    is_short = count < law.count
    book = Book(cache / f"{law.name}{'-short' if is_short else ''}.jsonl", heading)
    with held_place(cache / f"{law.name}-work") as work:
        entries = run(law, book, work, _tell)
    evidence = make_evidence(law, heading, entries)
    path = cache / f"{law.name}.json" if is_short else CHECKOUT / "docs" / "evidence" / f"{law.name}.json"
    write_evidence(path, evidence)
    book.close()
    shown = path.relative_to(CHECKOUT)
    _tell(f"{law.name}: held in {evidence.passed} of {count} cases, {evidence.seconds:.0f} s: {shown}")
    if evidence.too_little:
        _tell(f"{law.name}: has not held, too little was tried: {evidence.too_little}")
    return evidence.has_held


def tell_so_far(law: Law) -> None:
    """Write evidence of the cases that a soak under way, or one that was stopped, has tried; it can still go on."""
    cache = CHECKOUT / ".cache" / "soak"
    book = Book.open(cache / f"{law.name}.jsonl")
    entries = sorted(book.entries(), key=lambda entry: entry.seed)
    evidence = make_evidence(law, book.heading, entries)
    path = CHECKOUT / "docs" / "evidence" / f"{law.name}.json"
    write_evidence(path, evidence)
    shown = path.relative_to(CHECKOUT)
    _tell(f"{law.name}: held in {evidence.passed} of {len(entries)} cases, {evidence.count} to be tried: {shown}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0 when the law held, 1 when it did not, else that of the error."""
    parser = argparse.ArgumentParser(prog="./run soak", description=__doc__)
    parser.add_argument("name", nargs="?", metavar="NAME", help="the law to hold")
    parser.add_argument("--count", type=_count, metavar="N", help="how many cases (default: what makes evidence)")
    parser.add_argument(
        "--seed", type=int, default=1, metavar="S", help="of the first case; the next has S + 1 (%(default)s)"
    )
    parser.add_argument(
        "--so-far", action="store_true", help="try nothing; write evidence of what a soak that was stopped has tried"
    )
    parser.add_argument("--list", action="store_true", help="show the laws")
    asked = parser.parse_args(arguments)
    if asked.list or not asked.name:
        for law in map(find_law, LAWS):
            print(f"{law.name:16} {law.count:6}  {law.says}")
        return ExitStatus.OK if asked.list else ExitStatus.USAGE
    # The end of a soak takes its mounts away; a signal must not go past that.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.getLogger().addHandler(logging.NullHandler())  # thousands of refusals are what the laws are about
    try:
        law = find_law(asked.name)
        if asked.so_far:
            tell_so_far(law)
            return ExitStatus.OK
        return ExitStatus.OK if soak(law, asked.count or law.count, asked.seed) else ExitStatus.FAILED
    except ClonerError as error:
        print(f"soak: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("soak: interrupted; the same command goes on at the next case", file=sys.stderr)
        return ExitStatus.INTERRUPTED


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return value


def _tell(text: str) -> None:
    print(f"soak: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
