"""The tools that judge the contracts' tests do not pass for having done nothing."""

from __future__ import annotations

import pytest

from tools.branches.report import summary
from tools.branches.sites import Compiled, Site
from tools.mutation.campaign import NOTICED, SURVIVED, problems_of, read_accepted
from tools.mutation.operators import Mutant

pytestmark = pytest.mark.unit

SITES = [Site("contracts/A.sol", 10 * index, 5, index, "if") for index in range(2)]
COMPILED = Compiled(frozenset(SITES), (), (), frozenset())
MUTANT = Mutant("contracts/A.sol", 1, 0, 1, "operator", "<", "<=", "f | a < b | 1")


def test_summary__one_side_of_four_missing__is_named() -> None:
    lines, percent = summary(COMPILED, {SITES[0]: 3, SITES[1]: 1}, traces=1)
    assert percent == 75
    assert [line for line in lines if "missing" in line] != []


@pytest.mark.parametrize("traces", [0, 1])
def test_summary__nothing_measured__ends_the_program(traces: int) -> None:
    with pytest.raises(SystemExit):
        summary(COMPILED, {}, traces)


def test_problems_of__survivor_without_a_reason__is_one() -> None:
    assert problems_of([MUTANT], {MUTANT.key: SURVIVED}, set(), {MUTANT.key}) != []
    accepted = read_accepted(f"- `{MUTANT.key}` {MUTANT} in `f`: equal for all that can be reached\n")
    assert problems_of([MUTANT], {MUTANT.key: SURVIVED}, accepted, {MUTANT.key}) == []


def test_read_accepted__line_without_a_reason__is_none() -> None:
    assert read_accepted(f"- `{MUTANT.key}` {MUTANT} in `f`: \n") == set()


def test_problems_of__reason_for_what_is_noticed_or_gone__is_one() -> None:
    assert problems_of([MUTANT], {MUTANT.key: NOTICED}, {MUTANT.key}, {MUTANT.key}) != []
    assert problems_of([MUTANT], {MUTANT.key: SURVIVED}, {MUTANT.key, "0" * 12}, {MUTANT.key}) != []
