"""Files that list nodes: what each format says, every fault with its line, no bytes that crash."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloner_cli.nodefiles import FORMATS, read_nodes
from cloner_cli.nodefiles.records import NodeRecord
from cloner_core.errors import InvalidError

FILES = Path(__file__).parent / "nodefiles"


def read(name: str, form: str = "", **more: int) -> dict[str, NodeRecord]:
    return {record.name: record for record in read_nodes((FILES / name).read_bytes(), form, **more).records}


def faults(text: str | bytes, form: str = "", **more: int) -> str:
    with pytest.raises(InvalidError) as caught:
        read_nodes(text.encode() if isinstance(text, str) else text, form, **more)
    return str(caught.value)


def test_our_own_csv_says_every_field() -> None:
    nodes = read("nodes.csv")
    assert nodes["n01"] == NodeRecord(
        line=3,
        name="n01",
        macs=("52:54:00:00:00:01",),
        hostname="n01.example.org",
        addresses=("10.1.0.11/24",),
        gateway="10.1.0.1",
        dns=("10.1.0.1", "10.1.0.2"),
        domains=("example.org",),
        groups=("rack1", "gpu"),
        image="golden:1",
        layout="simple",
        kernel_arguments=("console=ttyS1", "quiet"),
    )
    assert nodes["n02"] == NodeRecord(
        4, "n02", ("52:54:00:00:00:02", "52:54:00:00:00:12"), groups=("rack1",), is_protected=True
    )
    assert nodes["n03"].macs == ("52:54:00:00:00:03",)


def test_columns_come_in_any_order_with_any_separator_and_a_mark_of_spreadsheets() -> None:
    found = read_nodes("\ufeffMAC;Name;Address\r\n525400000001;n01;10.1.0.5\r\n".encode(), prefix_length=24)
    assert found.records == (NodeRecord(2, "n01", ("52:54:00:00:00:01",), addresses=("10.1.0.5/24",)),)
    assert read_nodes(b"name\tmac\nn01\t525400000001\n").records[0].name == "n01"


def test_a_row_after_a_cell_of_two_lines_has_the_right_number() -> None:
    text = 'name,mac,groups\nn01,525400000001,"a\nb"\nn02,zz,\n'
    assert "line 4: n02: 'zz'" in faults(text)


def test_stanzas_of_xcat_say_macs_groups_and_addresses_by_their_networks() -> None:
    nodes = read("lsdef.stanza")
    assert nodes["cn01"] == NodeRecord(
        32, "cn01", ("42:61:6e:6f:00:01",), addresses=("10.1.1.1/16",), groups=("compute", "rack1", "all")
    )
    assert nodes["cn02"].macs == ("42:61:6e:6f:00:02", "42:61:6e:6f:10:02", "42:61:6e:6f:20:02")
    assert (nodes["gw"].addresses, nodes["gw"].gateway) == (("192.168.7.5/24",), "192.168.7.1")
    assert nodes["gw"].groups == ("service",)  # __mgmtnode is xCAT's own
    assert (nodes["cn03"].groups, nodes["cn03"].addresses) == (("compute", "all"), None)  # of default-node
    assert "sw01" not in nodes


def test_what_is_left_out_of_xcat_is_told_and_no_password_with_it() -> None:
    notes = "\n".join(read_nodes((FILES / "lsdef.stanza").read_bytes()).notes)
    for word in ("sw01", "provmethod", "--image", "netboot", "bmcpassword"):
        assert word in notes
    assert "PASSW0RD" not in notes


def test_an_address_of_xcat_without_its_network_wants_a_prefix_length() -> None:
    text = "n01:\n  objtype=node\n  mac=525400000001\n  ip=10.9.0.1\n"
    assert "line 1: n01: 10.9.0.1 has no prefix length" in faults(text)
    assert read_nodes(text.encode(), prefix_length=24).records[0].addresses == ("10.9.0.1/24",)


@pytest.mark.parametrize("name", ["fog-1.6.csv", "fog-1.5.csv"])
def test_exports_of_fog_are_read_with_and_without_a_first_row_of_names(name: str) -> None:
    nodes = read(name)
    assert nodes["pc-lab-01"].macs == ("00:11:22:33:44:55", "00:11:22:33:44:66")
    assert nodes["pc-lab-02"].macs == ("00:11:22:33:44:77",)
    assert nodes["pc-lab-01"].addresses is None


def test_groups_of_fog_come_from_the_associations() -> None:
    found = read_nodes((FILES / "fog-1.6.csv").read_bytes())
    assert [record.groups for record in found.records] == [("Lab-A", "Lab-B"), ("all",)]
    notes = "\n".join(found.notes)
    for word in ("'Lab A' is called 'Lab-A'", "snapins", "printers", "--image", "ip is the address FOG saw last"):
        assert word in notes
    assert "joiner" not in notes


def test_a_backslash_takes_the_meaning_of_a_sign_in_fogs_associations() -> None:
    text = "primac,name,associations\n001122334455,a,groups:A \\| B|C\\;D\n"
    assert read_nodes(text.encode()).records[0].groups == ("A-B", "C-D")


def test_fogs_columns_beyond_its_own_are_taken_by_place() -> None:
    row = ["001122334455", "PC", *[""] * 29, "groups:x"]
    assert read_nodes(",".join(row).encode()).records[0].groups == ("x",)


def test_every_fault_is_told_with_its_line() -> None:
    text = (
        "name,mac,address,protected\n"
        "n01,525400000001,10.1.0.5,\n"
        "n02,nonsense,10.1.0.300/24,maybe\n"
        ",525400000003,,\n"
        "n04,,,\n"
        "n01,525400000001,,\n"
        "n05,525400000005,,,,\n"
    )
    told = faults(text)
    for word in (
        "line 2: n01: 10.1.0.5 has no prefix length",
        "line 3: n02: 'nonsense' is not a MAC address",
        "line 3: n02: '10.1.0.300/24' is not an IP address",
        "line 3: n02: protected is 'maybe'",
        "line 4: a node: it has no name",
        "line 5: n04: it has no MAC address",
        "line 6: n01: the name n01 is also that of n01 in line 2",
        "line 6: n01: the MAC 52:54:00:00:00:01 is also that of n01 in line 2",
        "line 7: n05: 6 cells, and 4 columns are named",
    ):
        assert word in told


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "neither Cloner's CSV"),
        ("hostname,colour\nn01,red\n", "--format"),
        ("name,mac,colour\nn01,525400000001,red\n", "no column 'colour'; there are: name, mac"),
        ("name,mac,MAC\n", "'mac' comes twice"),
        ("name,mac\n", "names no node"),
        ('name,mac\nn01,"5254', "line 2"),
        (b"name,mac\nn\xff1,525400000001\n", "line 2: the file is not UTF-8"),
        ("name,mac\nn\0,525400000001\n", "line 2: the file is not text"),
        ("n01:\n  objtype=node\n  mac=zz\n", "line 1: n01: 'zz' is not a MAC"),
        ("n01:\n  objtype=node\n", "line 1: n01: it has no MAC address"),
        ("mac=1\nn01:\n  objtype=node\n  mac=525400000001\n  what\n", "line 1: neither"),
        ("n01:\n  mac=525400000001\nn02:\n  objtype=node\n  mac=525400000002\n", "line 1: n01: it has no objtype"),
        ("w:\n  objtype=network\n  net=1.2.3\n  mask=x\n", "line 1: the network w cannot be read"),
        ("525400000001|zz,PC\n", "line 1: PC: 'zz'"),
        ("primac,name\n525400000001,\n", "line 2: a host: it has no name"),
    ],
)
def test_what_cannot_be_read_is_refused_with_a_reason(text: str | bytes, told: str) -> None:
    assert told in faults(text)


def test_a_format_that_is_named_is_believed() -> None:
    assert "the column 'name' is missing" in faults("a,b\n1,2\n", "csv")
    assert "'a' is not a MAC" in faults("a,b\n", "fog")
    assert "line 1: neither" in faults("name,mac\n", "xcat")


_PIECES = st.sampled_from(
    [
        "name,mac\n",
        "primac,name,associations\n",
        "n01:\n",
        " objtype=node\n",
        " objtype=network\n",
        "net=10.0.0.0\n",
        "mask=/8\n",
        " mac=525400000001!a|\n",
        "525400000001",
        ",",
        ";",
        "|",
        '"',
        "\n",
        "\r",
        "groups:a|b\\",
        "ip=::1\n",
        "default-node:\n",
        "#",
        "=",
    ]
)


@pytest.mark.parametrize(("form", "text"), [("fog", b"|,pc1"), ("csv", b"name,mac\nn01,|\n")])
def test_a_list_of_macs_that_holds_none_is_a_fault(form: str, text: bytes) -> None:
    with pytest.raises(InvalidError) as caught:
        read_nodes(text, form, prefix_length=None)
    assert "it has no MAC address" in caught.value.faults[0]


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.lists(_PIECES, max_size=20).map(lambda parts: "".join(parts).encode())))
def test_no_bytes_crash_a_reader(content: bytes) -> None:
    for form in ("", *FORMATS):
        try:
            found = read_nodes(content, form, prefix_length=24)
        except InvalidError:
            continue
        assert found.records
        assert all(record.name and record.macs for record in found.records)
