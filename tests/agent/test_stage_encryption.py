"""A container ends with the keys its clone has and no other, and no key is where it could be read later."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from agentbench.container import CLEVIS, SYSTEMD, UUID, Container
from agentbench.scene import Scene
from cloner_agent.failures import StageError
from cloner_agent.host import Runner
from cloner_agent.stages.encryption import give_keys
from cloner_agent.stages.volumes import key_path, make_encrypted
from cloner_core.messages import Cause, Secret
from cloner_core.steps import LuksFormat, LuksKeys

RECOVERY = "cbde fghi jkln rtuv cbde fghi jkln rtuv"


class Sealed:
    """A container made for a node, with the format key in its only slot."""

    def __init__(self, directory: Path, *files: str) -> None:
        self.container = Container()
        self.attempt = Scene(directory).attempt
        tools = self.attempt.tools
        self.keys = directory / "keys"
        self.attempt.tools = dataclasses.replace(
            tools,
            run=self.container.run,
            confine=self.container.confine,
            keys=self.keys,
            wait_for_device=lambda *_, **__: None,
        )
        self.attempt.recovery_key = Secret(RECOVERY)
        for name in files:
            path = Path(tools.target) / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        make_encrypted(self.attempt, LuksFormat("/dev/vda3", "root", UUID, 512, 16 << 20))
        self.first = key_path(self.keys, "root").read_bytes()

    def give(self, way: str = "tpm2", pcrs: tuple[int, ...] = ()) -> None:
        give_keys(self.attempt, LuksKeys("/dev/vda3", "root", UUID, way, pcrs))  # type: ignore[arg-type]


@pytest.fixture
def sealed(tmp_path: Path) -> Sealed:
    return Sealed(tmp_path, *CLEVIS)


def test_tpm_and_recovery_key_open_the_clone_and_the_first_key_does_not(sealed: Sealed) -> None:
    sealed.give()
    assert sealed.container.slots == {"1": RECOVERY.encode(), "2": b"sealed"}
    bind, proof = sealed.container.confined
    assert bind.argv[:3] == ("clevis", "luks", "bind")
    assert bind.argv[-2:] == ("tpm2", "{}")
    assert bind.devices == proof.devices == ("/dev/vda3", "/dev/tpmrm0")
    assert bind.files == {"key": sealed.first}
    assert proof.files == {}


def test_registers_of_the_tpm_are_named_in_a_bank_that_is_not_broken(sealed: Sealed) -> None:
    sealed.give(pcrs=(0, 7))
    assert sealed.container.confined[0].argv[-1] == '{"pcr_bank": "sha256", "pcr_ids": "0,7"}'


def test_a_passphrase_alone_opens_what_a_person_opens(sealed: Sealed) -> None:
    sealed.give("passphrase")
    assert sealed.container.slots == {"1": RECOVERY.encode()}
    assert sealed.container.confined == []


def test_an_image_of_dracut_is_sealed_by_systemd(tmp_path: Path) -> None:
    sealed = Sealed(tmp_path, *SYSTEMD)
    sealed.give(pcrs=(0, 7))
    assert sealed.container.slots == {"1": RECOVERY.encode(), "3": b"sealed"}
    assert "--tpm2-pcrs=0+7" in sealed.container.confined[0].argv


def test_no_key_is_an_argument_and_none_is_left_in_memory(sealed: Sealed) -> None:
    sealed.give()
    said = repr((sealed.container.ran, [program.argv for program in sealed.container.confined]))
    assert not [secret for secret in (*RECOVERY.split(), sealed.first.hex(), repr(sealed.first)) if secret in said]
    assert list(sealed.keys.iterdir()) == []
    assert sealed.keys.stat().st_mode & 0o777 == 0o700


def test_a_container_is_made_only_where_the_plan_has_its_partition(tmp_path: Path) -> None:
    """As when something held the old partition at the re-read: the kernel has one of that name at another place."""
    container, scene, asked = Container(), Scene(tmp_path), []

    def wait(device: str, disk: str, run: Runner, *, place: tuple[int, int]) -> None:
        asked.append((device, disk, place))
        raise StageError(Cause.DEVICE_BUSY, "the kernel keeps the old partition table")

    scene.attempt.tools = dataclasses.replace(
        scene.attempt.tools, run=container.run, keys=tmp_path / "keys", wait_for_device=wait
    )
    disk, partition = scene.attempt.plan.partition_at("/dev/vda3")
    with pytest.raises(StageError, match="keeps the old partition table"):
        make_encrypted(scene.attempt, LuksFormat(partition.device, "data", UUID, 512, 16 << 20))
    assert asked == [(partition.device, disk.disk.path, (partition.start_sectors, partition.size_sectors))]
    assert container.ran == []


def test_the_first_key_lies_where_its_owner_alone_can_read(sealed: Sealed) -> None:
    path = key_path(sealed.keys, "root")
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(path.read_bytes()) == 64


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"seal_status": 1},
            "takes no key for root: 'clevis' of the image ended with status 1 after 1.0 s: no such handle",
        ),
        ({"unseal_status": 1}, "does not give the key of root back: 'bash' of the image ended with status 1"),
        ({"leaves_more": True}, "key slots 1, 2, 5 and tokens clevis; want slot 1"),
    ],
)
def test_what_the_tpm_or_its_program_does_wrong_ends_the_deploy(
    sealed: Sealed, change: dict[str, object], said: str
) -> None:
    for name, value in change.items():
        setattr(sealed.container, name, value)
    with pytest.raises(StageError, match="root") as failed:
        sealed.give()
    assert failed.value.cause is Cause.TPM
    assert said in failed.value.message
    assert not (sealed.keys / "root.recovery").exists()


def test_a_first_key_that_still_opens_is_found_out(sealed: Sealed) -> None:
    sealed.container.slots = {"0": RECOVERY.encode()}
    key_path(sealed.keys, "root").write_text(RECOVERY)
    with pytest.raises(StageError, match="still opened by the key it was made with"):
        sealed.give("passphrase")


def test_an_image_without_a_sealer_is_told_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(StageError, match="nothing that unlocks root by a TPM") as failed:
        Sealed(tmp_path, *CLEVIS[:2]).give()
    assert failed.value.cause is Cause.NOT_BOOTABLE
