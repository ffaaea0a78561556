"""A member that votes for the right output and hands on something else keeps nobody from the honest copies."""

from __future__ import annotations

from dataclasses import replace

import pytest

from offchain.chain.contracts import Contracts
from offchain.protocol.duties import JobView
from offchain.protocol.field import FIELD_MODULUS, encode_elements
from offchain.protocol.types import ModelId
from offchain.proving.port import SegmentCircuit
from offchain.proving.service import ProverService
from offchain.storage.cid import cid_to_digest
from offchain.storage.port import ContentStore
from offchain.storage.sealing import encryption_key, seal
from offchain.worker.executor import Executor, NoUsableInput
from tests.harness import Elements, Play

pytestmark = pytest.mark.integration

SEGMENT = 1


class Serving(Executor):
    """A worker that has loaded its model already."""

    served: tuple[SegmentCircuit, ...]

    def circuits(self, model_id: ModelId) -> tuple[SegmentCircuit, ...]:
        return self.served


def test_execute__first_copy_is_poisoned__takes_an_honest_one(contracts: Contracts, proving: Play) -> None:
    for poison in poisons(proving.inputs[SEGMENT]):
        work = executor(contracts, proving).execute(poisoned(proving, poison, copies=1), SEGMENT)
        assert (work.inputs, work.outputs) == (proving.inputs[SEGMENT], proving.inputs[SEGMENT + 1])


def test_execute__every_copy_is_out_of_range__is_no_usable_input(contracts: Contracts, proving: Play) -> None:
    out_of_range = poisons(proving.inputs[SEGMENT])[0]
    view = poisoned(proving, out_of_range, copies=3)
    # None of them has the link that was settled: the input itself may be a good one, and cannot be had.
    with pytest.raises(NoUsableInput):
        executor(contracts, proving).execute(view, SEGMENT)


def poisons(honest: Elements) -> tuple[Elements, ...]:
    """What the circuit cannot take, what it takes and is another's, and what has another length."""
    return (FIELD_MODULUS // 2,) * len(honest), (honest[0] + 1, *honest[1:]), honest[1:]


def executor(contracts: Contracts, play: Play) -> Serving:
    worker = play.workers[play.view().rounds[SEGMENT].members[0].operator]
    service = ProverService(play.prover, memory_bytes=1 << 30)
    serving = Serving(contracts, play.store, play.prover, service, worker.identity)
    serving.served = play.model.circuits
    return serving


def poisoned(play: Play, elements: Elements, copies: int) -> JobView:
    """The job as it stands, but for what the first supporters of the segment before handed on."""
    view = play.view()
    cid = cid_to_digest(pin(play.store, play, view, elements))
    before = view.rounds[SEGMENT - 1]
    bad = {member.operator for member in before.supporters[:copies]}
    members = tuple(replace(it, activation_cid=cid) if it.operator in bad else it for it in before.members)
    rounds = list(view.rounds)
    rounds[SEGMENT - 1] = replace(before, members=members)
    return replace(view, rounds=tuple(rounds))


def pin(store: ContentStore, play: Play, view: JobView, elements: Elements) -> str:
    staking = play.contracts.staking
    keys = [encryption_key(staking.encryption_key_of(member.operator)) for member in view.rounds[SEGMENT].members]
    return store.put(seal(encode_elements(elements), keys))
