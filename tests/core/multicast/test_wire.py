"""Messages and datagrams: what is sealed is read as meant, and whatever else arrives is dropped and counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError, RefusedError
from cloner_core.multicast.sealing import Opener, ReportOpener, ReportSealer, Sealer
from cloner_core.multicast.session import Parcel, Session, choose_version, group_key, receiver_key
from cloner_core.multicast.wire import (
    BURST_MOST,
    HEADER,
    LEAVINGS_MOST,
    OVERHEAD_BYTES,
    POLLS_MOST,
    RANGES_MOST,
    REPAIRS_MOST,
    Flag,
    Kind,
    Phase,
    Report,
    Run,
    Sync,
    decode_report,
    decode_sync,
    encode_report,
    encode_sync,
)

KEY, STREAM, BLOCK = bytes(range(16)), 7, 32
SEGMENT = BLOCK + OVERHEAD_BYTES

u8, u16, u32 = (st.integers(0, (1 << bits) - 1) for bits in (8, 16, 32))
ranges = st.lists(st.tuples(u32, u32), max_size=RANGES_MOST).map(tuple)
syncs = st.builds(
    Sync,
    sequence=u32,
    clock_ms=u32,
    phase=st.sampled_from(Phase),
    backoff_ms=u16,
    crowd=u32,
    repairs=st.lists(st.tuples(u32, u16, u16), max_size=REPAIRS_MOST).map(tuple),
    plan=ranges,
    polls=st.lists(st.tuples(u32, u16), max_size=POLLS_MOST).map(tuple),
    leavings=st.lists(st.tuples(u32, u8), max_size=LEAVINGS_MOST).map(tuple),
    room=u8,
)
reports = st.builds(
    Report,
    receiver=u32,
    counter=u32,
    clock_ms=u32,
    acked=u32,
    flags=st.integers(0, 3).map(Flag),
    loss=u16.map(lambda part: part / 0xFFFF),
    room=u16,
    done=u32,
    needs=st.lists(st.tuples(u32, u16), max_size=REPAIRS_MOST).map(tuple),
    wants=ranges,
)


@st.composite
def runs(draw: st.DrawFn) -> Run:
    count = draw(st.integers(1, 5))
    kind = draw(st.sampled_from((Kind.BLOCKS, Kind.COMBINATIONS)))
    last = draw(st.integers(1, BLOCK)) if kind == Kind.BLOCKS else BLOCK
    first = draw(st.integers(0, 0xFFFF - count))
    sequence = draw(st.integers(0, 0xFFFFFFFF - count))
    payload = draw(st.binary(min_size=(count - 1) * BLOCK + last, max_size=(count - 1) * BLOCK + last))
    return Run(kind, draw(u32), first, count, sequence, payload)


@given(syncs)
def test_a_sync_is_read_as_it_was_written(sync: Sync) -> None:
    payload = encode_sync(sync)
    assert decode_sync(payload, sync.sequence) == sync
    assert len(payload) + OVERHEAD_BYTES <= 1472
    assert decode_sync(payload + b"\0", 0) is None
    assert decode_sync(payload[:-1], 0) is None


@given(reports)
def test_a_report_is_read_as_it_was_written(report: Report) -> None:
    payload = encode_report(report)
    assert decode_report(payload, report.receiver, report.counter) == report
    assert len(payload) + OVERHEAD_BYTES <= 1472
    sealed = ReportSealer(KEY, STREAM).seal(report)
    assert ReportOpener(lambda _: KEY, STREAM).open(sealed) == report


@given(st.binary(max_size=1500))
def test_whatever_the_bytes_a_decoder_says_a_message_or_nothing(junk: bytes) -> None:
    for message in (decode_sync(junk, 1), decode_report(junk, 1, 1)):
        if isinstance(message, Sync):
            assert encode_sync(message) == junk
        elif message is not None:
            assert encode_report(message) == junk


@given(runs())
def test_a_run_is_opened_as_it_was_sealed_and_in_parts_where_a_datagram_is_missing(run: Run) -> None:
    data = bytes(Sealer(KEY, STREAM, BLOCK).seal(run))
    opener = Opener(KEY, STREAM, BLOCK)
    assert opener.open(data, SEGMENT) == [run]
    for lost in range(run.count):
        left = data[: lost * SEGMENT] + data[(lost + 1) * SEGMENT :]
        seen = opener.open(left, SEGMENT)
        assert sum(one.count for one in seen if isinstance(one, Run)) == run.count - 1
        assert b"".join(one.payload for one in seen if isinstance(one, Run)) == (
            run.payload[: lost * BLOCK] + run.payload[(lost + 1) * BLOCK :]
        )
    assert opener.rejects.forged == opener.rejects.foreign == opener.rejects.malformed == 0


@given(runs(), st.data())
def test_no_changed_bit_is_accepted(run: Run, data: st.DataObject) -> None:
    sealed = bytearray(Sealer(KEY, STREAM, BLOCK).seal(run))
    at = data.draw(st.integers(0, len(sealed) - 1))
    sealed[at] ^= 1 << data.draw(st.integers(0, 7))
    opener = Opener(KEY, STREAM, BLOCK)
    seen = opener.open(bytes(sealed), SEGMENT)
    assert sum(one.count for one in seen if isinstance(one, Run)) == run.count - 1
    assert opener.rejects.forged + opener.rejects.foreign == 1


@given(st.binary(max_size=200), st.integers(1, 100))
def test_garbage_is_counted_and_dropped(junk: bytes, segment: int) -> None:
    opener = Opener(KEY, STREAM, BLOCK)
    assert opener.open(junk, segment) == []
    rejects = opener.rejects
    assert rejects.foreign + rejects.forged == -(-len(junk) // segment)
    reporting = ReportOpener(lambda _: KEY, STREAM)
    assert reporting.open(junk) is None
    assert reporting.rejects.foreign + reporting.rejects.forged == 1


def test_runs_of_one_read_are_told_apart() -> None:
    sealer = Sealer(KEY, STREAM, BLOCK)
    blocks = Run(Kind.BLOCKS, 3, 10, 2, 100, bytes(2 * BLOCK))
    others = (
        Run(Kind.BLOCKS, 3, 12, 1, 103, bytes(BLOCK)),  # a datagram between was lost
        Run(Kind.BLOCKS, 4, 13, 1, 104, bytes(BLOCK)),  # another parcel
        Run(Kind.COMBINATIONS, 4, 14, 1, 105, bytes(BLOCK)),
        Sync(106, 5, Phase.SENDING, 10, 1),
    )
    data = b"".join(bytes(sealer.seal(one)) for one in (blocks, *others[:-1]))
    opener = Opener(KEY, STREAM, BLOCK)
    assert opener.open(data, SEGMENT) == [blocks, *others[:-1]]
    assert opener.open(sealer.seal(others[-1]), 1472) == [others[-1]]


def test_an_epoch_opens_nothing_of_another() -> None:
    run = Run(Kind.BLOCKS, 0, 0, 2, 1, bytes(2 * BLOCK))
    for key, stream in ((KEY, STREAM + 1), (bytes(16), STREAM)):
        opener = Opener(KEY, STREAM, BLOCK)
        assert opener.open(Sealer(key, stream, BLOCK).seal(run), SEGMENT) == []
        assert opener.rejects.foreign + opener.rejects.forged == 2
    newer = bytearray(Sealer(KEY, STREAM, BLOCK).seal(run))
    newer[0] = newer[SEGMENT] = 2
    assert Opener(KEY, STREAM, BLOCK).open(bytes(newer), SEGMENT) == []


def test_a_receiver_cannot_speak_for_another() -> None:
    master = bytes(32)
    keys = {number: receiver_key(master, number) for number in (1, 2)}
    opener = ReportOpener(keys.get, STREAM)
    report = Report(2, 1, 0, 0, Flag(0), 0.0, 1, 0)
    assert opener.open(ReportSealer(keys[1], STREAM).seal(report)) is None
    assert opener.open(ReportSealer(group_key(master), STREAM).seal(report)) is None
    assert opener.rejects.forged == 2
    assert opener.open(ReportSealer(keys[2], STREAM).seal(report)) == report
    unknown = ReportSealer(keys[2], STREAM).seal(Report(3, 1, 0, 0, Flag(0), 0.0, 1, 0))
    assert opener.open(unknown) is None
    assert len({*keys.values(), group_key(master)}) == 3


def test_the_bytes_of_a_datagram_do_not_change() -> None:
    """The document says so: version, kind, index, stream, sequence, subject; then what AES-GCM makes of the rest."""
    data = Sealer(KEY, 0x01020304, BLOCK).seal(Run(Kind.BLOCKS, 0x0A0B0C0D, 0x0506, 1, 0x11121314, b"block"))
    assert data[: HEADER.size].hex() == "0101050601020304111213140a0b0c0d"
    assert data[HEADER.size :].hex() == "c7a0e314d846e8e23611b3cd81ceed5bd9672d762b"
    assert receiver_key(bytes(32), 1).hex() == "84eb166fb2ba9ed2a0b8f967b1b5cae5"
    assert BURST_MOST * 1472 <= 65507


def test_a_session_says_every_fault() -> None:
    with pytest.raises(InvalidError) as refused:
        Session(1 << 32, (Parcel(bytes(32), 0),), window_parcels=1)
    assert len(refused.value.faults) == 3


def test_versions_are_negotiated() -> None:
    assert choose_version((3, 1)) == 1
    with pytest.raises(RefusedError, match=r"speaks versions \[2, 3\]"):
        choose_version((3, 2))
