"""iPXE and GRUB scripts: what stands in them, and that nothing can be smuggled into them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.errors import InvalidError
from cloner_pxe.decision import LocalMethod, Netboot, Script, ScriptKind
from cloner_pxe.grub import render_grub
from cloner_pxe.scripts import AgentBoot, chain_to_server, kernel_command_line, render

MAC = "52:54:00:12:34:56"
URL = "http://10.0.0.1:8080/boot/ipxe?mac=52-54-00-12-34-56&platform=efi"
AGENT = AgentBoot(
    kernel_url="http://10.0.0.1:8080/boot/kernel/cloud",
    initramfs_url="http://10.0.0.1:8080/boot/initramfs/abc123",
    server_url="https://10.0.0.1:8443",
    claim="s3cret-claim_token",
    arguments=("console=ttyS0", "panic=-1"),
)


def script(kind: ScriptKind, *, why: str = "because", method: LocalMethod = LocalMethod.EXIT) -> Script:
    return Script(kind=kind, node="node01", netboot=Netboot.CLONER, local_method=method, why=why)


def test_the_agent_script_in_full() -> None:
    text = render(script(ScriptKind.AGENT), mac=MAC, script_url=URL, is_bios=False, agent=AGENT)
    assert text == (
        "#!ipxe\n"
        "echo cloner: node01: because\n"
        "kernel --name kernel http://10.0.0.1:8080/boot/kernel/cloud initrd=initrd BOOTIF=01-52-54-00-12-34-56"
        " cloner.server=https://10.0.0.1:8443 cloner.claim=s3cret-claim_token console=ttyS0 panic=-1"
        " || goto again\n"
        "initrd --name initrd http://10.0.0.1:8080/boot/initramfs/abc123 || goto again\n"
        "boot || goto again\n"
        ":again\n"
        "imgfree ||\n"
        "echo cloner: asking again in 15 s\n"
        ":wait\n"
        "sleep 15\n"
        f"chain --replace {URL} || goto wait\n"
    )


LOCAL_ROWS = [
    pytest.param(True, LocalMethod.EXIT, "sanboot --no-describe --drive 0x80 || exit", id="bios"),
    pytest.param(False, LocalMethod.EXIT, "exit 1", id="uefi"),
    pytest.param(False, LocalMethod.EFI_ORDER, "exit 1", id="uefi that netted although the disk is first"),
    pytest.param(False, LocalMethod.GRUB_CHAIN, "exit 1", id="uefi with grub, in iPXE all the same"),
    pytest.param(False, LocalMethod.SANBOOT, "sanboot --no-describe --drive 0x80 || exit 1", id="uefi sanboot"),
]


@pytest.mark.parametrize(("is_bios", "method", "last"), LOCAL_ROWS)
@pytest.mark.parametrize("kind", [ScriptKind.LOCAL, ScriptKind.UNKNOWN])
def test_local_ends_in_the_way_on_to_the_disk(kind: ScriptKind, is_bios: bool, method: LocalMethod, last: str) -> None:
    text = render(script(kind, method=method), mac=MAC, script_url=URL, is_bios=is_bios)
    assert text.splitlines()[-1] == last


@pytest.mark.parametrize("method", LocalMethod)
def test_uefi_never_leaves_ipxe_with_status_0(method: LocalMethod) -> None:
    text = render(script(ScriptKind.LOCAL, method=method), mac=MAC, script_url=URL, is_bios=False)
    assert text.splitlines()[-1].endswith("exit 1")


def test_waiting_asks_again_at_the_same_url_for_ever() -> None:
    lines = render(script(ScriptKind.WAIT), mac=MAC, script_url=URL, is_bios=False).splitlines()
    assert lines[-1] == f"chain --replace {URL} || goto wait"
    assert ":wait" in lines


def test_a_stranger_is_told_its_mac() -> None:
    text = render(script(ScriptKind.UNKNOWN), mac=MAC, script_url=URL, is_bios=False)
    assert f"--mac {MAC}" in text


@given(st.text(max_size=300), st.sampled_from([ScriptKind.LOCAL, ScriptKind.WAIT, ScriptKind.UNKNOWN]))
def test_no_text_shown_becomes_syntax(why: str, kind: ScriptKind) -> None:
    plain = render(script(kind, why="plain"), mac=MAC, script_url=URL, is_bios=False)
    hostile = render(script(kind, why=why), mac=MAC, script_url=URL, is_bios=False)
    without_why = [line for line in hostile.splitlines() if not line.startswith("echo cloner: node01:")]
    assert without_why == [line for line in plain.splitlines() if not line.startswith("echo cloner: node01:")]
    assert not any(sign in hostile.splitlines()[1] for sign in ("${", "||", "&&", "#"))
    grub = render_grub(script(kind, why=why), mac=MAC)
    assert grub.splitlines()[0].count("'") == 2


@given(st.text(max_size=60))
def test_every_value_of_the_agent_script_is_one_plain_word_or_refused(value: str) -> None:
    good = render(script(ScriptKind.AGENT), mac=MAC, script_url=URL, is_bios=False, agent=AGENT)
    for field in ("kernel_url", "initramfs_url", "server_url", "claim"):
        boot = AgentBoot(**{**_fields(AGENT), field: value})  # type: ignore[arg-type]
        try:
            text = render(script(ScriptKind.AGENT), mac=MAC, script_url=URL, is_bios=False, agent=boot)
        except InvalidError:
            continue
        assert len(text.splitlines()) == len(good.splitlines())
        assert len(text.split()) == len(good.split())
        assert "$" not in text


@pytest.mark.parametrize("bad", ["a b", "a;b${c}", "a\nboot", "", "ü"])
def test_a_bad_kernel_argument_is_named_and_the_claim_is_not(bad: str) -> None:
    boot = AgentBoot(**{**_fields(AGENT), "arguments": (bad, "quiet=' '")})  # type: ignore[arg-type]
    with pytest.raises(InvalidError) as caught:
        kernel_command_line(boot, MAC)
    assert len(caught.value.faults) == 2
    assert AGENT.claim not in str(caught.value)


def test_a_claim_of_the_wrong_form_is_refused_without_being_shown() -> None:
    boot = AgentBoot(**{**_fields(AGENT), "claim": "canary token"})  # type: ignore[arg-type]
    with pytest.raises(InvalidError) as caught:
        kernel_command_line(boot, MAC)
    assert "canary" not in str(caught.value)
    assert "canary" not in repr(boot)


def test_a_command_line_the_kernel_would_cut_is_refused() -> None:
    boot = AgentBoot(**{**_fields(AGENT), "arguments": ("x" * 2000,)})  # type: ignore[arg-type]
    with pytest.raises(InvalidError, match="at most 2000"):
        kernel_command_line(boot, MAC)


@pytest.mark.parametrize("kind", ScriptKind)
def test_agent_parts_go_with_the_agent_script_alone(kind: ScriptKind) -> None:
    agent = None if kind is ScriptKind.AGENT else AGENT
    with pytest.raises(InvalidError, match="do not go together"):
        render(script(kind), mac=MAC, script_url=URL, is_bios=False, agent=agent)


def test_autoexec_goes_on_to_the_script_of_the_card_that_booted() -> None:
    assert (
        "chain --replace http://10.0.0.1:8080/boot/ipxe?mac=${netX/mac:hexhyp}&platform=${platform} || exit 1"
        in chain_to_server("http://10.0.0.1:8080").splitlines()
    )


def test_grub_starts_the_loader_of_the_disk_and_else_leaves() -> None:
    lines = render_grub(script(ScriptKind.LOCAL), mac=MAC).splitlines()
    assert "  chainloader /EFI/debian/shimx64.efi && boot" in lines
    assert lines[-1] == "exit"
    assert not any("fbx64" in line for line in lines)


def test_grub_waits_by_reading_its_own_file_again() -> None:
    assert render_grub(script(ScriptKind.WAIT), mac=MAC).splitlines()[-1] == f"configfile /grub/nodes/{MAC}.cfg"


def test_grub_never_gets_the_agent() -> None:
    with pytest.raises(InvalidError, match="not served to GRUB"):
        render_grub(script(ScriptKind.AGENT), mac=MAC)


def _fields(boot: AgentBoot) -> dict[str, object]:
    return {name: getattr(boot, name) for name in boot.__struct_fields__}
