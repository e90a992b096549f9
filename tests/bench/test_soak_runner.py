"""A soak goes on where it was killed, names the seed of each failure, and says what it ran on."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from cloner_agent.host import run as run_tool
from cloner_core.errors import NotFoundError, RefusedError
from soak.__main__ import LAWS, find_law, main
from soak.book import Book, Entry, Heading
from soak.evidence import Spread, make_evidence, sum_up
from soak.law import Case, Figures, Law, require
from soak.place import held_place, loops_over
from soak.runner import run


class Counting:
    """A law that remembers which seeds were tried, and does not hold for multiples of `wrong`."""

    def __init__(self, wrong: int = 0) -> None:
        self.tried: list[int] = []
        self._wrong = wrong
        self.law = Law("counting", "numbers are numbers", 5, self._open)

    @contextmanager
    def _open(self, work: Path) -> Iterator[Case]:
        def case(seed: int) -> Figures:
            self.tried.append(seed)
            require(not self._wrong or seed % self._wrong != 0, f"{seed} is wrong")
            return {"number": seed, "kind": "odd" if seed % 2 else "even"}

        yield case


def book_in(directory: Path, commit: str = "abc") -> Book:
    return Book(directory / "counting.jsonl", Heading("counting", commit, 3, 5))


def run_quietly(counting: Counting, book: Book, directory: Path) -> tuple[list[Entry], list[str]]:
    told: list[str] = []
    return run(counting.law, book, directory, told.append), told


def test_every_seed_from_the_first_is_tried_once(tmp_path: Path) -> None:
    counting = Counting()
    entries, _ = run_quietly(counting, book_in(tmp_path), tmp_path)
    assert counting.tried == [entry.seed for entry in entries] == [3, 4, 5, 6, 7]


class Together:
    """A crowd of numbers, gathered before any is asked for; one that is broken cannot be."""

    def __init__(self, *, is_broken: bool = False) -> None:
        self.gathered: list[list[int]] = []
        self.law = Law("crowd", "numbers keep together", 5, self._open)
        self._is_broken = is_broken

    @contextmanager
    def _open(self, work: Path) -> Iterator[Case]:
        yield self

    def gather(self, seeds: Sequence[int]) -> None:
        self.gathered.append(list(seeds))
        require(not self._is_broken, "they do not keep together")

    def __call__(self, seed: int) -> Figures:
        require(self.gathered == [[3, 4, 5, 6, 7]], "asked for before it was gathered")
        return {}


def test_the_members_of_a_crowd_are_tried_together_before_any_is_asked_for(tmp_path: Path) -> None:
    entries = run(Together().law, book_in(tmp_path), tmp_path, lambda _: None)
    assert [entry.failure for entry in entries] == [""] * 5


def test_a_crowd_that_breaks_its_law_while_it_is_gathered_breaks_it_for_each(tmp_path: Path) -> None:
    crowd, book = Together(is_broken=True), book_in(tmp_path)
    entries = run(crowd.law, book, tmp_path, lambda _: None)
    assert [entry.failure for entry in entries] == ["LawBrokenError: they do not keep together"] * 5
    assert book.entries() == entries
    assert len(crowd.gathered) == 1
    evidence = make_evidence(crowd.law, book.heading, entries)
    assert (evidence.has_held, evidence.passed, evidence.failed_seeds) == (False, 0, (3, 4, 5, 6, 7))


def test_a_law_whose_cases_tried_too_little_has_not_held(tmp_path: Path) -> None:
    def enough(entries: Sequence[Entry]) -> str:
        odd = sum(entry.figures["kind"] == "odd" for entry in entries)
        return "" if odd >= 3 else f"{odd} odd numbers of {len(entries)}"

    law = replace(Counting().law, enough=enough)
    entries = run(law, book_in(tmp_path), tmp_path, lambda _: None)
    evidence = make_evidence(law, book_in(tmp_path).heading, entries)
    assert (evidence.has_held, evidence.too_little) == (True, "")
    few = [msgspec.structs.replace(entry, figures={"kind": "even"}) for entry in entries]
    evidence = make_evidence(law, book_in(tmp_path).heading, few)
    assert (evidence.has_held, evidence.passed) == (False, 5)
    assert evidence.too_little == "0 odd numbers of 5"
    one_again = make_evidence(law, Heading("counting", "abc", 4, 1), few[:1])
    assert (one_again.has_held, one_again.too_little) == (True, "")


@pytest.mark.parametrize("torn", [b"", b'{"seed":5,"sec', b'{"seed":5,"seconds":1.0,"figures":{}}'])
def test_a_killed_soak_goes_on_at_the_next_case(tmp_path: Path, torn: bytes) -> None:
    book = book_in(tmp_path)
    book.rewrite([Entry(3, 1.0, {}), Entry(4, 1.0, {}, "4 is wrong")])
    book.path.write_bytes(book.path.read_bytes() + torn)
    counting = Counting()
    entries, _ = run_quietly(counting, book, tmp_path)
    assert counting.tried == [5, 6, 7]
    assert [entry.failure for entry in entries] == ["", "4 is wrong", "", "", ""]
    assert book.entries() == entries


@pytest.mark.parametrize(
    "former", [Heading("counting", "other", 3, 5), Heading("counting", "abc", 1, 5), Heading("counting", "abc", 3, 9)]
)
def test_cases_of_another_commit_or_another_soak_do_not_count(tmp_path: Path, former: Heading) -> None:
    book = book_in(tmp_path)
    Book(book.path, former).rewrite([Entry(3, 1.0, {})])
    counting = Counting()
    run_quietly(counting, book, tmp_path)
    assert counting.tried == [3, 4, 5, 6, 7]


def test_after_a_failure_the_others_are_tried_and_its_seed_is_told(tmp_path: Path) -> None:
    counting = Counting(wrong=4)
    entries, told = run_quietly(counting, book_in(tmp_path), tmp_path)
    assert counting.tried == [3, 4, 5, 6, 7]
    assert [entry.seed for entry in entries if entry.failure] == [4]
    assert told == [
        "counting: seed 4 failed: LawBrokenError: 4 is wrong",
        "counting: again: ./run soak counting --count 1 --seed 4",
    ]
    evidence = make_evidence(counting.law, book_in(tmp_path).heading, entries)
    assert (evidence.has_held, evidence.passed, evidence.failed_seeds, evidence.commit) == (False, 4, (4,), "abc")


def test_evidence_of_a_soak_that_was_stopped_says_so(tmp_path: Path) -> None:
    book = book_in(tmp_path)
    book.rewrite([Entry(3, 1.0, {}), Entry(4, 1.0, {})])
    read = Book.open(book.path)
    assert read.heading == book.heading
    evidence = make_evidence(Counting().law, read.heading, read.entries())
    assert (evidence.has_held, evidence.tried, evidence.passed, evidence.count) == (False, 2, 2, 5)
    with pytest.raises(NotFoundError):
        Book.open(tmp_path / "none")


def test_numbers_are_spread_out_and_words_counted() -> None:
    entries = [Entry(1, 0.1, {"number": 3, "kind": "odd"}), Entry(2, 0.1, {"number": 1, "kind": "odd", "rare": 7})]
    assert sum_up(entries) == {"kind": {"odd": 2}, "number": Spread(1, 2, 3, 4), "rare": Spread(7, 7, 7, 7)}


def test_two_soaks_never_share_a_place(tmp_path: Path) -> None:
    (tmp_path / "work" / "left").mkdir(parents=True)
    with held_place(tmp_path / "work") as place:
        assert list(place.iterdir()) == []
        with pytest.raises(RefusedError), held_place(tmp_path / "work"):
            pass
        (place / "made").touch()
    assert list((tmp_path / "work").iterdir()) == []


@pytest.mark.root
def test_what_a_killed_soak_left_mounted_on_loop_devices_is_taken_away(tmp_path: Path) -> None:
    place = tmp_path / "work"
    (place / "mounted").mkdir(parents=True)
    file = place / "medium"
    file.touch()
    os.truncate(file, 4 << 20)
    run_tool(("mke2fs", "-q", str(file)))
    device = run_tool(("losetup", "--find", "--show", str(file))).stdout.strip()
    run_tool(("mount", device, str(place / "mounted")))
    with held_place(place):
        assert list(place.iterdir()) == []
        assert loops_over(str(place)) == []


def test_every_law_is_listed_by_its_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(LAWS) == [find_law(name).name for name in LAWS]


def test_an_unknown_law_is_refused_with_the_names_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(NotFoundError):
        find_law("gravity")
    assert main(["gravity"]) == NotFoundError.exit_status
    assert "store-kill" in capsys.readouterr().err


def test_cases_that_may_run_side_by_side_do_and_each_is_tried_once(tmp_path: Path) -> None:
    together = threading.Barrier(2, timeout=30)
    tried: list[int] = []

    @contextmanager
    def opened(work: Path) -> Iterator[Case]:
        def case(seed: int) -> Figures:
            if seed in (3, 4):
                together.wait()  # breaks unless the other is under way
            tried.append(seed)
            require(seed != 4, "4 is wrong")
            return {"number": seed}

        yield case

    law = Law("counting", "numbers are numbers", 5, opened, at_once=2, keeps_cases=True)
    book = book_in(tmp_path)
    entries = run(law, book, tmp_path, lambda text: None)
    assert sorted(tried) == [entry.seed for entry in entries] == [3, 4, 5, 6, 7]
    assert sorted(book.entries(), key=lambda entry: entry.seed) == entries
    evidence = make_evidence(law, book.heading, entries)
    assert [(case.seed, bool(case.failure)) for case in evidence.cases] == [(seed, seed == 4) for seed in range(3, 8)]
