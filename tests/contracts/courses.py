"""Courses that random moves hardly ever take."""

from __future__ import annotations

from collections.abc import Callable

from eth_hash.auto import keccak

from offchain.protocol.machine import Model
from offchain.protocol.types import ZERO_HASH, ModelId, Phase
from tests.contracts.appeals import appealed
from tests.contracts.players import ANSWERS, KINDS, SALT, Players
from tests.local_chain import ETHER

FEE = 10**15 + 7
NEWCOMER = 10
OPEN = [phase for phase in Phase if Phase.QUEUED < phase < Phase.FINALISABLE]


def _open(play: Players, size: int = 3, permille: int = 1000, model: int = 0) -> None:
    play.request(model, FEE, size, permille)


def _until(play: Players, phase: Phase, segment: int | None = None, votes: str = "ttt", job: int = 0) -> None:
    """Play a job until it is somewhere."""
    for _ in range(60):
        record = play.record(play.job(job))
        assert record is not None
        if play.phase(record.id) is phase and segment in (None, record.segment):
            return
        play.go_on(job, votes, 0)
    raise AssertionError(f"the job never came to {phase.name} of segment {segment}")


def _to_end(play: Players, votes: str = "ttt", job: int = 0) -> None:
    for _ in range(60):  # proofs of the second model never count: its jobs come to no end by themselves
        if not play.phase(play.job(job)).is_terminal:
            play.go_on(job, votes, 0)
    for who in range(len(play.sides.accounts)):
        play.claim(who)


def honest(play: Players) -> None:
    """With every rate of proofs; afterwards nothing can be done."""
    for index, (size, permille) in enumerate([(3, 1000), (2, 500), (1, 0)]):
        _open(play, size, permille)
        _to_end(play, job=index)
        play.draw(index)
        play.simple("settle", index, 0)
        play.simple("expire", index, 0)


def overturned(play: Players, segment: int, at: Phase, time: int) -> None:
    """Two of three lie about one segment, and the third proves it, wherever the job is by then."""
    play.sides.mine(1 + time)  # other times, other draws
    _open(play, permille=0 if at is Phase.CHALLENGEABLE else 1000)
    _until(play, Phase.COMMITTING, segment)
    _until(play, Phase.REVEALING, segment, "wwt")
    _until(play, at)
    if at is Phase.PROVING:  # one proof is there, another one stays due
        other = 1 if segment != 1 else 2
        prover = play.sides.machine.round_of(play.job(0), other).prover
        play.show("prove", 0, other, play.index(prover), announced=False)
    play.dissent(0)
    play.reseal_all(0)
    _to_end(play)


def overturned_under_a_committee(play: Players) -> None:
    """While the next segments are under way, one of which was drawn anew."""
    _open(play)
    _until(play, Phase.REVEALING, 0, "wwt")
    _until(play, Phase.COMMITTING, 1)
    play.go_on(0, "ttt", 7)
    play.draw(0)
    play.draw(0)
    play.reseal_all(0)
    _until(play, Phase.REVEALING, 1, "wwt")
    play.dissent(0)
    play.reseal_all(0)
    _until(play, Phase.REVEALING, 1)
    _to_end(play)


def contested(play: Players, votes: str, answered: bool) -> None:
    _open(play)
    _until(play, Phase.COMMITTING, 1)
    _until(play, Phase.CONTESTED, 1, votes)
    if not answered:
        play.lapse(0, 0)
    _to_end(play)


def voted(play: Players, votes: str, segment: int) -> None:
    """No output, but votes, and at segment 2 a silent member."""
    _open(play)
    _until(play, Phase.COMMITTING, segment)
    if segment == 2:
        _until(play, Phase.REVEALING, segment, votes)
        play.go_on(0, votes, 4)
    _to_end(play, votes)


