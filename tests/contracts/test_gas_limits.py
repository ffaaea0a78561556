"""The costliest transactions there can be, in the tallest tree of stakes: each has to fit into one (EIP-7825).

A step that fits into no transaction would lock a job until it lapses. Mock verifiers answer for next to nothing: a real
one adds 0.6 to 0.7 million to ``prove`` and ``challenge``, and ``Verifier.VERIFIER_GAS`` at most.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from offchain.chain.sender import Receipt
from offchain.chain.staking import APPEAL_GAS
from offchain.protocol.types import BAD_INPUT, UNAVAILABLE, Link, Phase, Reason
from tests.contracts.record import holds_of, penalties
from tests.contracts.stage import Play, Stage, commitment_link, with_policy
from tests.contracts.tall_tree import fill_tallest_tree
from tests.contracts.test_staking_reputation import have
from tests.local_chain import ETHER, GAS_CAP, InstantSender

pytestmark = [pytest.mark.integration, pytest.mark.slow]

SNAPSHOT = Path(__file__).parent / "gas_limits.json"
REWRITE = "INTERLOCK_REWRITE_GAS"
TOLERANCE = 0.1
"""Which leaves are drawn, and how much of the tree they share, differs from run to run."""
WRONG = commitment_link(b"a wrong output, the same for all".ljust(64))
VERIFIER_GAS = 4_000_000
HEAVY = 10**36
"""A stake beside which the light ones are drawn last."""


def compare(measured: dict[str, int]) -> None:
    """Hold what was measured against the cap, and against what was recorded."""
    recorded: dict[str, int] = json.loads(SNAPSHOT.read_text()) if SNAPSHOT.exists() else {}
    if os.environ.get(REWRITE):
        recorded |= measured
        SNAPSHOT.write_text(json.dumps(dict(sorted(recorded.items())), indent=2) + "\n")
    assert {case: gas for case, gas in measured.items() if gas > GAS_CAP} == {}
    moved = {
        case: (recorded.get(case), gas)
        for case, gas in measured.items()
        if abs(gas - recorded.get(case, 0)) > TOLERANCE * recorded.get(case, 0)
    }
    assert not moved, f"gas moved (recorded, measured): {moved}"


def gas_of(stage: Stage, move: Callable[[], Receipt]) -> int:
    """What a move costs; the chain is as before afterwards."""
    with stage.chain.isolated():
        return move().gas_used


def play_segments(play: Play, segments: int, liars: list[InstantSender]) -> int:
    """Everybody does its part in so many segments, but that some lie in the first; return the costliest draw."""
    most = 0
    for segment in range(segments):
        play.commit_all({worker.address: WRONG for worker in liars} if segment == 0 else {})
        if play.phase is Phase.DRAWING:
            most = max(most, play.draw().gas_used)
        for worker in play.members(segment):
            play.reveal(worker)
    return most


def test_moves__largest_committees_in_the_tallest_tree__each_fits_in_a_transaction(stage: Stage) -> None:
    """21 members in each of nine segments, 189 in all, and twenty workers more: one too few for another committee."""
    size, segments = 21, 9
    model = stage.register_segments(segments, "tall")
    # The last committee is drawn from the light ones: of any set of powers of three, one outweighs the others.
    stakes = [HEAVY] * (size * (segments - 1)) + [ETHER]
    for index in range(size - 1):
        stakes.insert(9 * index, ETHER * 3 ** (size - index))
        stakes.insert(9 * index + 4, ETHER)
    fill_tallest_tree(stage, model, stakes)
    policy = with_policy(committee_size=size, quorum_bps=5001, proof_permille=1000, input_seconds=3600)
    play = stage.request(policy, model_id=model)
    play.draw()
    play.provide_input()
    challenger, *liars = play.members()
    gas = {"21 x 9: draw": play_segments(play, segments - 1, liars)}

    members = play.members()
    weights = {member.operator: member.weight for member in play.round().members}
    top, low = (extreme(members, key=lambda worker: weights[worker.address]) for extreme in (max, min))
    for name, vote in (("unavailable", UNAVAILABLE), ("bad input", BAD_INPUT), ("output", None)):
        with stage.chain.isolated():
            play.commit(top, vote)
            play.lapse()
            gas[f"21 x 9: last reveal, 20 silent, {name}"] = play.reveal(top).gas_used
            assert play.phase is (Phase.CONTESTED if vote else Phase.SAMPLING)
            if vote:
                play.lapse()
                gas[f"21 x 9: expire, 20 silent, {name}"] = play.expire().gas_used
            taken = [reason for *_, reason, _ in penalties(play)]
            assert len(taken) == {"unavailable": size, "bad input": 0, "output": size - 1}[name], taken
    with stage.chain.isolated():
        play.commit(low)
        play.lapse()
        gas["21 x 9: draw that gives a committee up, 20 silent"] = play.draw().gas_used
        assert len(penalties(play)) == size - 1
        gas["21 x 9: draw of another committee, in vain and again"] = play.draw().gas_used
        assert play.phase is Phase.COMMITTING
    with stage.chain.isolated():
        play_last(play, members, {worker.address: WRONG for worker in members if worker != top})
        play.draw()
        assert play.round().prover == top.address
        gas["21 x 9: prove, 20 contradicted"] = play.prove(segments - 1).gas_used
        assert [reason for *_, reason, _ in penalties(play)] == [Reason.CONTRADICTED_PROOF] * (size - 1)
    play_last(play, members)
    gas["21 x 9: draw of proofs"] = play.draw().gas_used
    with stage.chain.isolated():
        play.lapse()
        gas["21 x 9: expire, no proof made"] = play.expire().gas_used
        assert len(penalties(play)) == segments
    for liar in liars:  # something more to be taken, and told
        have(stage, liar, 100)
    gas["21 x 9: challenge of the first segment"] = play.challenge(0, challenger).gas_used
    assert [reason for *_, reason, _ in penalties(play)] == [Reason.CONTRADICTED_PROOF] * (size - 1)
    gas |= gas_of_holds(play)
    assert gas["21 x 9: challenge of the first segment"] + VERIFIER_GAS < GAS_CAP
    compare(gas)


def gas_of_holds(play: Play) -> dict[str, int]:
    """The costliest appeal and release of what a challenge of the first segment had held."""
    staking, holds = play.stage.contracts.staking, holds_of(play)
    proof = play.proof(0)[0][:64] + b"a wrong output, the same for all".ljust(64) + play.proof(0)[0][128:]
    appeals = [gas_of(play.stage, partial(staking.appeal, play.stage.owner, hold, proof, ())) for hold in holds]
    assert max(appeals) + VERIFIER_GAS < APPEAL_GAS
    play.stage.chain.move_to(max(hold.release_at for hold in holds))
    releases = (gas_of(play.stage, partial(staking.release, play.stage.owner, hold)) for hold in holds)
    return {"21 x 9: appeal": max(appeals), "21 x 9: release": max(releases)}


def play_last(play: Play, members: list[InstantSender], votes: dict[str, Link] | None = None) -> None:
    play.commit_all(votes)
    for worker in members:
        play.reveal(worker)
    assert play.phase is Phase.SAMPLING


def test_moves__most_segments_in_the_tallest_tree__each_fits_in_a_transaction(stage: Stage) -> None:
    """12 members in each of 16 segments, 192 in all, and eleven workers more: one too few for another committee."""
    size, segments = 12, 16
    model = stage.register_segments(segments, "most members")
    fill_tallest_tree(stage, model, [ETHER] * (size * segments + size - 1))
    policy = with_policy(committee_size=size, quorum_bps=5001, proof_permille=1000, input_seconds=3600)
    play = stage.request(policy, model_id=model)
    play.draw()
    play.provide_input()
    challenger, *liars = play.members()
    gas = {"12 x 16: draw": play_segments(play, segments - 1, liars)}
    assert len({member.operator for segment in range(segments) for member in play.round(segment).members}) == 192
    with stage.chain.isolated():
        play.commit(play.members()[0])
        play.lapse()
        gas["12 x 16: draw that gives a committee up, 11 silent"] = play.draw().gas_used
        gas["12 x 16: draw of another committee, in vain and again"] = play.draw().gas_used
        assert play.phase is Phase.COMMITTING
    play_last(play, play.members())
    gas["12 x 16: draw of proofs"] = play.draw().gas_used
    with stage.chain.isolated():
        play.lapse()
        gas["12 x 16: expire, no proof made"] = play.expire().gas_used
        assert len(penalties(play)) == segments
    with stage.chain.isolated():
        gas["12 x 16: challenge of the first segment"] = play.challenge(0, challenger).gas_used
        assert play.record.attempts == (0, *[1] * (segments - 1))
        assert len(penalties(play)) == size - 1
    # What was settled on is wrong, and mocks prove that as well: every segment has a prover to be paid.
    for segment in range(segments):
        proof, instances = play.proof(segment, opening=opening_of(play, segment))
        if segment == 0:
            proof = proof[:64] + b"a wrong output, the same for all".ljust(64) + proof[128:]
        play.prove(segment, proof=proof, instances=instances)
    gas["12 x 16: finalise with reputations"] = play.finalise().gas_used
    credited = sum(1 for credit in stage.credits().values() if credit)
    assert credited >= size * segments - 1  # the challenger of the first segment, that did not challenge, has nothing
    compare(gas)


def opening_of(play: Play, segment: int) -> bytes | None:
    return b"a wrong output, the same for all".ljust(64) if segment == 1 else None
