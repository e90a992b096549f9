"""Templates: filled in from the node alone, and every fault told before anything is kept."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_core.extrafiles import MAX_BYTES, ExtraFile, extra_faults, fill, template_fields
from cloner_core.identity import IdentityFile, ImageIdentity, identity_files
from cloner_core.messages import Secret, Vaulted
from cloner_core.network import Interface, NodeNetwork

MAC = "52:54:00:00:00:01"
MACHINE_ID = "0123456789abcdef0123456789abcdef"
STATIC = NodeNetwork("n01.example.org", (Interface(MAC, dhcp=False, addresses=("10.1.0.5/24",), gateway="10.1.0.1"),))
FIELDS = template_fields("n01", STATIC, MACHINE_ID)


def test_fields_are_the_nodes_and_two_dollars_are_one() -> None:
    template = "${node} ${hostname} ${short_hostname}.${domain} ${mac} ${address}/${prefix_length}"
    template += " via ${gateway} $$HOME $$${node}"
    assert extra_faults([ExtraFile("/etc/motd", template)], FIELDS) == []
    assert fill(template, FIELDS).decode() == (
        f"n01 n01.example.org n01.example.org {MAC} 10.1.0.5/24 via 10.1.0.1 $HOME $n01"
    )


def test_what_the_node_has_no_value_for_is_a_fault_and_not_an_empty_word() -> None:
    fields = template_fields("n01", NodeNetwork("n01", (Interface(MAC),)), MACHINE_ID)
    (fault,) = extra_faults([ExtraFile("/etc/motd", "a\nb ${address}")], fields)
    assert "line 2: the node has no 'address'" in fault


@pytest.mark.parametrize(
    "path", ["etc/motd", "/etc/../motd", "/", "//etc/motd", "/etc/", "/etc/a\nb", "/etc/machine-id", "/proc/x", "/run"]
)
def test_paths_are_plain_and_none_of_ours(path: str) -> None:
    assert extra_faults([ExtraFile(path, "")], FIELDS)


def test_every_fault_is_told_at_once() -> None:
    files = [
        ExtraFile("/a", "$ ${nothing} ${}\n$x"),
        ExtraFile("/a", "", mode=0o4755),
        ExtraFile("/b", "x" * (MAX_BYTES + 1)),
    ]
    assert len(extra_faults(files, FIELDS)) == 7


@given(st.text(max_size=80))
def test_any_template_is_refused_or_filled_to_the_last_dollar(template: str) -> None:
    if extra_faults([ExtraFile("/x", template)], FIELDS):
        return
    assert fill(template, FIELDS).decode().count("$") == template.count("$$")


def vaulted() -> Vaulted:
    return Vaulted(machine_id=MACHINE_ID, host_keys=(), random_seed=Secret("00" * 512))


def test_an_extra_file_is_written_after_all_else_with_its_mode() -> None:
    extra = ExtraFile("/etc/cron.daily/x", "#!/bin/sh\necho ${node} ${machine_id}\n", mode=0o755)
    made = identity_files(STATIC, vaulted(), ImageIdentity(), None, node="n01", extra_files=[extra])
    last = made.files[-1]
    assert isinstance(last, IdentityFile)
    assert (last.path, last.mode) == (extra.path, 0o755)
    assert last.content == f"#!/bin/sh\necho n01 {MACHINE_ID}\n".encode()


def test_an_extra_file_never_replaces_one_of_the_identity() -> None:
    extra = ExtraFile("/etc/cloud/cloud.cfg.d/99-cloner.cfg", "")
    image = ImageIdentity(has_cloud_init=True)
    with pytest.raises(InvalidError, match="written by Cloner itself"):
        identity_files(STATIC, vaulted(), image, None, extra_files=[extra])