def short(play: Players, segment: int, silent: int) -> None:
    """Committee after committee is silent, or nearly."""
    _open(play)
    _until(play, Phase.COMMITTING, segment)
    for _ in range(6):
        play.go_on(0, "ttt", silent)
        play.draw(0)
        play.draw(0)
        play.simple("provide_input", 0, 1, keccak(b"again"))
        play.reseal_all(0)
        play.reseal_all(0)
    _to_end(play)


def late(play: Players) -> None:
    """Windows lapse with just enough members; drawn provers are silent."""
    _open(play)
    for segment in range(3):
        _until(play, Phase.COMMITTING, segment)
        play.go_on(0, "ttt", 1 << segment)
        _until(play, Phase.REVEALING, segment)
        if segment == 1:
            play.go_on(0, "ttt", 1 << segment + 1)
    _until(play, Phase.PROVING)
    play.prove_all(0, True)
    _to_end(play)


def hashes_gone(play: Players) -> None:
    _open(play)
    for blocks in (256, 255, 254):
        play.sides.mine(blocks)
        play.draw(0)
    _to_end(play)


def proofs_late(play: Players) -> None:
    """One prover proves, the others let the job expire."""
    _open(play)
    _until(play, Phase.PROVING)
    for who in range(len(play.sides.accounts)):
        play.show("prove", 0, 1, who)
    play.lapse(0, 0)
    _to_end(play)


def wrong_proofs(play: Players) -> None:
    """Everything that a proof may be refused for."""
    _open(play)
    _until(play, Phase.PROVING, votes="twt")
    for segment in range(4):
        for who in range(len(play.sides.accounts)):
            play.show("prove", 0, segment, who, opening=2)
            play.show("prove", 0, segment, who, closing=2)
            play.show("prove", 0, segment, who, zero=True)
            play.show("challenge", 0, segment, who, opening=2)
            play.show("challenge", 0, segment, who, closing=0, announced=False)
    play.lapse(0, 400)
    for announced in (False, True):  # by now the drawn prover could copy, too
        prover = play.sides.machine.round_of(play.job(0), 0).prover
        play.show("prove", 0, 0, play.index(prover), announced=announced)
    play.prove_all(0, True)
    play.prove_all(0, False)
    _to_end(play)
    _open(play, size=3, permille=1000, model=1)
    _until(play, Phase.PROVING, job=1)
    play.prove_all(1, False)
    _to_end(play, job=1)


def in_one_block(play: Players) -> None:
    """What must not happen in the block of what it follows on."""
    play.stake("serve", NEWCOMER, play.model(1))
    play.commit_trial(NEWCOMER, 1, 1, ANSWERS[1])
    play.sides.in_same_block = True
    play.pass_trial(NEWCOMER, 1, ANSWERS[1])
    play.sides.in_same_block = False
    _open(play)
    play.sides.in_same_block = True
    play.draw(0)
    play.sides.in_same_block = False
    _until(play, Phase.CONTESTED, 0, "wvt")
    member = play.sides.machine.round_of(play.job(0), 0).members[2]
    who = play.index(member.operator)
    play.announce(0, 0, who, play.proof(0, 0, who))
    play.sides.in_same_block = True
    play.show("challenge", 0, 0, who, announced=False)
    play.sides.in_same_block = False


def queued(play: Players) -> None:
    """More jobs than may run; one is taken back, and the dearer ones overtake."""
    for fee in (FEE, FEE, FEE, FEE + 1, 2 * FEE):
        play.request(0, fee, 3, 0)
    play.simple("cancel", 2, 0)
    play.simple("cancel", 2, 1)
    _to_end(play, job=0)
    play.request(0, FEE, 3, 0)  # one more may run, but others wait
    for job in (1, 4, 3, 5):
        play.admit(0)
        _to_end(play, job=job)
    play.admit(0)


def requests_refused(play: Players) -> None:
    for fault in KINDS:
        play.request(0, FEE, 3, 0, fault)
    play.request(0, 1, 3, 0)
    play.request(0, FEE, 22, 0)
    play.request(0, FEE, 0, 0)
    play.request(0, FEE, 3, 1001)
    play.request(0, FEE, 3, 0)
    play.request(0, FEE, 3, 0, again=True)


