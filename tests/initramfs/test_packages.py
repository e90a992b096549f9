"""What apt is asked for: it is asked once, and never is an answer that of lists which have changed since."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cloner_core.errors import ClonerError
from cloner_initramfs import Cache, host, packages

pytestmark = pytest.mark.root  # it runs apt-get


class Repository:
    """A repository in a folder, the only one that apt knows."""

    def __init__(self, folder: Path) -> None:
        self.packages = folder / "repository" / "Packages"
        self.packages.parent.mkdir()
        (folder / "lists" / "partial").mkdir(parents=True)
        self.sources = folder / "sources.list"
        self.sources.write_text(f"deb [trusted=yes] file:{self.packages.parent} ./\n")
        self.configuration = folder / "apt.conf"
        self.configuration.write_text(
            f'Dir::Etc::sourcelist "{self.sources}";\nDir::Etc::sourceparts "-";\nDir::State::lists "{folder}/lists";\n'
            'APT::Sandbox::User "root";\n'
        )
        self._made_s = 1_700_000_000

    def publish(self, *names: str, depends: str = "") -> None:
        """Have these packages, as `name_version`, and no others; a second newer, as apt tells by it."""
        stanzas = []
        for package, _, version in (name.partition("_") for name in names):
            stanzas.append(
                f"Package: {package}\nVersion: {version}\nArchitecture: all\nMaintainer: nobody\n"
                + (f"Depends: {depends}\n" if depends and package != depends else "")
                + f"Filename: ./{package}_{version}_all.deb\nSize: 1\nSHA256: {version * 64}\nDescription: a thing\n"
            )
        self.packages.write_text("\n".join(stanzas))
        self._made_s += 1
        os.utime(self.packages, (self._made_s, self._made_s))
        host.run(["apt-get", "-qq", "update"], environment=host.caller_environment())


@pytest.fixture
def repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Repository:
    made = Repository(tmp_path)
    monkeypatch.setenv("APT_CONFIG", str(made.configuration))
    return made


def resolved(cache: Cache) -> list[str]:
    return [one.file for one in packages.resolve(cache, ["thing"])]


def test_apt_is_asked_once_and_again_when_its_lists_have_changed(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = Cache(tmp_path / "cache")
    repository.publish("thing_1")
    assert resolved(cache) == ["thing_1_all.deb"]
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "apt-config").symlink_to("/usr/bin/apt-config")
    with monkeypatch.context() as patch:
        patch.setenv("PATH", str(programs))
        assert resolved(cache) == ["thing_1_all.deb"]
        with pytest.raises(ClonerError, match="apt-get is not installed"):
            packages.resolve(cache, ["other"])
    repository.publish("thing_2")
    assert resolved(cache) == ["thing_2_all.deb"]
    repository.publish("thing_2", "other_3", depends="other")
    assert resolved(cache) == ["other_3_all.deb", "thing_2_all.deb"]


def test_a_source_that_is_no_more_is_not_believed_nor_a_setting(repository: Repository, tmp_path: Path) -> None:
    cache = Cache(tmp_path / "cache")
    repository.publish("thing_1", "other_1", depends="other")
    assert resolved(cache) == ["other_1_all.deb", "thing_1_all.deb"]
    with repository.configuration.open("a") as file:
        file.write('Dir::Etc::preferences "/nonexistent";\n')
    assert resolved(cache) == ["other_1_all.deb", "thing_1_all.deb"]
    assert len(list(cache.root.glob("resolved-*"))) == 2, "apt was asked under the setting it has now"
    repository.sources.write_text("")
    with pytest.raises(ClonerError, match="cannot resolve thing"):
        resolved(cache)
