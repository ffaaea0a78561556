"""Accepting jobs and saying how they stand."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import Callable
from dataclasses import asdict
from typing import Any, NoReturn

from pydantic import ValidationError

from api.config import GatewayConfig
from api.errors import Fault, Refused
from api.jobs.answers import describe_accepted, describe_result, describe_segment, hexadecimal
from api.jobs.history import whole_history
from api.jobs.routes import describe_foreign, describe_own, require_deterrence
from api.jobs.routes import route as route_job
from api.jobs.rows import JobRow, JobRows
from api.jobs.schemas import DemandBody, JobAccepted, JobAnswer, JobBody, QueueAnswer, ResultAnswer, RouteAnswer
from offchain.chain.contracts import Contracts, read_job
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import Event, job_events
from offchain.errors import InvalidInputError, RecoverableError
from offchain.protocol.duties import JobView
from offchain.protocol.types import ZERO_HASH, JobId, ModelId, Phase, Policy, Reason
from offchain.requester.conditions import ConditionsReader
from offchain.requester.inputs import Batch, read_input, read_inputs
from offchain.requester.policy import read_policy
from offchain.requester.receipt import build_receipt
from offchain.requester.requester import Requester
from offchain.storage.cid import digest_to_cid
from offchain.storage.port import ContentReader

_log = logging.getLogger(__name__)

GAS_RESERVE = 5_000_000
"""Gas that the gateway spends on one job at most: the request, the draws, the input, the end."""


class JobService:
    """The gateway's jobs.

    Args:
        requester: the gateway's account.
        store: where other people's route documents lie.
        rows: what was accepted.
        wake: called when a job was added.
    """

    def __init__(
        self,
        config: GatewayConfig,
        contracts: Contracts,
        requester: Requester,
        store: ContentReader,
        rows: JobRows,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._contracts = contracts
        self._requester = requester
        self._store = store
        self._conditions = ConditionsReader(contracts, requester, config.declared)
        self._rows = rows
        self._wake = wake

    def accept(self, key: str, content: bytes) -> tuple[JobAccepted, bool]:
        """Validate a request and promise to run it, once per key.

        Returns:
            The job, and whether it is a new one.

        Raises:
            Refused, InvalidInputError: nothing was kept and nothing was sent.
        """
        body = _read_body(content)
        request_hash = hashlib.sha256(_canonical(body)).digest()
        row = self._rows.with_key(key)
        is_new = row is None
        if row is None:
            candidate = self._validated(key, request_hash, body)
            row = self._rows.add(candidate)
            is_new = row.job == candidate.job
        if row.request_hash != request_hash:
            raise Refused(
                Fault.IDEMPOTENCY_KEY_REUSED,
                f"the key was used for job 0x{row.job.hex()} with another request",
                field="Idempotency-Key",
                mend="use a new key for a new request",
            )
        if is_new:
            self._wake()
        return describe_accepted(row.job), is_new

    def show(self, job: JobId) -> JobAnswer:
        """Say how a job stands.

        Raises:
            Refused: ``unknown_job``.
        """
        row, view = self._find(job)
        if view is None:
            assert row is not None
            return self._waiting(row)
        return JobAnswer(
            job=hexadecimal(job),
            model=hexadecimal(view.job.model_id),
            phase=view.phase.name.lower(),
            is_over=view.phase.is_terminal,
            requester=view.job.requester,
            fee_wei=str(view.job.fee_wei),
            policy=asdict(view.job.policy),
            segment=view.job.segment,
            deadline=view.job.deadline or None,
            ends_at=view.job.ends_at or None,
            closed_at=view.job.closed_at or None,
            queue=self._queue(view),
            route=self._route(row, view),
            block=view.block_number,
            segments=[describe_segment(view, index) for index in range(view.job.segments)],
            result=self._result(row, view),
            reason=self._reason(view),
            trouble=row.trouble if row else None,
        )

    def cancel(self, job: JobId) -> JobAnswer:
        """Take a queued job back; one that was taken back before is left as it is.

        Raises:
            Refused: ``unknown_job``, ``not_requester``, ``not_queued``.
        """
        row, view = self._find(job)
        if view is not None and view.job.requester != self._requester.address:
            raise Refused(
                Fault.NOT_REQUESTER,
                f"{view.job.requester} requested the job",
                field="job",
                mend="cancel it through the gateway that submitted it",
            )
        phase = Phase.NONE if view is None else view.phase
        if phase is Phase.QUEUED:
            try:
                self._requester.cancel(job)
            except TransactionRefused as refused:
                if refused.error != "WrongPhase":
                    raise
                phase = self._contracts.jobs.phase_of(job)
            else:
                self._wake()
                return self.show(job)
        if view is not None and phase is Phase.FAILED and not view.job.frozen_block:
            return self.show(job)
        if phase is Phase.NONE and (row is None or row.refusal is None):
            message, mend = "the job is accepted, and not on the chain yet", "try again when it is queued"
        else:
            shown = "refused" if phase is Phase.NONE else phase.name.lower()
            message, mend = f"the job is {shown}", "leave it: a job that has started runs to its end"
        raise Refused(Fault.NOT_QUEUED, message, field="job", mend=mend)

    def receipt(self, job: JobId) -> dict[str, Any]:
        """The receipt of a job that is over.

        Raises:
            Refused: ``unknown_job``, ``no_receipt``.
        """
        _, view = self._find(job)
        if view is None or not view.phase.is_terminal:
            phase = "accepted" if view is None else view.phase.name.lower()
            raise Refused(
                Fault.NO_RECEIPT, f"the job is {phase}", field="job", mend="ask again when it is finalised or failed"
            )
        return build_receipt(self._contracts, view, self._requester.manifest(view.job.model_id))

    def require(self, job: JobId) -> None:
        """Check that a job exists.

        Raises:
            Refused: ``unknown_job``.
        """
        if self._rows.get(job) is None:
            self._find(job)

    def events(self, job: JobId, first_block: int | None) -> tuple[tuple[Event, ...], int | None, bool]:
        """Read a job's events, from the first one or from a block on.

        Returns:
            The events, the newest block that was looked at (None before the job is on the chain), and whether nothing
            can follow any more, because the contract will never take the job.
        """
        head = self._contracts.connection.block_number()
        if first_block is None:
            try:
                stored = self._contracts.jobs.job_of(job)
            except TransactionRefused:
                row = self._rows.get(job)
                return (), None, row is not None and row.refusal is not None
            return whole_history(self._contracts, stored, head), head, False
        return job_events(self._contracts, job, first_block, head), head, False

    # --- accepting --------------------------------------------------------------------------------------------------

    def _validated(self, key: str, request_hash: bytes, body: JobBody) -> JobRow:
        if body.demand is not None and "policy" in body.model_fields_set:
            raise InvalidInputError("policy", "it came with a demand, which chooses one", "send one of the two")
        model = ModelId(bytes.fromhex(body.model[2:]))
        policy = read_policy(body.policy)
        fee_wei = self._fee(body.fee_wei)
        if not self._contracts.registry.is_registered(model):
            raise Refused(
                Fault.UNKNOWN_MODEL,
                f"{body.model} is not registered",
                field="model",
                mend="register it, or use an id out of GET /v1/models",
            )
        batch = _read_batch(body, self._requester, model)
        document = None
        if body.demand is not None:
            manifest = self._requester.manifest(model)
            route = (document := route_job(self._conditions, model, manifest, body.demand, fee_wei)).route
            policy, fee_wei = route.policy, route.fee_wei
        self._requester.check_policy(model, policy)
        self._check_workers(model, policy)
        if document is None:
            require_deterrence(self._conditions, model, policy, fee_wei)
        self._check_funds(fee_wei)
        salt = secrets.token_bytes(32)
        job, chosen = self._requester.job_id(salt), None if document is None else document.to_bytes()
        return JobRow(
            job, key, request_hash, salt, model, policy, fee_wei, batch.elements, route=chosen, given=batch.given
        )

    def _fee(self, raw: int | str | None) -> int:
        if raw is None:
            return self._config.default_fee_wei
        if isinstance(raw, str) and not (raw.isascii() and raw.isdigit() and len(raw) <= 78):
            raise InvalidInputError("fee_wei", f"{raw[:80]!r} is not a whole number", "send wei, as a whole number")
        fee_wei, least = int(raw), self._contracts.jobs.minimum_fee()
        if not least <= fee_wei <= self._config.max_fee_wei:
            raise InvalidInputError(
                "fee_wei", "it is out of bounds", f"use {least} to {self._config.max_fee_wei}, or leave it out"
            )
        return fee_wei

    def _check_workers(self, model: ModelId, policy: Policy) -> None:
        try:
            self._requester.check_workers(model, policy)
        except InvalidInputError as error:
            raise Refused(Fault.TOO_FEW_WORKERS, error.problem, field=error.field, mend=error.mend) from error

    def _check_funds(self, fee_wei: int) -> None:
        connection = self._contracts.connection
        with connection.translated("eth_gasPrice"):
            gas_price = connection.web3.eth.gas_price
        waiting = self._rows.unsent()
        promised = sum(row.fee_wei for row in waiting) + (len(waiting) + 1) * GAS_RESERVE * gas_price
        if connection.balance(self._requester.address) < fee_wei + promised:
            raise Refused(
                Fault.OUT_OF_FUNDS,
                "the gateway's account cannot pay for the job",
                mend=f"send more of the chain's currency to {self._requester.address}",
            )

    # --- answering --------------------------------------------------------------------------------------------------

    def _find(self, job: JobId) -> tuple[JobRow | None, JobView | None]:
        row = self._rows.get(job)
        try:
            return row, read_job(self._contracts, job)
        except TransactionRefused:
            if row is None:
                raise Refused(
                    Fault.UNKNOWN_JOB,
                    f"there is no job {hexadecimal(job)}",
                    field="job",
                    mend="use the id that POST /v1/jobs answered",
                ) from None
            return row, None

    def _waiting(self, row: JobRow) -> JobAnswer:
        return JobAnswer(
            job=hexadecimal(row.job),
            model=hexadecimal(row.model),
            phase="failed" if row.refusal else "accepted",
            is_over=row.refusal is not None,
            requester=self._requester.address,
            fee_wei=str(row.fee_wei),
            policy=asdict(row.policy) if row.policy else None,
            segment=0,
            deadline=None,
            ends_at=None,
            closed_at=None,
            queue=None,
            route=None if row.route is None else describe_own(row.route),
            block=None,
            segments=[],
            result=None,
            reason=row.refusal,
            trouble=row.trouble,
        )

    def _queue(self, view: JobView) -> QueueAnswer | None:
        if view.phase is not Phase.QUEUED:
            return None
        running, waiting = self._contracts.jobs.load_of(view.job.model_id)
        return QueueAnswer(running=running, most_running=self._contracts.jobs.max_running_jobs(), waiting=waiting)

    def _route(self, row: JobRow | None, view: JobView) -> RouteAnswer | None:
        if row is not None and row.route is not None:
            return describe_own(row.route)
        if view.job.route_cid == ZERO_HASH:
            return None
        try:
            return describe_foreign(self._store, view.job, self._requester.manifest(view.job.model_id))
        except RecoverableError as error:
            _log.info("the route of job %s cannot be shown now: %s", view.job.id.hex()[:8], error)
            return RouteAnswer(cid=digest_to_cid(view.job.route_cid), reasons=None)

    def _result(self, row: JobRow | None, view: JobView) -> ResultAnswer | None:
        if view.phase is Phase.FAILED or view.rounds[-1].settled_link == ZERO_HASH:
            return None
        elements = row.result_of(view.rounds[-1].settled_link) if row else None
        if elements is None and view.job.requester != self._requester.address:
            return None
        try:
            elements = elements or self._requester.open_result(view).elements
            manifest = self._requester.manifest(view.job.model_id)
        except (RecoverableError, InvalidInputError) as error:
            _log.info("the result of job %s cannot be shown now: %s", view.job.id.hex()[:8], error)
            return None
        return describe_result(elements, manifest.segments[-1], manifest.batch, row.given if row else None)

    def _reason(self, view: JobView) -> str | None:
        if view.phase is not Phase.FAILED:
            return None
        if not view.job.frozen_block:
            return Reason.CANCELLED.name.lower()  # the one way out of the queue but its own turn
        for event in job_events(self._contracts, view.job.id, view.job.frozen_block, view.block_number):
            if event.name == "JobFailed":
                return Reason(event.arguments["reason"]).name.lower()
        return None


def _read_body(content: bytes) -> JobBody:
    try:
        raw = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise Refused(
            Fault.MALFORMED_BODY, f"the body is not JSON ({error})", field="body", mend="send one JSON object in UTF-8"
        ) from error
    if not isinstance(raw, dict):
        raise Refused(Fault.MALFORMED_BODY, "the body is no JSON object", field="body", mend="send one JSON object")
    try:
        return JobBody.model_validate(raw)
    except ValidationError as error:
        _refuse_field(error)


def _refuse_field(error: ValidationError) -> NoReturn:
    first = error.errors(include_input=False, include_url=False)[0]
    names = [str(name) for name in first["loc"]] or ["body"]
    fields = JobBody.model_fields
    if names[0] == "demand" and len(names) > 1:
        fields, names = DemandBody.model_fields, [f"demand.{names[1]}", names[1]]
    known = fields.get(names[-1] if names[0].startswith("demand.") else names[0])
    mends = {"extra_forbidden": f"send only {', '.join(fields)}", "missing": "add it"}
    mend = mends.get(first["type"], None if known is None else known.description)
    raise InvalidInputError(names[0], first["msg"], mend or "see /docs for what it takes")


def _canonical(body: JobBody) -> bytes:
    # A request without a demand, or several inputs, hashes as it did before there were any.
    content = body.model_dump(exclude={name for name in ("demand", "inputs") if getattr(body, name) is None})
    return json.dumps(content, sort_keys=True, separators=(",", ":")).encode()


def _read_batch(body: JobBody, requester: Requester, model: ModelId) -> Batch:
    if (body.input is None) == (body.inputs is None):
        raise InvalidInputError("input", "exactly one of input and inputs is needed", "send one of the two")
    field = "input" if body.inputs is None else "inputs"
    try:
        manifest = requester.manifest(model)
        if body.inputs is not None:
            return read_inputs(body.inputs, manifest)
        return Batch(read_input(body.input, manifest), manifest.batch)
    except RecursionError:
        raise InvalidInputError(field, "it is nested too deeply", "send nested lists in the model's shape") from None
