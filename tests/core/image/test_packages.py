"""What dpkg's status files say is installed, and what has become of it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.admin.differences import Difference
from cloner_core.image.packages import count_packages, package_changes, parse_packages

STATUS = """Package: bash
Essential: yes
Status: install ok installed
Architecture: amd64
Version: 5.2.15-2+b7
Depends: base-files (>= 2.1.12),
 debianutils (>= 5.6-0.1)
Description: GNU Bourne Again SHell
 Version: this line belongs to the description

Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9

Package: libc6
Status: hold ok installed
Architecture: i386
Version: 2.36-9

Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: broken
Status: install reinstreq half-configured
Architecture: all
Version: 3
"""


def test_what_is_installed_is_told_with_its_state_where_that_is_not_whole() -> None:
    packages = parse_packages([STATUS])
    assert packages == {
        "bash": {"amd64": "5.2.15-2+b7"},
        "libc6": {"amd64": "2.36-9", "i386": "2.36-9"},
        "broken": {"all": "3 (half-configured)"},
    }
    assert count_packages(packages) == 4


def test_an_image_without_dpkg_has_a_file_for_each_package() -> None:
    files = ["Package: base-files\nVersion: 12.4\nArchitecture: amd64\n", "Package: tzdata\nVersion: 2024a\n"]
    assert parse_packages(files) == {"base-files": {"amd64": "12.4"}, "tzdata": {"": "2024a"}}


@pytest.mark.parametrize(
    ("before", "after", "change"),
    [
        ({"amd64": "1"}, {"amd64": "2"}, Difference("a", "1", "2")),
        ({}, {"amd64": "2"}, Difference("a", "", "2")),
        ({"amd64": "1"}, {}, Difference("a", "1", "")),
        ({"all": "1"}, {"amd64": "2"}, Difference("a", "1", "2")),
        ({"amd64": "1", "i386": "1"}, {"amd64": "1"}, Difference("a:i386", "1", "")),
    ],
    ids=["newer", "added", "removed", "another-architecture", "one-of-two"],
)
def test_a_change_names_the_architecture_only_where_there_are_several(
    before: dict[str, str], after: dict[str, str], change: Difference
) -> None:
    assert package_changes({"a": before}, {"a": after}) == (change,)


@given(st.text())
def test_any_text_gives_packages_or_none(text: str) -> None:
    packages = parse_packages([text])
    assert package_changes(packages, packages) == ()
    assert all(name and version for name, found in packages.items() for version in found.values())
