"""What each entry point costs, for three workers and three segments with mock verifiers.

``INTERLOCK_REWRITE_GAS=1 make test PYTEST_ARGS=tests/contracts/test_gas.py`` writes what was measured to ``gas.json``,
which is committed together with what moved it. A real verifier adds its own cost to ``Jobs.prove``.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.chain.sender import Receipt
from offchain.protocol.types import ModelId, Phase
from tests.contracts.stage import Stage, with_policy
from tests.contracts.test_jobs_rounds import penalties_of
from tests.local_chain import ETHER, GAS_CAP

pytestmark = pytest.mark.integration

SNAPSHOT = Path(__file__).parent / "gas.json"
REWRITE = "INTERLOCK_REWRITE_GAS"
TOLERANCE = 0.02
Note = Callable[[str, Receipt], None]


def measure(stage: Stage) -> dict[str, int]:
    """Gas by entry point and case; the highest where a case occurs several times."""
    gas: dict[str, int] = {}

    def note(case: str, receipt: Receipt) -> None:
        gas[case] = max(gas.get(case, 0), receipt.gas_used)

    measure_operators(stage, note)
    measure_job(stage, note)
    measure_faults(stage, note)
    return dict(sorted(gas.items()))


def measure_operators(stage: Stage, note: Note) -> None:
    staking, registry = stage.contracts.staking, stage.contracts.registry
    worker = stage.chain.instant("gas")
    head = stage.contracts.connection.block_number()
    stage.register_segments(3, "gas")
    mined = [stage.chain.rpc("eth_getBlockByNumber", hex(head + 1 + index), True) for index in range(4)]
    registration = stage.chain.rpc("eth_getTransactionReceipt", mined[-1]["transactions"][0]["hash"])
    note("Registry.registerModel", Receipt("", 0, int(registration["gasUsed"], 16), ""))
    note("Registry.grantAccess", registry.grant_access(stage.owner, stage.model, keccak(b"grant")))
    note("Staking.setEncryptionKey", staking.set_encryption_key(worker, keccak(b"key")))
    note("Staking.bond", staking.bond(worker, 2 * ETHER))
    note("Staking.serve", staking.serve(worker, stage.model))
    note("Staking.bond (serving)", staking.bond(worker, ETHER))
    note("Staking.startUnbonding", staking.start_unbonding(worker, ETHER))
    note("Staking.stopServing", staking.stop_serving(worker, stage.model))
    stage.chain.advance(400_000)
    note("Staking.withdraw", staking.withdraw(worker))


def measure_job(stage: Stage, note: Note) -> None:
    head = stage.contracts.connection.block_number()
    play = stage.request()
    requested = stage.chain.rpc("eth_getBlockByNumber", hex(head + 1), True)["transactions"][0]["hash"]
    note(
        "Jobs.request",
        Receipt("", 0, int(stage.chain.rpc("eth_getTransactionReceipt", requested)["gasUsed"], 16), ""),
    )
    note("Jobs.draw (committee)", play.draw())
    note("Jobs.provideInput", play.provide_input())
    for _ in range(3):
        *most, last = play.members()
        for worker in most:
            note("Jobs.commit", play.commit(worker))
        note("Jobs.commit (last)", play.commit(last))
        if play.record.segment < 2:
            note("Jobs.draw (committee)", play.draw())
        for worker in most:
            note("Jobs.reveal", play.reveal(worker))
        note("Jobs.reveal (settles)", play.reveal(last))
    note("Jobs.draw (proofs)", play.draw())
    for segment in range(3):
        note("Jobs.prove", play.prove(segment))
    note("Jobs.finalise", play.finalise())
    note("Jobs.claim", stage.contracts.jobs.claim(stage.workers[0]))


def measure_faults(stage: Stage, note: Note) -> None:
    play = stage.request()
    play.lapse()
    note("Jobs.expire", play.expire())
    play = stage.request().to_committing().to_revealing()
    for worker in play.members()[:2]:
        play.reveal(worker)
    play.lapse()
    note("Jobs.settle (one silent)", play.settle())
    play = stage.request(with_policy(proof_permille=0)).to_committing().to_revealing()
    play.lapse()
    note("Jobs.settle (all silent)", play.settle())
    play = stage.request(with_policy(proof_permille=0)).to_committing().to_revealing()
    # Always the same one: the leaves of two penalised workers may or may not share a node of the tree.
    play.reveal(stage.workers[0])
    play.lapse()
    note("Jobs.settle (all but one silent)", play.settle())


def test_gas__every_entry_point__is_what_was_recorded(stage: Stage) -> None:
    measured = measure(stage)
    if os.environ.get(REWRITE):
        SNAPSHOT.write_text(json.dumps(measured, indent=2) + "\n")
    recorded: dict[str, int] = json.loads(SNAPSHOT.read_text())
    moved = {
        case: (recorded.get(case), measured.get(case))
        for case in sorted(measured.keys() | recorded.keys())
        if abs(measured.get(case, 0) - recorded.get(case, 0)) > TOLERANCE * recorded.get(case, 0)
    }
    mend = f"{REWRITE}=1 make test PYTEST_ARGS=tests/contracts/test_gas.py"
    assert not moved, f"gas moved (recorded, measured): {moved}; if that is meant, rewrite the snapshot: {mend}"
    assert max(measured.values()) < GAS_CAP


def test_settle__largest_committee_of_the_busiest_workers__fits_in_a_transaction(stage: Stage) -> None:
    # A settling that no transaction can hold would lock the fee for ever: a lapsed round has no other way out.
    models = [stage.register_segments(1, f"busy {index}") for index in range(16)]
    stage.workers = tuple(stage.chain.instant(f"busy {index}") for index in range(21))
    for worker in stage.workers:
        stage.join(worker, 2 * ETHER, models[0])
        for model in models[1:]:
            stage.contracts.staking.serve(worker, model)
    play = stage.request(with_policy(committee_size=21), model_id=models[0]).to_committing()
    # With nobody at all nobody is penalised, so one commits.
    play.commit(play.members()[0])
    stage.chain.move_to(play.record.deadline + play.record.policy.reveal_seconds)
    assert play.settle().gas_used < GAS_CAP // 3
    assert play.phase is Phase.FAILED
    assert len(penalties_of(play)) == 20


def leaf_counter(stage: Stage, model: ModelId) -> int:
    """Where the number of leaves of a model's tree is stored, found by what it must hold.

    Source: Solidity documentation, "Layout of State Variables in Storage".
    """
    staking = stage.contracts.staking
    for slot in range(8):
        place = int.from_bytes(keccak(encode(["bytes32", "uint256"], [model, slot])), "big") + 1
        stored = stage.chain.rpc("eth_getStorageAt", staking.address, hex(place), "latest")
        if int(stored, 16) == staking._read("leafCount", model) != 0:
            return place
    raise AssertionError("the trees are in none of the first slots")


MEMBERS, SEGMENTS = 192, 16
LEAVES = 1 << 16


def fill_tallest_tree(stage: Stage, model: ModelId) -> None:
    """Let as many workers serve as a job has members at most, spread over a tree of the greatest height.

    Leaves between them are passed over by setting their number, as if 2^16 accounts had come and gone.
    """
    stage.workers = tuple(stage.chain.instant(f"spread {index}") for index in range(MEMBERS))
    stage.join(stage.workers[0], ETHER, model)
    place = leaf_counter(stage, model)
    heights = [1 << height for height in range(16)]  # each step of height copies the sum of the one before
    spread = [leaf for leaf in range(3, LEAVES, LEAVES // MEMBERS) if leaf not in heights]
    leaves = sorted([*heights, *spread[len(spread) - (MEMBERS - 1 - len(heights)) :]])
    for worker, leaf in zip(stage.workers[1:], leaves, strict=True):
        stage.chain.rpc("anvil_setStorageAt", stage.contracts.staking.address, hex(place), f"0x{leaf:064x}")
        stage.join(worker, ETHER, model)
    assert stage.contracts.staking._read("leafCount", model) > LEAVES - 2 * LEAVES // MEMBERS


def test_job__most_members_in_the_tallest_tree__every_step_fits_in_a_transaction(stage: Stage) -> None:
    """The last draw passes over 180 members and has exactly twelve left; finalising pays 192."""
    model = stage.register_segments(SEGMENTS, "most members")
    fill_tallest_tree(stage, model)
    size = MEMBERS // SEGMENTS
    play = stage.request(with_policy(committee_size=size, proof_permille=1000, input_seconds=3600), model_id=model)
    gas = {"draw": play.draw().gas_used, "settle": 0}
    play.provide_input()
    for segment in range(SEGMENTS):
        for worker in play.members():
            play.commit(worker)
        if segment + 1 < SEGMENTS:
            gas["draw"] = max(gas["draw"], play.draw().gas_used)
        for worker in play.members(segment):
            gas["settle"] = max(gas["settle"], play.reveal(worker).gas_used)
    gas["draw of proofs"] = play.draw().gas_used
    for segment in range(SEGMENTS):
        play.prove(segment)
    gas["finalise"] = play.finalise().gas_used
    earlier = {worker.address for segment in range(SEGMENTS) for worker in play.members(segment)}
    assert len(earlier) == MEMBERS
    # Where eleven are left, the draw is made twice: once in vain.
    frozen, staking = play.record.frozen_block, stage.contracts.staking
    again = staking.contract.functions.draw(model, frozen, keccak(b"seed"), size, []).estimate_gas()
    gas["draw in vain and again"] = gas["draw"] + again
    assert max(gas.values()) < GAS_CAP, gas
