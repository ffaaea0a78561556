"""What a job demands becomes the policy, the fee and the reasons that it is requested with; or a refusal."""

from __future__ import annotations

import json
import logging

from api.errors import Fault, Refused
from api.jobs.schemas import DemandBody, RouteAnswer
from offchain.errors import InvalidInputError
from offchain.protocol.economics import PERMILLE, RateTooLow, Unroutable
from offchain.protocol.manifest import Manifest
from offchain.protocol.route_document import (
    MAX_ROUTE_BYTES,
    RouteDocument,
    disagreements,
    parse_route_document,
    write_route_document,
)
from offchain.protocol.route_terms import Criticality, Demand, ModelSize, Privacy
from offchain.protocol.types import Job, ModelId, Policy
from offchain.requester.conditions import ConditionsReader
from offchain.storage.cid import cid_of, digest_to_cid
from offchain.storage.port import ContentReader

_log = logging.getLogger(__name__)

_DEMANDED = ("latency_seconds", "privacy", "proof_permille")


def route(
    conditions: ConditionsReader, model: ModelId, manifest: Manifest, body: DemandBody, budget_wei: int
) -> RouteDocument:
    """Choose policy and fee for what is demanded.

    Raises:
        Refused: ``unroutable``.
    """
    demand = Demand(
        criticality=Criticality(body.criticality),
        privacy=Privacy(body.privacy),
        model=ModelSize.of(manifest),
        latency_seconds=body.latency_seconds,
        budget_wei=budget_wei,
        proof_permille=body.proof_permille,
    )
    try:
        return write_route_document(demand, conditions.read(model))
    except Unroutable as error:
        names = {"budget_wei": "fee_wei"} | {name: f"demand.{name}" for name in _DEMANDED}
        raise _refused(error, names.get(error.field, error.field), error.mend) from error


def require_deterrence(conditions: ConditionsReader, model: ModelId, policy: Policy, fee_wei: int) -> None:
    """Refuse a policy whose proofs are too rare to deter anybody.

    Raises:
        Refused: ``unroutable``, with the numbers.
    """
    try:
        conditions.require_deterrence(model, policy, fee_wei)
    except RateTooLow as error:
        mend = f"{error.mend}, or for {PERMILLE}, or for 0 and rely on agreement"
        raise _refused(error, "policy.proof_permille", mend) from error


def describe_own(document: bytes) -> RouteAnswer:
    """Describe a route that this gateway took; nobody has to check it."""
    return RouteAnswer(cid=cid_of(document), reasons=json.loads(document)["reasons"])


def describe_foreign(store: ContentReader, job: Job, manifest: Manifest) -> RouteAnswer:
    """Describe a route that somebody else took; without reasons if the job does not follow from its document.

    Raises:
        RecoverableError: the document cannot be had now.
    """
    cid = digest_to_cid(job.route_cid)
    try:
        document = parse_route_document(store.get(cid, max_bytes=MAX_ROUTE_BYTES))
    except InvalidInputError as error:
        _log.info("the route %s is none: %s", cid, error)
        return RouteAnswer(cid=cid, reasons=None)
    lines = disagreements(document, job.policy, job.fee_wei, ModelSize.of(manifest))
    return RouteAnswer(cid=cid, reasons=None if lines else list(document.route.reasons))


def _refused(error: Unroutable, field: str, mend: str) -> Refused:
    return Refused(Fault.UNROUTABLE, f"{field}: {error.problem}", field=field, mend=mend)
