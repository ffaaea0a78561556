"""The receipt of a finished job: where to find everything that an audit needs, and nothing that has to be believed."""

from __future__ import annotations

from typing import Any

from offchain.chain.contracts import Contracts
from offchain.chain.events import job_events
from offchain.errors import InvalidInputError
from offchain.protocol.duties import JobView
from offchain.protocol.manifest import Manifest
from offchain.protocol.types import ZERO_HASH, Phase
from offchain.storage.cid import digest_to_cid


def build_receipt(contracts: Contracts, view: JobView, manifest: Manifest) -> dict[str, Any]:
    """Describe a finished job by its record on chain.

    Raises:
        InvalidInputError: the job is not over.
    """
    if not view.phase.is_terminal:
        raise InvalidInputError("job", f"it is {view.phase.name.lower()}", "ask again when it is finalised or failed")
    deployment, job = contracts.deployment, view.job
    events = job_events(contracts, job.id, deployment.block, view.block_number)
    last = view.rounds[-1]
    return {
        "format": "interlock.receipt.v1",
        "chain_id": deployment.chain_id,
        "contracts": {
            "registry": deployment.registry,
            "verifier": deployment.verifier,
            "staking": deployment.staking,
            "jobs": deployment.jobs,
        },
        "job": "0x" + job.id.hex(),
        "model": "0x" + job.model_id.hex(),
        "phase": view.phase.name.lower(),
        "requester": job.requester,
        "fee_wei": str(job.fee_wei),
        "input_link": "0x" + job.input_link.hex(),
        "route_cid": None if job.route_cid == ZERO_HASH else digest_to_cid(job.route_cid),
        "result_link": "0x" + last.settled_link.hex() if view.phase is Phase.FINALISED else None,
        "evidence_root": "0x" + job.evidence_root.hex() if view.phase is Phase.FINALISED else None,
        "segments": [
            {
                "index": index,
                "attempt": job.attempts[index],
                "overturned": round_.overturned,
                "label": round_.label.name.lower(),
                "link": "0x" + round_.settled_link.hex(),
                "stake_for": str(round_.settled_weight),
                "stake_total": str(round_.total_weight),
                "prover": round_.proved_by if round_.proof_hash != ZERO_HASH else None,
                "proof_hash": "0x" + round_.proof_hash.hex() if round_.proof_hash != ZERO_HASH else None,
                "proof_cid": digest_to_cid(round_.proof_cid) if round_.proof_hash != ZERO_HASH else None,
            }
            for index, round_ in enumerate(view.rounds)
        ],
        "srs": {"origin": manifest.srs.origin, "digest": manifest.srs.digest, "log_rows": manifest.srs.log_rows},
        "transactions": [
            {"event": event.name, "transaction": event.transaction_hash, "block": event.block_number}
            for event in events
        ],
    }
