"""What deters a member from answering without computing, in whole numbers.

Checking a segment with chance p deters if p(1 − r)(R + S) > C: C is what is saved by not computing, R the reward and
S the stake that are lost when a proof shows another output, and r the chance that the check itself is bought. R and S
are taken at their least, C at its most, so that what deters the lightest member on the dearest segment deters all.

What this does not say: where a whole committee is of one mind, nobody is left to prove another output. The job then
runs out of time and pays nobody, but slashes nobody for a contradiction; that chance belongs into r. And one bond
stands behind every job that its operator works for at the same time, so S is lost only once.

Source: the inequality is the project's threat 43; the paper (arXiv 2407.19401) was not available in full. Steps of
0.1 % follow its companion protocol.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

from offchain.errors import InvalidInputError

BPS = 10_000
PERMILLE = 1000


class Unroutable(InvalidInputError):
    """What is demanded cannot be had under the conditions, and nothing less is put in its place."""


class RateTooLow(Unroutable):
    """Proofs at this rate do not deter.

    Args:
        deterrence: the numbers of both sides.
        least_permille: the smallest rate that would deter; None if none does.
    """

    def __init__(self, deterrence: Deterrence, least_permille: int | None) -> None:
        if least_permille is None:
            mend = "offer a higher fee, or use a deployment with more stake or a higher penalty: no rate deters"
        else:
            mend = f"ask for at least {least_permille} permille"
        super().__init__("proof_permille", f"{deterrence.permille} permille does not deter: {deterrence}", mend)
        self.deterrence = deterrence
        self.least_permille = least_permille


@dataclass(frozen=True)
class Deterrence:
    """Both sides of the inequality.

    Args:
        permille: p, the chance that a segment must be proved, 0 to 1,000.
        collusion_bps: r, the declared chance that a check is bought, 0 to 10,000 (basis points).
        reward_wei: R, see :func:`member_reward_wei`.
        slashed_wei: S, see :func:`slashed_wei`.
        cost_wei: C, what a member saves by not computing a segment.
    """

    permille: int
    collusion_bps: int
    reward_wei: int
    slashed_wei: int
    cost_wei: int

    @property
    def expected_loss_wei(self) -> Fraction:
        """p(1 − r)(R + S): what not computing costs on average."""
        chance = Fraction(self.permille, PERMILLE) * Fraction(BPS - self.collusion_bps, BPS)
        return chance * (self.reward_wei + self.slashed_wei)

    @property
    def deters(self) -> bool:
        """Whether not computing loses more than it saves; where both are equal, it does not deter."""
        return self.expected_loss_wei > self.cost_wei

    def __str__(self) -> str:
        loss, sign = self.expected_loss_wei, ">" if self.deters else "<="
        shown = str(loss) if loss.denominator == 1 else f"{loss.numerator}/{loss.denominator}"
        return (
            f"p(1-r)(R+S) = {self.permille}/{PERMILLE} * {BPS - self.collusion_bps}/{BPS}"
            f" * ({self.reward_wei} + {self.slashed_wei}) = {shown} wei {sign} C = {self.cost_wei} wei"
        )


def least_proof_permille(collusion_bps: int, reward_wei: int, slashed_wei: int, cost_wei: int) -> int | None:
    """Find the smallest rate, in steps of 0.1 %, that deters.

    Returns:
        1 to 1,000; None if not even proving every segment deters.
    """
    at_stake = (BPS - collusion_bps) * (reward_wei + slashed_wei)
    if at_stake <= 0:
        return None
    least = cost_wei * PERMILLE * BPS // at_stake + 1  # strictly more: the next step even where the quotient is whole
    return least if least <= PERMILLE else None


def require_deterrence(deterrence: Deterrence) -> None:
    """Check that a rate deters.

    Raises:
        RateTooLow: it does not; the error says the numbers and the least rate that does.
    """
    if not deterrence.deters:
        least = least_proof_permille(
            deterrence.collusion_bps, deterrence.reward_wei, deterrence.slashed_wei, deterrence.cost_wei
        )
        raise RateTooLow(deterrence, least)


def member_reward_wei(
    fee_wei: int,
    segments: int,
    committee_size: int,
    prover_share_bps: int,
    least_weight_wei: int,
    largest_weight_wei: int,
) -> int:
    """Bound from below what a member that did not prove is paid for a proved segment.

    Its share is the least where it is as light and all others are as heavy as can be, and all of them agreed. Rounded
    down at each step as ``Jobs.finalise`` does.

    Args:
        least_weight_wei, largest_weight_wei: of any operator that can be drawn.
    """
    segment_fee_wei = fee_wei // segments
    voters_fee_wei = segment_fee_wei - segment_fee_wei * prover_share_bps // BPS
    return voters_fee_wei * least_weight_wei // (least_weight_wei + (committee_size - 1) * largest_weight_wei)


def slashed_wei(weight_wei: int, contradiction_penalty_bps: int) -> int:
    """What a member of this weight loses when a proof contradicts it, rounded down as ``Jobs`` does."""
    return weight_wei * contradiction_penalty_bps // BPS


def least_fee_wei(
    segments: int, committee_size: int, prover_share_bps: int, cost_wei: int, proof_cost_wei: int | None
) -> int | None:
    """Find the smallest fee that pays its workers what they spend.

    The fee is split evenly over the segments. Of a proved segment's part the prover gets its share, rounded down, which
    has to cover the dearest proof; the committee gets the rest, which has to cover one computation for each member.

    Args:
        proof_cost_wei: of the dearest proof; None if nothing is proved.

    Returns:
        Wei; None if no fee does, because a side that spends something gets no share.
    """
    computing_wei = committee_size * cost_wei
    if proof_cost_wei is None:
        return segments * computing_wei
    voters_share_bps = BPS - prover_share_bps
    if (proof_cost_wei and not prover_share_bps) or (computing_wei and not voters_share_bps):
        return None
    for_prover = -(-proof_cost_wei * BPS // prover_share_bps) if proof_cost_wei else 0
    # What the prover's share loses by rounding goes to the voters, so theirs is rounded up.
    for_voters = (computing_wei - 1) * BPS // voters_share_bps + 1 if computing_wei else 0
    return segments * max(for_prover, for_voters)
