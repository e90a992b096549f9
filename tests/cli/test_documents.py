"""Documents of people: what would hide a mistake or take the memory is a fault, never an exception of a library."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloner_cli.documents import parse_yaml, read_document, read_first_line, read_input
from cloner_core.errors import InvalidError

BAD = {
    "a key twice": ("a: 1\nb: 2\na: 3\n", "'a' is given twice"),
    "a key twice, deep": ("a:\n  b: 1\n  b: 2\n", "'b' is given twice"),
    "an alias": ("a: &x [1, 2]\nb: *x\n", "aliases"),
    "laughs": ("a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n", "aliases"),
    "a key that is no text": ("1: one\n", "not text"),
    "no YAML": ("a: [1, 2\n", "not YAML"),
    "a Python object": ("a: !!python/object/apply:os.system [id]\n", "not YAML"),
    "no text": ("\x00", "not YAML"),
    "a key that is a list": ("? [a]\n: 1\n", "line 1: key .* is not text"),
    "a key that is a mapping": ("{ {a: b}: c }", "line 1: key .* is not text"),
    "an empty integer": ('a: 1\nb: !!int ""\n', "line 2: '' is no tag:yaml.org,2002:int"),
    "a boolean that is none": ("!!bool foo", "'foo' is no tag:yaml.org,2002:bool"),
    "a time that is none": ("!!timestamp foo", "'foo' is no tag:yaml.org,2002:timestamp"),
    "a mapping that is a list": ("!!map [a]", "not YAML"),
    "a mapping that is a word": ("a: !!map word", "not YAML"),
    "half a character": ('a: "\\ud800"', "line 1"),
}


@pytest.mark.parametrize(("text", "told"), BAD.values(), ids=list(BAD))
def test_a_bad_document_is_refused_with_its_reason(text: str, told: str) -> None:
    with pytest.raises(InvalidError, match=told):
        parse_yaml(text.encode(), "layout.yaml")


@given(st.binary(max_size=200) | st.text(alphabet="ab:-[]{}&*!#|>'\" \n0.", max_size=80).map(str.encode))
@example(b"!!float ''")
@example(b"!!set [a]")
@example(b"!!omap {a: b}")
@example(b"!!binary \xc3\xa4")
@example(b"!!timestamp 2001-99-99")
@example(b"? !!python/none\n: 1")
def test_hostile_bytes_give_a_value_or_an_invalid_error(content: bytes) -> None:
    with suppress(InvalidError):
        parse_yaml(content, "x")


BAD_JSON = {
    "a key twice": ('{"name": "a", "disks": [{"id": 1, "id": 2}]}', "'id' is given twice"),
    "a key twice, spelled otherwise": ('{"a": 1, "\\u0061": 2}', "'a' is given twice"),
    "not a number": ('{"a": NaN}', "not JSON"),
    "infinity": ('{"a": 1e999}', "not JSON"),
    "half a character": ('{"a": "\\ud800"}', "not JSON"),
    "a number without end": (f'{{"a": {"9" * 5000}}}', "not JSON"),
    "nested without end": ("[" * 100_000, "not JSON"),
    "nested deep": ("[" * 900 + "]" * 900, ""),
}


@pytest.mark.parametrize(("text", "told"), BAD_JSON.values(), ids=list(BAD_JSON))
def test_json_is_read_as_strictly(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / "x.json").write_text(text)
    if not told:
        assert read_document(tmp_path / "x.json")
        return
    with pytest.raises(InvalidError, match=told):
        read_document(tmp_path / "x.json")


def test_a_key_twice_is_no_yaml_either(tmp_path: Path) -> None:
    (tmp_path / "x").write_text('{"a": 1, "a": 2}')
    with pytest.raises(InvalidError, match="given twice"):
        read_document(tmp_path / "x")


@pytest.mark.parametrize("name", ["none", ".", "-", "a\0b"], ids=["absent", "directory", "closed stdin", "no name"])
def test_what_cannot_be_read_is_invalid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("sys.stdin", None)  # what Python makes of `<&-`
    path = Path("-") if name == "-" else tmp_path / name
    for read in (lambda: read_input(path, 10), lambda: read_first_line(path), lambda: read_document(path)):
        with pytest.raises(InvalidError, match=r"cannot be read|is closed|not the name"):
            read()


def test_a_first_line_is_read_alone(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"secret\r\n\xff")
    assert read_first_line(tmp_path / "x") == "secret"
    (tmp_path / "x").write_bytes(b"\xff\n")
    with pytest.raises(InvalidError, match="UTF-8"):
        read_first_line(tmp_path / "x")
