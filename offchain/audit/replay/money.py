"""Who pays and who is paid: penalties, payouts, and what becomes of reputations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import takewhile

from offchain.audit.record import ordered_before
from offchain.audit.replay.findings import Topic
from offchain.audit.replay.state import BPS, ReplayState
from offchain.chain.events import Event
from offchain.protocol.types import ZERO_ADDRESS, ZERO_HASH, Address, Link, Member, Phase, Reason, Round

MAX_REPUTATION = 10_000
"""``Staking.MAX_REPUTATION``."""
PAYOUTS = Topic("payouts")
REPUTATION = Topic("reputation")

Credits = list[tuple[Address, int]]


class ReplayMoney(ReplayState):
    """The replay, with the rules by which stake and fees move."""

    # --- stake --------------------------------------------------------------------------------------------------------

    def penalise_miss(self, segment: int, member: Member, reason: Reason) -> None:
        """Burn a share of the stake that a member was drawn with."""
        topic, operator = self.topic("penalties", segment), member.operator
        event = self.expect(topic, "OperatorPenalised", segment, operator=operator, reason=int(reason))
        if event is not None:
            self.findings.note(topic, f"{operator} {reason.name}")
            full = member.weight * self.parameter("missPenaltyBps") // BPS
            self.check_slash(topic, event, operator, full, is_grave=False)

    def check_slash(self, topic: Topic, event: Event, operator: str, full: int, *, is_grave: bool) -> int:
        """Compare a penalty with what was taken out of the bond, and with the reputation; return what was taken."""
        taken = int(event.arguments["amount"])
        slashes = [it for it in self._earlier(event) if it.name == "Slashed"]
        if not slashes:
            self.findings.fault(topic, f"no stake of {operator} was taken")
            return taken
        slash = slashes[-1]
        said = (slash.arguments["operator"], slash.arguments["amount"])
        self.findings.compare(topic, "stake that was taken", (operator, taken), said)
        # A bond that is smaller than the penalty is taken whole.
        is_rest = taken < full and slash.arguments["active"] == slash.arguments["unbonding"] == 0
        if not is_rest:
            self.findings.compare(topic, f"penalty of {operator}", full, taken)
        if self.standings is not None:
            before = self.standings.reputation_before(operator, slash)
            after = self.standings.reputation_before(operator, event)
            self.findings.compare(topic, f"reputation of {operator}", 0 if is_grave else before // 2, after)
        return taken

    # --- fees ---------------------------------------------------------------------------------------------------------

    def fail(self, reason: Reason, payments: Credits | None = None) -> None:
        """The job fails: what is not paid goes back to the requester."""
        payments = payments or []
        refund = self.job.fee_wei - sum(amount for _, amount in payments)
        self.close(Phase.FAILED)
        event = self.expect(PAYOUTS, "JobFailed", reason=int(reason), refund=refund)
        if event is not None:
            self.check_credits(event, [*payments, (self.job.requester, refund)], f"failed ({reason.name})")

    def close(self, phase: Phase) -> None:
        """The job is over."""
        self.enter(phase, 0)
        self.job = replace(self.job, closed_at=self.now())

    def check_credits(self, closing: Event, payments: Credits, what: str) -> None:
        """Compare the credits right before the event that closes the job."""
        expected = _positive(payments)
        found = _credits(self._run_before(closing))
        # One transaction may hold more than this call: its credits are the last ones before the event.
        if self.findings.compare(PAYOUTS, "credits", expected, found[len(found) - len(expected) :]):
            accounts = len({account for account, _ in expected})
            self.findings.note(PAYOUTS, f"{what}: {self.job.fee_wei} wei to {accounts} accounts")

    def charge_requester(self, reason: Reason, link: Link, weight: int) -> None:
        """The job fails by its requester's fault: a segment's part of a share of the fee goes to those who said so."""
        job = self.job
        share = job.fee_wei * self.parameter("faultShareBps") // BPS // job.segments
        self.fail(reason, pay_by_weight(self.round(job.segment), link, weight, share))

    def check_payouts(self, closing: Event) -> None:
        """Compare what finalising credited, rounded down throughout, and commended."""
        job, share = self.job, self.parameter("proverShareBps")
        fee = job.fee_wei // job.segments
        payments: Credits = []
        for segment in range(job.segments):
            round_ = self.round(segment)
            for_prover = fee * share // BPS if round_.proved_by != ZERO_ADDRESS else 0
            payments.append((round_.proved_by, for_prover))
            payments += pay_by_weight(round_, round_.settled_link, round_.settled_weight, fee - for_prover)
        payments.append((job.requester, job.fee_wei - sum(amount for _, amount in payments)))
        self.check_credits(closing, payments, "finalised")
        self._check_commended(closing)

    def _check_commended(self, closing: Event) -> None:
        run = self._run_before(closing)
        if self.standings is None:
            self.findings.fault(REPUTATION, "unavailable: there are no changes to compare with")
            return
        first, standing, expected = (run[0] if run else closing), dict[Address, int](), []
        for segment in range(self.job.segments):
            for operator in (member.operator for member in self.round(segment).supporters):
                if operator not in standing:
                    standing[operator] = self.standings.reputation_before(operator, first)
                if standing[operator] < MAX_REPUTATION:
                    standing[operator] += 1
                    expected.append((operator, standing[operator]))
        found = [
            (Address(it.arguments["operator"]), it.arguments["reputation"])
            for it in run
            if it.name == "ReputationChanged"
        ]
        # One transaction may hold more than this call.
        if self.findings.compare(REPUTATION, "commended", expected, found[len(found) - len(expected) :]):
            self.findings.note(REPUTATION, f"{len(expected)} times one more segment without fault")

    def _earlier(self, event: Event) -> list[Event]:
        return list(filter(ordered_before(event), self.record.transaction_of(event)))

    def _run_before(self, closing: Event) -> list[Event]:
        """The credits and commendations that lead up to an event, in order."""
        names = ("Credited", "ReputationChanged")
        return list(takewhile(lambda it: it.name in names, reversed(self._earlier(closing))))[::-1]


def pay_by_weight(round_: Round, link: Link, weight: int, amount: int) -> Credits:
    """Share an amount among the members that revealed a link, rounding down; zero stands for those who did not."""
    return [(it.operator, amount * it.weight // weight) for it in round_.members if it.link == link]


def _positive(payments: Credits) -> Credits:
    return [(account, amount) for account, amount in payments if amount]


def _credits(events: Sequence[Event]) -> Credits:
    return [(Address(it.arguments["account"]), int(it.arguments["amount"])) for it in events if it.name == "Credited"]


NO_LINK = Link(ZERO_HASH)