def members_refused(play: Players) -> None:
    """Twice, too early, too late, or something else than what was committed to."""
    _open(play)
    _until(play, Phase.COMMITTING, 0)
    members = [play.index(member.operator) for member in play.sides.machine.round_of(play.job(0), 0).members]
    play.commit(0, 0, "t")
    for who, vote in zip(members, "tut", strict=True):
        play.commit(0, who, "t", zero=True)
        play.commit(0, who, "t", beside=(1, 0))
        play.commit(0, who, "t", beside=(0, 1))
        play.commit(0, who, vote)
        play.commit(0, who, vote)
        play.reveal(0, who)
    play.draw(0)
    play.reveal(0, 0)
    for who in members[:2]:
        for fault in ("link", "salt", "cid", None, None):
            play.reveal(0, who, fault)


def equivocated(play: Players) -> None:
    _open(play)
    _until(play, Phase.COMMITTING, 1)
    for member in range(4):
        for links, forged, revealed in [
            ((0, 0), None, False),
            ((1, 0), 0, True),
            ((1, 2), None, True),
            ((1, 2), 1, False),
            ((1, 0), None, member == 0),
            ((2, 1), None, False),
        ]:
            play.report_equivocation(0, 0, 0, member, links, forged, revealed)
    _to_end(play)


def stakes(play: Players) -> None:
    """Too few workers, too many models, and stake that takes its time to leave."""
    for name in ("bond", "start_unbonding"):
        play.stake(name, 0, 0)
    for name in ("serve", "serve", "stop_serving", "stop_serving"):
        play.stake(name, NEWCOMER, play.model(0))
    first = ModelId(b"")
    for index in range(16):
        model = ModelId(play.stage.register_segments(1, f"one of many {index}"))
        play.sides.machine.register(model, Model(1))
        play.sides.look_again()
        first = first or model
        play.stake("serve", NEWCOMER, model)
        play.stake("bond", NEWCOMER, 1)
    play.stake("serve", NEWCOMER, play.model(0))
    play.stake("stop_serving", NEWCOMER, first)
    play.stake("bond", NEWCOMER, 1)
    play.stake("serve", 0, play.model(0))
    play.look_after("set_encryption_key", 0, True)
    play.look_after("set_encryption_key", 0, False)
    play.stake("serve", 0, play.model(0))
    for who in range(2, 9):
        play.stake("start_unbonding", who, 2 * ETHER)
        play.stake("stop_serving", who, play.model(0))
    _open(play)
    play.draw(0)
    play.look_after("withdraw", 2, False)
    play.sides.move_to(play.sides.head.timestamp + 691_200)
    play.look_after("withdraw", 2, False)
    play.look_after("withdraw", 2, False)


def trials(play: Players) -> None:
    """One answer admits those that committed before it was shown."""
    for who, answer in ((NEWCOMER, ANSWERS[1]), (NEWCOMER + 1, ANSWERS[2])):
        play.stake("serve", who, play.model(1))
        for trial in (0, 1, 2):
            play.commit_trial(who, 1, trial, answer)
    for who in (NEWCOMER + 1, NEWCOMER, 5, NEWCOMER):
        for answer in ANSWERS:
            play.pass_trial(who, 1, answer)
    play.commit_trial(NEWCOMER + 1, 1, 1, ANSWERS[1])
    play.pass_trial(NEWCOMER + 1, 1, ANSWERS[1])
    play.stake("stop_serving", NEWCOMER, play.model(1))
    play.stake("serve", NEWCOMER, play.model(1))


def reputations(play: Players) -> None:
    """Earned by settled segments, halved by silence, lost by a lie."""
    for job in range(3):
        _open(play, permille=0)
        _to_end(play, job=job)
    _open(play, permille=0)
    _until(play, Phase.COMMITTING, 0, job=3)
    play.go_on(3, "ttt", 6)
    _until(play, Phase.REVEALING, 0, "wwt", job=3)
    _until(play, Phase.CHALLENGEABLE, job=3)
    play.dissent(3)
    _until(play, Phase.REVEALING, 1, job=3)
    play.go_on(3, "ttt", 4)
    _to_end(play, job=3)


