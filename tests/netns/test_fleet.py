"""Many nodes at once against one real server; `./run soak fleet` is the same at length."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentbench.fleet import ILLNESSES
from agentbench.ground import Ground, ground
from agentbench.identity_of import KEPT, RENEWED, files_of, left_of_golden, names_of
from agentbench.yard import End, Running
from cloner_core.confirmation import SETTINGS
from soak.laws.fleet import FleetCase

pytestmark = [pytest.mark.root, pytest.mark.slow]
_COUNT = 24


@pytest.fixture(scope="module")
def case(tmp_path_factory: pytest.TempPathFactory) -> Iterator[FleetCase]:
    """Hold the law once; its clones and its server stay to be looked at."""
    directory = tmp_path_factory.mktemp("fleet")
    with ground(directory) as made:
        one = FleetCase(directory, collect=secrets_of)
        one.clone(made, range(5, 5 + _COUNT))
        yield one


def secrets_of(one: Running, end: End) -> list[str]:
    """Return what nobody may read anywhere: the claims of a boot, and what the clone was given."""
    found = [(one.machine.directory / "cmdline").read_text().partition("cloner.claim=")[2].split()[0]]
    root = one.machine.disk.filesystem("ext4")
    if end is End.RESTARTED and root is not None and (root / SETTINGS.lstrip("/")).exists():
        found.append((root / SETTINGS.lstrip("/")).read_text().partition("SECRET=")[2].strip())
        for path, content in files_of(one.machine, KEPT).items():
            found += content.decode().splitlines()[1:-1] if path.endswith("_key") else []
    return found


def test_of_many_cloned_at_once_the_ill_are_named_and_one_retry_mends_them(case: FleetCase) -> None:
    assert {figure["illness"] for figure in case.figures.values()} == {"none", *(one.name for one in ILLNESSES)}


def test_no_two_clones_share_anything_of_the_regeneration_list(case: FleetCase) -> None:
    machines = [one.machine for one in case.fleet.ground.yard.machines]
    assert len(machines) >= 20
    for path in (*KEPT, *RENEWED, "etc/hostname"):
        assert len({files_of(machine, (path,))[path] for machine in machines}) == len(machines), path
    for name in names_of(machines[0]):
        assert len({names_of(machine)[name] for machine in machines}) == len(machines), name
    assert [left for machine in machines for left in left_of_golden(machine, case.fleet.ground.golden)] == []


def test_no_secret_is_in_a_log_an_event_a_bundle_or_the_state(case: FleetCase) -> None:
    made = case.fleet.ground
    assert len(case.secrets) > 20 * _COUNT
    told = [json.dumps(made.events(after=0, limit=10_000))]
    for task in made.tasks():
        told.append(json.dumps(made.served.admin("GET", f"/tasks/{task['id']}/log")))
    told += [json.dumps(bundle) for bundle in bundles(made)]
    files = [path for path in made.directory.rglob("*") if path.is_file() and _is_ours(path, made)]
    assert {"log", "cloner.db"} <= {path.name for path in files}
    kept = [*(text.encode() for text in told), *(path.read_bytes() for path in files)]
    assert [secret[:6] for secret in case.secrets if any(secret.encode() in content for content in kept)] == []


def bundles(made: Ground) -> list[object]:
    """Return what the ill machines sent of their failures."""
    with_bundle = [event["object"] for event in made.events(after=0, limit=10_000) if event["what"] == "bundle kept"]
    assert len(with_bundle) >= len(ILLNESSES)
    return [made.served.admin("GET", f"/tasks/{name.partition('/')[2]}/bundle") for name in set(with_bundle)]


def _is_ours(path: Path, made: Ground) -> bool:
    """Leave out the machines themselves, which must have their secrets, and the golden tree."""
    return not any(path.is_relative_to(made.directory / name) for name in ("machines", "bulk", "golden"))


def test_one_cloned_again_is_itself_on_a_new_disk(case: FleetCase) -> None:
    made = case.fleet.ground
    one, other = made.yard.machines[3], made.yard.machines[4]
    before = files_of(one.machine, KEPT), files_of(one.machine, RENEWED), names_of(one.machine)
    others = files_of(other.machine, (*KEPT, *RENEWED))
    made.deploy(one)
    made.yard.again(one)
    made.yard.run([one], deadline_s=60)
    assert files_of(one.machine, KEPT) == before[0]
    assert not set(files_of(one.machine, RENEWED).values()) & set(before[1].values())
    assert not set(names_of(one.machine).values()) & set(before[2].values())
    assert files_of(other.machine, (*KEPT, *RENEWED)) == others
