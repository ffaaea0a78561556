"""Stake that a proof took: held, and given back to whoever proves its own output too, or burnt (``Staking.sol``)."""

from __future__ import annotations

from offchain.audit.record import calldata_of, ordered_before, read_number
from offchain.audit.replay.findings import Topic
from offchain.audit.replay.money import MAX_REPUTATION, ReplayMoney
from offchain.audit.replay.state import BPS, as_operator
from offchain.chain.events import Event
from offchain.chain.staking import hold_of
from offchain.protocol.types import ZERO_ADDRESS, Address, Hold, Link, Member, Reason

APPEAL_SECONDS = 86_400
"""``Staking.APPEAL_SECONDS``."""


class ReplayHolds(ReplayMoney):
    """The replay, with the rules by which stake is held."""

    def hold(self, segment: int, member: Member, opening: Link, challenger: str) -> None:
        """Take stake of a member whose output a proof contradicts, and hold it."""
        topic, operator = self.topic("penalties", segment), member.operator
        held_event = self.expect(topic, "SlashHeld", segment, operator=operator)
        reason = Reason.CONTRADICTED_PROOF
        event = self.expect(topic, "OperatorPenalised", segment, operator=operator, reason=int(reason))
        if event is None or held_event is None:
            return
        self.findings.note(topic, f"{operator} {reason.name}, held")
        full = member.weight * self.parameter("contradictionPenaltyBps") // BPS
        taken = self.check_slash(topic, event, operator, full, is_grave=True)
        held = hold_of(held_event.arguments)
        expected = Hold(
            job_id=self.job.id,
            model_id=self.job.model_id,
            segment=segment,
            attempt=topic.attempt,
            operator=operator,
            opening=opening,
            link=member.link,
            challenger=Address(challenger),
            amount=taken,
            reputation=self._reputation_before_slash(operator, event, held.reputation),
            release_at=self.now() + APPEAL_SECONDS,
        )
        self.findings.compare(topic, f"what is held of {operator}", expected, held)
        self.holds[segment, topic.attempt, operator] = expected

    def _reputation_before_slash(self, operator: str, event: Event, claimed: int) -> int:
        if self.standings is None:
            return claimed
        is_earlier = ordered_before(event)
        logs = [it for it in self.record.transaction_of(event) if it.name == "Slashed" and is_earlier(it)]
        return self.standings.reputation_before(operator, logs[-1]) if logs else claimed

    # --- how it ends --------------------------------------------------------------------------------------------------

    def appealed(self, event: Event) -> None:
        """A proof of the member's own output, with the same opening, gave it everything back."""
        topic, held = self._ended(event)
        if held is None:
            return
        self.findings.compare(topic, f"given back to {held.operator}", held.amount, event.arguments["amount"])
        if self.now() >= held.release_at:
            self.findings.fault(topic, f"{held.operator} got its stake back after the time for an appeal")
        call = calldata_of(self.record, event, "appeal", "staking")
        if call is not None:
            verifier = self.record.contracts.verifier
            links = verifier.verify_segment(held.model_id, held.segment, call["proof"], call["instances"])
            self.findings.compare(topic, f"links of {held.operator}'s proof", (held.opening, held.link), links)
        if self.standings is not None and held.reputation:
            standing = self.standings.reputation_before(held.operator, event) + held.reputation
            transaction = self.record.transaction_of(event)
            following = [it for it in transaction if it.log_index > event.log_index][:1]
            found = [(it.name, it.arguments.get("operator"), it.arguments.get("reputation")) for it in following]
            expected = [("ReputationChanged", held.operator, min(standing, MAX_REPUTATION))]
            self.findings.compare(topic, f"reputation of {held.operator}", expected, found)
        self.findings.note(
            topic, f"{held.operator} proved its own output too and got {held.amount} wei back: this circuit admits both"
        )

    def released(self, event: Event) -> None:
        """Nobody appealed in time: shared between challenger and requester, one half or more burnt."""
        topic, held = self._ended(event)
        if held is None:
            return
        if self.now() < held.release_at:
            self.findings.fault(topic, f"what was held of {held.operator} was released in the time for an appeal")
        names = ("challengerShareBps", "requesterShareBps") if held.challenger != ZERO_ADDRESS else ()
        shares = [held.amount * read_number(self.record, name, "staking") // BPS for name in names] or [0, 0]
        said = [int(event.arguments[name]) for name in ("forChallenger", "forRequester")]
        self.findings.compare(topic, f"shares of what was held of {held.operator}", shares, said)
        payments = list(zip((held.challenger, self.job.requester), shares, strict=True))
        expected = [(account, amount) for account, amount in payments if amount]
        is_earlier = ordered_before(event)
        logs = [it for it in self.record.transaction_of(event) if it.name == "Credited" and is_earlier(it)]
        credited = [(Address(it.arguments["account"]), int(it.arguments["amount"])) for it in logs]
        self.findings.compare(topic, "compensation", expected, credited[len(credited) - len(expected) :])
        self.findings.note(topic, f"{held.amount - sum(shares)} wei of {held.operator} burnt, {sum(shares)} shared")

    def _ended(self, event: Event) -> tuple[Topic, Hold | None]:
        segment, attempt = int(event.arguments["segment"]), int(event.arguments["attempt"])
        operator = as_operator(event.arguments["operator"])
        topic = Topic("penalties", segment, attempt)
        held = self.holds.pop((segment, attempt, operator), None)
        if held is None:
            self.findings.fault(topic, f"nothing of {operator} was held")
        return topic, held