def trial_overheard(play: Players) -> None:
    """Whoever commits in the very block in which the answer is shown has seen it."""
    for who in (NEWCOMER, NEWCOMER + 1):
        play.stake("serve", who, play.model(1))
    play.commit_trial(NEWCOMER, 1, 1, ANSWERS[1])
    commitment = play.trial_commitment(NEWCOMER + 1, 1, 1, ANSWERS[1])
    play.sides.together(
        (play.who(NEWCOMER + 1), "commit_trial", (play.model(1), 1, commitment)),
        (play.who(NEWCOMER), "pass_trial", (play.model(1), ANSWERS[1], SALT)),
    )
    play.pass_trial(NEWCOMER + 1, 1, ANSWERS[1])


def ended(play: Players, at: Phase, seconds: int) -> None:
    """The job's own end comes before the deadline of a phase, or with it."""
    votes = "wvt" if at is Phase.CONTESTED else "uut" if at is Phase.SETTLING else "ttt"
    _open(play, permille=0 if at is Phase.CHALLENGEABLE else 1000)
    if at is Phase.SETTLING:
        _until(play, Phase.REVEALING, 0)
        play.lapse(0, 0)
    else:
        _until(play, at, votes=votes)
    play.hasten(0, seconds)
    record = play.record(play.job(0))
    assert record is not None
    for timestamp in sorted({record.ends_at, record.deadline}):
        for moment in range(max(timestamp - 2, play.sides.head.timestamp + 1), timestamp + 1):
            play.sides.move_to(moment)
        play.simple("finalise", 0, 0)
        play.simple("expire", 0, 0)
    play.simple("provide_input", 0, 1, ZERO_HASH)
    _to_end(play)


COURSES: dict[str, Callable[[Players], None]] = {
    course.__name__: course
    for course in (
        honest,
        overturned_under_a_committee,
        late,
        hashes_gone,
        proofs_late,
        wrong_proofs,
        in_one_block,
        queued,
        requests_refused,
        members_refused,
        equivocated,
        stakes,
        trials,
        trial_overheard,
        reputations,
        appealed,
    )
}
COURSES |= {
    f"overturned at {segment} while {at.name}, {time}": lambda play, which=(segment, at, time): overturned(play, *which)
    for segment, at, times in [
        (0, Phase.CHALLENGEABLE, 1),
        (2, Phase.CHALLENGEABLE, 1),
        (1, Phase.SAMPLING, 1),
        (2, Phase.SAMPLING, 1),
        (0, Phase.PROVING, 1),
        (1, Phase.PROVING, 4),  # who is drawn to prove stays drawn: another draw has the same result once in three
        (2, Phase.PROVING, 1),
    ]
    for time in range(times)
}
COURSES |= {
    f"contested {votes} {answered}": lambda play, votes=votes, answered=answered: contested(play, votes, answered)
    for votes, answered in [("wvt", True), ("wvt", False), ("uut", True), ("uut", False), ("bbt", False), ("tub", True)]
}
COURSES |= {
    f"voted {votes} at {segment}": lambda play, votes=votes, segment=segment: voted(play, votes, segment)
    for votes, segment in [("uuu", 0), ("uuu", 1), ("bbb", 0), ("bbb", 2), ("uuu", 2), ("ubu", 1), ("ubb", 1)]
}
COURSES |= {
    f"short at {segment} {silent}": lambda play, segment=segment, silent=silent: short(play, segment, silent)
    for segment, silent in [(0, 7), (0, 6), (1, 6), (2, 3)]
}
COURSES |= {
    f"ended {seconds} while {at.name}": lambda play, at=at, seconds=seconds: ended(play, at, seconds)
    for at in OPEN
    for seconds in (200, 300)
}
