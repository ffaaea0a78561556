"""The views of the record in the form of ERC-7992 and ERC-8004, with the usual questions to them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

from eth_abi.abi import encode
from eth_hash.auto import keccak
from web3.contract import Contract

from offchain.chain.sender import Receipt
from offchain.protocol.field import encode_elements
from offchain.protocol.types import Job, JobId, Link, ModelId, Phase, Policy
from tests.contracts.stage import OUTPUT, POLICY, Play, Stage, commitment_link, with_policy

NAMES = ("VerifiedInference", "ValidationRegistry")
UNKNOWN = JobId(keccak(b"unknown"))
RESULT = encode_elements(OUTPUT)
LIE = commitment_link(b"a lie")
UNPROVED = with_policy(proof_permille=0)
ALONE = with_policy(proof_permille=0, committee_size=1)


@dataclass(frozen=True)
class Views:
    """The views of a stage's record, and the usual questions to them."""

    stage: Stage
    inference: Contract
    validations: Contract

    def ask(self, contract: Contract, function: str, *arguments: Any) -> Any:
        """A free call from the owner's account."""
        with self.stage.chain.connection.translated(function):
            return contract.functions[function](*arguments).call({"from": self.stage.owner.address})

    def verify(self, job: Job, **changes: Any) -> Receipt:
        """Have a job's inference verified, as it is recorded but for the changes."""
        return self.stage.owner.send(self.verification(job, **changes))

    def verification(self, job: Job, **changes: Any) -> Any:
        """The call that :meth:`verify` sends."""
        fields = {
            "model_id": number(job.model_id),
            "input_commitment": self.input_commitment(job),
            "output": RESULT,
            "proof": job.id,
        }
        assert changes.keys() <= fields.keys()
        return self.inference.functions.verifyInference(*(fields | changes).values())

    def input_commitment(self, job: Job) -> bytes:
        """What ``inputCommitmentOf`` is to say."""
        chain_id, jobs = self.stage.contracts.connection.chain_id, self.stage.contracts.jobs.address
        types = ["bytes32", "uint256", "address", "bytes32", "bytes32"]
        return keccak(encode(types, [keccak(b"interlock.erc7992.input.v1"), chain_id, jobs, job.id, job.input_link]))

    def status(self, job: Job) -> dict[str, Any]:
        """What ``getValidationStatus`` says of a job, but for what is the same for all."""
        validator, agent, response, evidence, tag, updated = self.ask(self.validations, "getValidationStatus", job.id)
        assert (validator, agent) == (self.stage.contracts.jobs.address, number(job.model_id))
        return {"response": response, "tag": tag, "evidence": bytes(evidence), "updated": updated}


def number(model: ModelId) -> int:
    """A model's id as the drafts write it."""
    return int.from_bytes(model, "big")


def finish(
    stage: Stage,
    policy: Policy = POLICY,
    votes: Mapping[int, Mapping[str, Link]] | None = None,
    overturned: Collection[int] = (),
) -> Play:
    """Play a job to its end.

    Args:
        votes: by segment and worker, what is not the truth.
        overturned: segments where all but the first worker lie, and it proves so.
    """
    honest, *liars = stage.workers
    play = stage.request(policy).to_committing()
    segments = play.record.segments
    for segment in range(segments):
        lies = {liar.address: LIE for liar in liars} if segment in overturned else {}
        play.play_round({**lies, **(votes or {}).get(segment, {})})
        if segment in overturned:
            play.challenge(segment, honest)
    if play.phase is Phase.SAMPLING:
        play.draw()
        for segment in range(segments):
            play.prove(segment)
    if play.phase is Phase.CHALLENGEABLE:
        play.lapse()
    play.finalise()
    return play
