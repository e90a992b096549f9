"""Which setting a node has: its own, its hardware model's, the site's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloner_core.facts import Dmi
from cloner_core.models import SITE, Model, model_faults, setting_of

R640 = Dmi(vendor="Dell Inc.", product="PowerEdge R640")
DELL = Model("dell", "Dell*", "", "efi-order", "network-first")
EXACT = Model("r640", "Dell*", "PowerEdge R640", "sanboot", "")
OTHER = Model("hp", "HPE", "*", "exit", "local-first")

words = st.sampled_from(["", "*", "Dell*", "Dell Inc.", "PowerEdge*", "HPE"])
models = st.builds(
    Model,
    name=st.sampled_from(["a", "b", "c"]),
    vendor=words,
    product=words,
    local_method=st.sampled_from(["", "exit", "sanboot"]),
    boot_order=st.sampled_from(["", "network-first", "local-first"]),
)


@pytest.mark.parametrize(
    ("own", "dmi", "rules", "value", "source"),
    [
        ("", R640, [], "exit", "site"),
        ("", R640, [DELL], "efi-order", "model dell"),
        ("", R640, [DELL, EXACT], "sanboot", "model r640"),
        ("", R640, [EXACT, DELL, OTHER], "sanboot", "model r640"),
        ("grub-chain", R640, [DELL, EXACT], "grub-chain", "node"),
        ("exit", R640, [DELL], "exit", "node"),
        ("", None, [DELL], "exit", "site"),
        ("", R640, [OTHER], "exit", "site"),
    ],
)
def test_the_node_wins_over_its_model_and_the_model_over_the_site(
    own: str, dmi: Dmi | None, rules: list[Model], value: str, source: str
) -> None:
    found = setting_of("local_method", own, dmi, rules)
    assert (found.value, found.source) == (value, source)


def test_a_model_that_says_nothing_of_a_field_leaves_it_to_the_next() -> None:
    assert setting_of("boot_order", "", R640, [DELL, EXACT]).source == "model dell"


@given(st.lists(models, max_size=5, unique_by=lambda one: one.name), st.randoms())
def test_the_order_of_the_rules_does_not_matter(rules: list[Model], shuffler: object) -> None:
    shuffled = list(rules)
    shuffler.shuffle(shuffled)  # type: ignore[attr-defined]
    for field in SITE:
        found = setting_of(field, "", R640, rules)
        assert found == setting_of(field, "", R640, shuffled)
        assert found.source == "site" or found.value


@pytest.mark.parametrize(
    ("model", "told"),
    [
        (Model("R 640", "Dell*", "", "exit", ""), "name"),
        (Model("r640", "", "", "exit", ""), "at least one must be given"),
        (Model("r640", "Dell*", "", "", ""), "no effect"),
        (Model("r640", "Dell\n", "", "exit", ""), "vendor"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_with_its_field(model: Model, told: str) -> None:
    assert any(told in fault for fault in model_faults(model))


def test_good_rules_have_no_fault() -> None:
    assert [model_faults(model) for model in (DELL, EXACT, OTHER)] == [[], [], []]
