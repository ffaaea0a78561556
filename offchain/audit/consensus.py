"""What follows from a job's record as a whole: that it is over, what it rests on, and the block that shows it.

How it came about is replayed in :mod:`offchain.audit.replay`. Every function returns what it found in one clause, or
raises what is wrong.
"""

from __future__ import annotations

from offchain.audit.record import ChainRecord
from offchain.audit.report import require_equal
from offchain.protocol import hashing
from offchain.protocol.types import Phase


def check_phase(record: ChainRecord) -> str:
    """The job is finalised."""
    require_equal("phase", Phase.FINALISED.name, record.phase.name)
    return "finalised"


def check_block(record: ChainRecord) -> str:
    """The block at which everything was read is still part of the chain."""
    now = record.contracts.connection.block_hash(record.block_number)
    require_equal(f"hash of block {record.block_number}", record.block_hash, now)
    return f"read at block {record.block_number}"


def check_evidence_root(record: ChainRecord) -> str:
    """The recorded root is over exactly this record."""
    root = hashing.evidence_root(record.chain_id, record.jobs, record.job, record.rounds)
    require_equal("evidence root", root, record.job.evidence_root)
    announced = record.one("JobFinalised").arguments
    require_equal("announced evidence root", root, announced["evidenceRoot"])
    require_equal("announced result", record.rounds[-1].settled_link, announced["resultLink"])
    return "0x" + root.hex()
