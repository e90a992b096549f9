"""Settings by hardware model: who takes them, what boots by them, and what is kept of their changes."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from alembic import command
from alembic.config import Config
from sqlalchemy import create_engine, text
from starlette.testclient import TestClient

from cloner_core.facts import Dmi, Facts
from cloner_pxe.decision import BootPolicy
from cloner_server.api.boot import boot_app
from cloner_server.boot import BootDesk
from cloner_server.state import migrations, nodes
from serverbench.scene import Agent, Scene, facts

R640 = msgspec.structs.replace(facts(), dmi=Dmi(vendor="Dell Inc.", product="PowerEdge R640"))


def remember(scene: Scene, told: Facts = R640, name: str = "n01") -> None:
    with scene.core.database.write() as connection:
        nodes.remember_facts(connection, scene.core.act("test"), name, told)


def set_model(scene: Scene, name: str = "r640", status: int = 200, **fields: Any) -> Any:
    answer = scene.admin("PATCH", f"/models/{name}", fields)
    assert answer.status_code == status, answer.text
    return answer.json()


def shown(scene: Scene, name: str = "n01") -> tuple[str, str, str, str]:
    view = scene.admin("GET", f"/nodes/{name}").json()
    return view["local_method"], view["local_method_from"], view["boot_order"], view["boot_order_from"]


def test_a_node_takes_what_its_model_has_and_says_where_from(scene: Scene) -> None:
    scene.add_node()
    assert shown(scene) == ("exit", "site", "network-first", "site")
    view = set_model(scene, vendor="Dell*", product="PowerEdge R6?0", local_method="sanboot", boot_order="local-first")
    assert view["nodes"] == [], "it has not told what it is"
    remember(scene)
    assert shown(scene) == ("sanboot", "model r640", "local-first", "model r640")
    assert scene.admin("GET", "/models").json()[0]["nodes"] == ["n01"]
    scene.admin("PATCH", "/nodes/n01", {"local_method": "exit"})
    assert shown(scene) == ("exit", "node", "local-first", "model r640")
    scene.admin("PATCH", "/nodes/n01", {"local_method": ""})
    assert shown(scene) == ("sanboot", "model r640", "local-first", "model r640")
    assert scene.admin("DELETE", "/models/r640").json()["nodes"] == ["n01"]
    assert shown(scene) == ("exit", "site", "network-first", "site")
    told = [(one["object"], one["what"]) for one in scene.admin("GET", "/events", subject="model/r640").json()]
    assert told == [("model/r640", "set"), ("model/r640", "removed")]


def test_to_set_what_the_model_has_anyhow_is_a_setting_of_the_node(scene: Scene) -> None:
    scene.add_node()
    remember(scene)
    set_model(scene, vendor="Dell*", local_method="sanboot")
    scene.admin("PATCH", "/nodes/n01", {"local_method": "sanboot"})
    set_model(scene, local_method="efi-order")
    assert shown(scene)[:2] == ("sanboot", "node")


def test_a_task_is_told_the_order_of_its_model_from_the_first_hello_on(scene: Scene) -> None:
    scene.add_node()
    set_model(scene, product="PowerEdge*", boot_order="local-first")
    scene.arm(has_identity=False)
    assert Agent(scene, R640).hello().task.boot.boot_order == "local-first"


@pytest.mark.parametrize(("method", "line"), [("exit", "exit 1"), ("sanboot", "sanboot --no-describe")])
def test_the_way_to_the_disk_is_that_of_the_model(scene: Scene, method: str, line: str) -> None:
    scene.add_node()
    remember(scene)
    set_model(scene, vendor="Dell*", local_method=method)
    policy = BootPolicy(server_address="10.77.0.1", http_base="http://10.77.0.1:8080")
    desk = BootDesk(scene.core, policy, None, "https://10.77.0.1:8443", ipaddress.IPv4Network("10.77.0.0/24"))
    http = TestClient(boot_app(scene.core, desk, {}))
    script = http.get("/boot/ipxe", params={"mac": "52-54-00-00-00-01", "platform": "efi"}).text
    assert script.splitlines()[-1].startswith(line)


def test_a_rule_that_cannot_be_is_refused_with_every_fault(scene: Scene) -> None:
    answer = set_model(scene, "R_", status=400, boot_order="")
    assert len(answer["faults"]) == 3


def test_a_change_of_an_older_revision_is_refused(scene: Scene) -> None:
    assert set_model(scene, vendor="Dell*", local_method="exit", revision=0)["revision"] == 1
    assert set_model(scene, vendor="Dell*")["revision"] == 1, "what is so already changes nothing"
    set_model(scene, status=409, vendor="HPE", revision=0)
    assert scene.admin("DELETE", "/models/nosuch").status_code == 404


def test_a_dry_run_changes_nothing(scene: Scene) -> None:
    before = scene.state_dump()
    answer = scene.admin("PATCH", "/models/r640", {"vendor": "Dell*", "local_method": "exit"}, dry_run="true")
    assert answer.json()["revision"] == 1
    assert scene.state_dump() == before


def test_an_older_database_keeps_what_differs_from_the_site(tmp_path: Path) -> None:
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    engine = create_engine(f"sqlite:///{tmp_path / 'cloner.db'}")
    with engine.begin() as connection:
        config.attributes["connection"] = connection
        command.upgrade(config, "0011")
        for name, method, order in (("n01", "exit", "local-first"), ("n02", "sanboot", "network-first")):
            values = f"('{name}', 1, '{{}}', '{method}', '{order}', 0)"
            columns = "name, revision, network, local_method, boot_order, created_s"
            connection.execute(text(f"INSERT INTO nodes ({columns}) VALUES {values}"))
        command.upgrade(config, "head")
        kept = connection.execute(text("SELECT local_method, boot_order FROM nodes ORDER BY name")).all()
    engine.dispose()
    assert [tuple(row) for row in kept] == [("", "local-first"), ("sanboot", "")]
