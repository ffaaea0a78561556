"""Reading descriptions of workers, and when a set of proofs is done on them."""

from __future__ import annotations

import pytest

from offchain.errors import InvalidInputError
from offchain.planning.workers import Load, WorkerClass, limit_memory, parse_workers, schedule

pytestmark = pytest.mark.unit
GIB = 1 << 30


def test_parse_workers__two_classes__are_read() -> None:
    assert parse_workers("2c,24g,9; 8C,1.5g,1") == (WorkerClass(2, 24 * GIB, 9), WorkerClass(8, 3 * GIB // 2, 1))


@pytest.mark.parametrize("text", ["", "2c", "2c,4g,0", "0c,4g,1", "2c,0g,1", "2,4,1", "2c,4g,1;"])
def test_parse_workers__nonsense__names_the_field(text: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        parse_workers(text)
    assert caught.value.field == "workers"


def test_limit_memory__larger_than_a_worker__changes_nothing() -> None:
    workers = (WorkerClass(2, 4 * GIB, 1), WorkerClass(2, 16 * GIB, 1))
    assert [group.memory_bytes for group in limit_memory(workers, 8)] == [4 * GIB, 8 * GIB]
    with pytest.raises(InvalidInputError):
        limit_memory(workers, 0)


def test_schedule__as_many_workers_as_proofs__ends_with_the_longest() -> None:
    assert schedule([Load(1.0, 0), Load(3.0, 0)], (WorkerClass(2, GIB, 2),), 2) == 3.0


def test_schedule__one_worker__adds_up() -> None:
    assert schedule([Load(1.0, 0), Load(3.0, 0)], (WorkerClass(2, GIB, 1),), 2) == 4.0


def test_schedule__short_proofs_first__still_begins_with_the_longest() -> None:
    loads = [Load(1.0, 0), Load(1.0, 0), Load(2.0, 0)]
    assert schedule(loads, (WorkerClass(2, GIB, 2),), 2) == 2.0


def test_schedule__twice_the_cores__half_the_time() -> None:
    assert schedule([Load(3.0, 0)], (WorkerClass(4, GIB, 1),), 2) == 1.5


def test_schedule__a_large_proof__waits_for_a_large_worker() -> None:
    workers = (WorkerClass(8, GIB, 1), WorkerClass(2, 4 * GIB, 1))
    assert schedule([Load(2.0, 2 * GIB), Load(1.0, 2 * GIB)], workers, 2) == 3.0
    assert schedule([Load(2.0, 5 * GIB)], workers, 2) is None
