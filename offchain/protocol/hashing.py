"""Every hash of the protocol, byte for byte as the contracts compute it.

Each is Keccak-256 over ``abi.encode`` of a domain tag, the chain id, the contract and the values (Solidity ABI, section
"Formal Specification of the Encoding"), so that nothing made for one job, chain or contract can be used for another.
``tests/vectors/hashing.json`` is shared with the contracts' tests.
"""

from __future__ import annotations

from collections.abc import Sequence

from eth_abi.abi import encode
from eth_hash.auto import keccak

from offchain.protocol.types import Address, Job, JobId, Link, Round


def _tag(name: str, version: int = 1) -> bytes:
    return keccak(f"interlock.{name}.v{version}".encode())


MODEL_TAG = _tag("model", 2)
JOB_TAG = _tag("job")
COMMIT_TAG = _tag("commit", 2)
SEED_TAG = _tag("seed")
DRAW_TAG = _tag("draw")
SAMPLE_TAG = _tag("sample")
PROVER_TAG = _tag("prover")
EVIDENCE_TAG = _tag("evidence")
PROOF_TAG = _tag("proof")
TRIAL_TAG = _tag("trial")
ANSWER_TAG = _tag("answer")

DOMAIN_TYPEHASH = keccak(b"EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)")
RESULT_TYPEHASH = keccak(b"Result(bytes32 jobId,uint256 segment,uint256 attempt,bytes32 link)")

SEGMENT_SPEC_ABI = "(bytes32,bytes32,uint8,uint8,uint8,uint8,uint32,uint32[],uint32[])"


def model_id(
    manifest_hash: bytes,
    manifest_cid: bytes,
    segment_specs: Sequence[tuple[object, ...]],
    trials: Sequence[bytes] = (),
) -> bytes:
    """The id of a model, from its manifest's hash and CID and its segments' specs (``Registry.modelIdOf``).

    Args:
        manifest_hash: Keccak-256 of the manifest's bytes.
        manifest_cid: SHA-256 digest inside the manifest's CIDv0.
        segment_specs: per segment the fields of ``SegmentSpec`` in ``IRegistry.sol``, in order.
        trials: per trial the :func:`answer_hash` of what a new worker has to find.
    """
    return keccak(
        encode(
            ["bytes32", "bytes32", "bytes32", f"{SEGMENT_SPEC_ABI}[]", "bytes32[]"],
            [MODEL_TAG, manifest_hash, manifest_cid, list(segment_specs), list(trials)],
        )
    )


def job_id(chain_id: int, jobs: Address, requester: Address, salt: bytes) -> JobId:
    """The id of a job (``Jobs.jobIdOf``): known before it is sent, and the same however often it is sent."""
    return JobId(
        keccak(
            encode(["bytes32", "uint256", "address", "address", "bytes32"], [JOB_TAG, chain_id, jobs, requester, salt])
        )
    )


def commitment(
    chain_id: int, jobs: Address, job: JobId, segment: int, attempt: int, operator: Address, link: Link, salt: bytes
) -> bytes:
    """A member's commitment to its output, or to its vote (``Jobs.commitmentOf``)."""
    return keccak(
        encode(
            ["bytes32", "uint256", "address", "bytes32", "uint256", "uint256", "address", "bytes32", "bytes32"],
            [COMMIT_TAG, chain_id, jobs, job, segment, attempt, operator, link, salt],
        )
    )


def announcement(
    chain_id: int, jobs: Address, job: JobId, segment: int, attempt: int, operator: Address, proof: bytes
) -> bytes:
    """What binds a member to a proof before anybody can see it (``Jobs.announcementOf``).

    Args:
        proof: the proof's :func:`proof_hash`.
    """
    return keccak(
        encode(
            ["bytes32", "uint256", "address", "bytes32", "uint256", "uint256", "address", "bytes32"],
            [PROOF_TAG, chain_id, jobs, job, segment, attempt, operator, proof],
        )
    )


def answer_hash(answer: bytes) -> bytes:
    """What the chain keeps of the answer to a trial."""
    return keccak(encode(["bytes32", "bytes32"], [ANSWER_TAG, answer]))


def trial_answer(links: Sequence[Link]) -> bytes:
    """The answer to a trial: one hash over the closing links of all segments, run on the trial's input."""
    return keccak(encode(["bytes32", "bytes32[]"], [ANSWER_TAG, list(links)]))


def trial_commitment(
    chain_id: int, staking: Address, model: bytes, trial: int, operator: Address, answer: bytes, salt: bytes
) -> bytes:
    """A candidate's commitment to its answer (``Staking.trialCommitmentOf``)."""
    return keccak(
        encode(
            ["bytes32", "uint256", "address", "bytes32", "uint256", "address", "bytes32", "bytes32"],
            [TRIAL_TAG, chain_id, staking, model, trial, operator, answer, salt],
        )
    )


def result_digest(chain_id: int, staking: Address, job: JobId, segment: int, attempt: int, link: Link) -> bytes:
    """EIP-712 digest of a result that an operator signs (``Staking.resultDigestOf``)."""
    domain = keccak(
        encode(
            ["bytes32", "bytes32", "bytes32", "uint256", "address"],
            [DOMAIN_TYPEHASH, keccak(b"Interlock"), keccak(b"1"), chain_id, staking],
        )
    )
    result = keccak(
        encode(["bytes32", "bytes32", "uint256", "uint256", "bytes32"], [RESULT_TYPEHASH, job, segment, attempt, link])
    )
    return keccak(b"\x19\x01" + domain + result)


def committee_seed(chain_id: int, jobs: Address, job: JobId, segment: int, entropy: bytes) -> bytes:
    """The seed of a segment's committee, from the hash of the job's seed block."""
    return _seed(SEED_TAG, chain_id, jobs, job, segment, entropy)


def sample_seed(chain_id: int, jobs: Address, job: JobId, segment: int, entropy: bytes) -> bytes:
    """The number that decides whether a segment must be proved: modulo 1,000, below the policy's rate, it must."""
    return _seed(SAMPLE_TAG, chain_id, jobs, job, segment, entropy)


def _seed(tag: bytes, chain_id: int, jobs: Address, job: JobId, segment: int, entropy: bytes) -> bytes:
    return keccak(
        encode(
            ["bytes32", "uint256", "address", "bytes32", "uint256", "bytes32"],
            [tag, chain_id, jobs, job, segment, entropy],
        )
    )


def proof_hash(proof: bytes, instances: Sequence[int]) -> bytes:
    """What the chain keeps of a proof that it verified: ``keccak256(abi.encode(proof, instances))``."""
    return keccak(encode(["bytes", "uint256[]"], [proof, list(instances)]))


def evidence_root(chain_id: int, jobs: Address, job: Job, rounds: Sequence[Round]) -> bytes:
    """One root over all that the job's record rests on, as ``Jobs.finalise`` computes it."""
    root = keccak(
        encode(
            ["bytes32", "uint256", "address", "bytes32", "bytes32", "bytes32", "uint8"],
            [EVIDENCE_TAG, chain_id, jobs, job.id, job.model_id, job.input_link, job.segments],
        )
    )
    for index, round_ in enumerate(rounds):
        root = keccak(
            encode(
                ["bytes32", "uint256", "uint8", "bytes32", "uint256", "uint256", "bytes32", "bytes32"],
                [
                    root,
                    index,
                    int(round_.label),
                    round_.settled_link,
                    round_.settled_weight,
                    round_.total_weight,
                    round_.proof_hash,
                    round_.proof_cid,
                ],
            )
        )
    return root
