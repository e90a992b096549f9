"""Messages and datagrams: what is sealed is read as meant, and whatever else arrives is dropped and counted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError, RefusedError
from cloner_core.multicast.content import Content
from cloner_core.multicast.sealing import Opener, ReportOpener, ReportSealer, Sealer
from cloner_core.multicast.session import Parcel, Session, choose_version, group_key, receiver_key
from cloner_core.multicast.wire import (
    BURST_MOST,
    LEAVINGS_MOST,
    OVERHEAD_BYTES,
    POLLS_MOST,
    PROOF_BYTES,
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
    is_strict=st.booleans(),
)
reports = st.builds(
    Report,
    receiver=u32,
    counter=u32,
    clock_ms=u32,
    acked=u32,
    flags=st.integers(0, 7).map(Flag),
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
    opener = Opener(KEY, STREAM)
    assert opener.open(data, SEGMENT) == [run]
    for lost in range(run.count):
        left = data[: lost * SEGMENT] + data[(lost + 1) * SEGMENT :]
        seen = opener.open(left, SEGMENT)
        assert sum(one.count for one in seen if isinstance(one, Run)) == run.count - 1
        assert b"".join(one.payload for one in seen if isinstance(one, Run)) == (
            bytes(run.payload[: lost * BLOCK]) + bytes(run.payload[(lost + 1) * BLOCK :])
        )
    assert opener.rejects.forged == opener.rejects.foreign == opener.rejects.malformed == 0


STRICT = Sync(0, 5, Phase.SENDING, 10, 1, is_strict=True)


@given(runs(), st.booleans(), st.data())
def test_no_changed_bit_is_accepted_of_a_head_and_where_there_are_tags_of_anything(
    run: Run, is_strict: bool, data: st.DataObject
) -> None:
    sealer, opener = Sealer(KEY, STREAM, BLOCK), Opener(KEY, STREAM)
    if is_strict:
        assert opener.open(sealer.seal(STRICT), 1472) == [STRICT]
    sealed = bytearray(sealer.seal(run))
    datagram = data.draw(st.integers(0, run.count - 1)) * SEGMENT
    most = min(SEGMENT, len(sealed) - datagram) if is_strict else OVERHEAD_BYTES
    sealed[datagram + data.draw(st.integers(0, most - 1))] ^= 1 << data.draw(st.integers(0, 7))
    seen = opener.open(bytes(sealed), SEGMENT)
    assert sum(one.count for one in seen if isinstance(one, Run)) == run.count - 1
    assert opener.rejects.forged + opener.rejects.foreign == 1


@given(runs())
def test_once_strict_nothing_without_a_tag_is_opened(run: Run) -> None:
    sealer, opener = Sealer(KEY, STREAM, BLOCK), Opener(KEY, STREAM)
    before = sealer.seal(run)
    assert opener.open(before, SEGMENT) == [run]
    opener.open(sealer.seal(STRICT), 1472)
    assert opener.open(sealer.seal(run), SEGMENT) == [run]
    assert opener.open(before, SEGMENT) == []
    assert opener.rejects.forged == run.count
    mild = Sealer(KEY, STREAM, BLOCK).seal(Sync(1, 6, Phase.SENDING, 10, 1))
    assert len(opener.open(mild, 1472)) == 1, "one that was delayed, or said again"
    assert opener.open(before, SEGMENT) == []


def test_content_is_hidden_and_comes_back() -> None:
    content, data = Content(KEY), bytes(1000)
    hidden = [bytes(content.encrypted(parcel, data)) for parcel in (0, 1)]
    assert len({*hidden, data, bytes(Content(bytes(16)).encrypted(0, data))}) == 4
    assert content.encrypted(1, hidden[1]) == data


@given(st.binary(max_size=200), st.integers(1, 100))
def test_garbage_is_counted_and_dropped(junk: bytes, segment: int) -> None:
    opener = Opener(KEY, STREAM)
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
    opener = Opener(KEY, STREAM)
    assert opener.open(data, SEGMENT) == [blocks, *others[:-1]]
    assert opener.open(sealer.seal(others[-1]), 1472) == [others[-1]]


def test_an_epoch_opens_nothing_of_another() -> None:
    run = Run(Kind.BLOCKS, 0, 0, 2, 1, bytes(2 * BLOCK))
    for key, stream in ((KEY, STREAM + 1), (bytes(16), STREAM)):
        opener = Opener(KEY, STREAM)
        assert opener.open(Sealer(key, stream, BLOCK).seal(run), SEGMENT) == []
        assert opener.rejects.foreign + opener.rejects.forged == 2
    newer = bytearray(Sealer(KEY, STREAM, BLOCK).seal(run))
    newer[PROOF_BYTES] = newer[PROOF_BYTES + SEGMENT] = 3
    assert Opener(KEY, STREAM).open(bytes(newer), SEGMENT) == []


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
    """The document says so: a proof, then version, kind, index, stream, sequence, subject, then what is carried."""
    data = Sealer(KEY, 0x01020304, BLOCK).seal(Run(Kind.BLOCKS, 0x0A0B0C0D, 0x0506, 1, 0x11121314, b"block"))
    assert data[:PROOF_BYTES].hex() == "cc6ce8fe7e1974eb879398a170e5e2d1"
    assert data[PROOF_BYTES:OVERHEAD_BYTES].hex() == "0201050601020304111213140a0b0c0d"
    assert data[OVERHEAD_BYTES:] == b"block"
    sealer = Sealer(KEY, 0x01020304, BLOCK)
    assert (
        sealer.seal(STRICT).hex()
        == "3d066098b06cefd122b40668a3e0aa5402030000010203040000000000000000680e556f0e268fcc41d46eb7e8318c1ee3"
    )
    tagged = sealer.seal(Run(Kind.BLOCKS, 0x0A0B0C0D, 0x0506, 1, 0x11121314, b"block"))
    assert tagged[:PROOF_BYTES].hex() == "04a48882c51d38e7eb22c9b0feb0e0af"
    assert tagged[PROOF_BYTES:].hex() == "0281050601020304111213140a0b0c0d" + b"block".hex()
    assert bytes(Content(KEY).encrypted(7, b"block")).hex() == "deda20fe1e"
    assert receiver_key(bytes(32), 1).hex() == "1d5e57b0be8d4ca4c84fd52aa82a587e"
    assert BURST_MOST * 1472 <= 65507


def test_a_session_says_every_fault() -> None:
    with pytest.raises(InvalidError) as refused:
        Session(1 << 32, (Parcel(bytes(32), 0),), window_parcels=1)
    assert len(refused.value.faults) == 3


def test_versions_are_negotiated() -> None:
    assert choose_version((3, 2)) == 2
    with pytest.raises(RefusedError, match=r"speaks versions \[1, 3\]"):
        choose_version((3, 1))
