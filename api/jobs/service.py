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
from api.jobs.rows import JobRow, JobRows
from api.jobs.schemas import JobAccepted, JobAnswer, JobBody, MemberAnswer, ResultAnswer, SegmentAnswer
from offchain.chain.contracts import Contracts, read_job
from offchain.chain.errors import TransactionRefused
from offchain.chain.events import Event, job_events
from offchain.errors import InvalidInputError, RecoverableError
from offchain.protocol.duties import JobView
from offchain.protocol.field import dequantise
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, JobId, ModelId, Phase, Policy, Reason
from offchain.requester.inputs import read_input
from offchain.requester.policy import read_policy
from offchain.requester.receipt import build_receipt
from offchain.requester.requester import Requester
from offchain.storage.cid import digest_to_cid

_log = logging.getLogger(__name__)

GAS_RESERVE = 5_000_000
"""Gas that the gateway spends on one job at most: the request, the draws, the input, the end."""


class JobService:
    """The gateway's jobs.

    Args:
        rows: what was accepted.
        requester: the gateway's account.
        wake: called when a job was added.
    """

    def __init__(
        self,
        config: GatewayConfig,
        contracts: Contracts,
        requester: Requester,
        rows: JobRows,
        wake: Callable[[], None],
    ) -> None:
        self._config = config
        self._contracts = contracts
        self._requester = requester
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
        return accepted(row.job), is_new

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
            job=_hex(job),
            model=_hex(view.job.model_id),
            phase=view.phase.name.lower(),
            is_over=view.phase.is_terminal,
            requester=view.job.requester,
            fee_wei=str(view.job.fee_wei),
            policy=asdict(view.job.policy),
            segment=view.job.segment,
            deadline=view.job.deadline or None,
            block=view.block_number,
            segments=[_segment(view, index) for index in range(view.job.segments)],
            result=self._result(row, view),
            reason=self._reason(view),
            trouble=row.trouble if row else None,
        )

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
        if first_block is None:
            try:
                first_block = self._contracts.jobs.job_of(job).frozen_block
            except TransactionRefused:
                row = self._rows.get(job)
                return (), None, row is not None and row.refusal is not None
        head = self._contracts.connection.block_number()
        return job_events(self._contracts, job, first_block, head), head, False

    # --- accepting --------------------------------------------------------------------------------------------------

    def _validated(self, key: str, request_hash: bytes, body: JobBody) -> JobRow:
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
        elements = _read_elements(body.input, self._requester, model)
        self._requester.check_policy(model, policy)
        self._check_workers(model, policy)
        self._check_funds(fee_wei)
        salt = secrets.token_bytes(32)
        return JobRow(self._requester.job_id(salt), key, request_hash, salt, model, policy, fee_wei, elements)

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
                    f"there is no job {_hex(job)}",
                    field="job",
                    mend="use the id that POST /v1/jobs answered",
                ) from None
            return row, None

    def _waiting(self, row: JobRow) -> JobAnswer:
        return JobAnswer(
            job=_hex(row.job),
            model=_hex(row.model),
            phase="failed" if row.refusal else "accepted",
            is_over=row.refusal is not None,
            requester=self._requester.address,
            fee_wei=str(row.fee_wei),
            policy=asdict(row.policy) if row.policy else None,
            segment=0,
            deadline=None,
            block=None,
            segments=[],
            result=None,
            reason=row.refusal,
            trouble=row.trouble,
        )

    def _result(self, row: JobRow | None, view: JobView) -> ResultAnswer | None:
        if view.phase is Phase.FAILED or view.rounds[-1].settled_link == ZERO_HASH:
            return None
        elements = row.result if row else None
        if elements is None and view.job.requester != self._requester.address:
            return None
        try:
            elements = elements or self._requester.open_result(view).elements
            segment = self._requester.manifest(view.job.model_id).segments[-1]
        except (RecoverableError, InvalidInputError) as error:
            _log.info("the result of job %s cannot be shown now: %s", view.job.id.hex()[:8], error)
            return None
        values = dequantise(elements, segment.output_scale)
        return ResultAnswer(
            values=_nested(list(values), segment.output_shape),
            elements=[str(element) for element in elements],
            shape=list(segment.output_shape),
            top=max(range(len(values)), key=values.__getitem__),
        )

    def _reason(self, view: JobView) -> str | None:
        if view.phase is not Phase.FAILED:
            return None
        for event in job_events(self._contracts, view.job.id, view.job.frozen_block, view.block_number):
            if event.name == "JobFailed":
                return Reason(event.arguments["reason"]).name.lower()
        return None


def accepted(job: JobId) -> JobAccepted:
    """Say where to follow a job."""
    url = f"/v1/jobs/{_hex(job)}"
    return JobAccepted(job=_hex(job), status_url=url, events_url=f"{url}/events", receipt_url=f"{url}/receipt")


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
    field = str(first["loc"][0]) if first["loc"] else "body"
    mends = {"extra_forbidden": f"send only {', '.join(JobBody.model_fields)}", "missing": "add it"}
    mend = mends.get(first["type"], JobBody.model_fields[field].description if field in JobBody.model_fields else None)
    raise InvalidInputError(field, first["msg"], mend or "see /docs for what it takes")


def _canonical(body: JobBody) -> bytes:
    return json.dumps(body.model_dump(), sort_keys=True, separators=(",", ":")).encode()


def _read_elements(raw: list[Any], requester: Requester, model: ModelId) -> tuple[int, ...]:
    try:
        return read_input(raw, requester.manifest(model))
    except RecursionError:
        raise InvalidInputError("input", "it is nested too deeply", "send nested lists in the model's shape") from None


def _segment(view: JobView, index: int) -> SegmentAnswer:
    round_ = view.rounds[index]
    opening = view.job.input_link if index == 0 else view.rounds[index - 1].settled_link
    is_settled, is_proved = round_.settled_link != ZERO_HASH, round_.proof_hash != ZERO_HASH
    return SegmentAnswer(
        index=index,
        label=round_.label.name.lower(),
        link_in=None if opening == ZERO_HASH else _hex(opening),
        link_out=_hex(round_.settled_link) if is_settled else None,
        stake_for=str(round_.settled_weight),
        stake_total=str(round_.total_weight),
        committee=[
            MemberAnswer(
                operator=member.operator,
                stake_wei=str(member.weight),
                has_committed=member.commitment != ZERO_HASH,
                has_revealed=member.link != ZERO_HASH,
                agrees=member.link == round_.settled_link if is_settled and member.link != ZERO_HASH else None,
            )
            for member in round_.members
        ],
        prover=None if round_.prover == ZERO_ADDRESS else round_.prover,
        proved_by=round_.proved_by if is_proved else None,
        proof_cid=digest_to_cid(round_.proof_cid) if is_proved else None,
    )


def _nested(values: list[float], shape: tuple[int, ...]) -> Any:
    """Arrange row-major values as nested lists."""
    for size in reversed(shape[1:]):
        values = [values[start : start + size] for start in range(0, len(values), size)]  # type: ignore[misc]
    return values


def _hex(content: bytes) -> str:
    return "0x" + content.hex()
