"""Checking why a job asks for what it asks for: the route document that it names."""

from __future__ import annotations

from dataclasses import asdict

from offchain.audit.record import ChainRecord, read_number
from offchain.audit.report import CheckFailed
from offchain.protocol.manifest import Manifest
from offchain.protocol.route_document import MAX_ROUTE_BYTES, RouteDocument, disagreements, parse_route_document
from offchain.protocol.route_terms import ModelSize
from offchain.storage.cid import digest_to_cid
from offchain.storage.port import ContentReader

PARAMETERS = {
    "minimum_window_seconds": ("minimumWindowSeconds", "jobs"),
    "minimum_fee_wei": ("minimumFeeWei", "jobs"),
    "minimum_stake_wei": ("minimumStake", "staking"),
    "contradiction_penalty_bps": ("contradictionPenaltyBps", "jobs"),
    "prover_share_bps": ("proverShareBps", "jobs"),
}
"""Where the contracts keep what a route says of the deployment."""


def fetch_route(record: ChainRecord, store: ContentReader) -> RouteDocument:
    """Fetch the document, and decide again.

    Raises:
        InvalidInputError: its decision does not follow from its inputs.
        ContentUnavailable: it is not to be had.
    """
    return parse_route_document(store.get(digest_to_cid(record.job.route_cid), max_bytes=MAX_ROUTE_BYTES))


def check_route(record: ChainRecord, document: RouteDocument, manifest: Manifest | None) -> str:
    """The job is the one that was decided on, for this model and these contracts."""
    if manifest is None:
        raise CheckFailed("model of the route", "the job's", "unavailable: there is no manifest to compare it with")
    job = record.job
    lines = disagreements(document, job.policy, job.fee_wei, ModelSize.of(manifest))
    believed = asdict(document.conditions.deployment)
    for name, place in PARAMETERS.items():
        if (actual := read_number(record, *place)) != believed[name]:
            lines += (f"{name} is {actual}, and {believed[name]} was reckoned with",)
    if lines:
        raise CheckFailed("job and route", "to agree", "; ".join(lines))
    return " | ".join(document.route.reasons)
