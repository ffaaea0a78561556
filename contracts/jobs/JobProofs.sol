// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {JobRounds} from "./JobRounds.sol";
import {IJobs, Job, Member, Phase, Reason, Round} from "../interfaces/IJobs.sol";
import {Hold} from "../interfaces/IStaking.sol";
import {Tally} from "../libraries/Tally.sol";

/// @title Proofs: what a drawn prover owes, and what a challenger may
abstract contract JobProofs is JobRounds {
    /// @inheritdoc IJobs
    function announce(bytes32 jobId, uint256 segment, bytes32 announcement) external {
        Job storage job = _requireOpen(jobId);
        _requireValue(announcement, "announcement");
        Member storage member = _memberOf(_round(jobId, job, segment), jobId, segment, msg.sender);
        member.announcement = announcement;
        member.announcedBlock = uint48(block.number);
        emit ProofAnnounced(jobId, segment, msg.sender, announcement);
    }

    /// @inheritdoc IJobs
    function prove(
        bytes32 jobId,
        uint256 segment,
        bytes calldata proof,
        uint256[] calldata instances,
        bytes32 proofCid
    ) external {
        Job storage job = _requirePhase(jobId, Phase.Proving);
        if (segment >= job.segments) revert ProofNotDue(jobId, segment);
        Round storage round = _round(jobId, job, segment);
        if (round.prover == address(0)) revert ProofNotDue(jobId, segment);
        if (round.proofHash != 0) revert AlreadyProved(jobId, segment);
        _requireProver(jobId, segment, job, round);
        _acceptProof(jobId, segment, round.settledLink, proof, instances, proofCid);

        if (--job.proofsDue == 0) _awaitProofs(jobId, job);
        if (msg.sender != round.prover) {
            _penaliseMiss(jobId, segment, _memberOf(round, jobId, segment, round.prover), Reason.MissedProof);
        }
        _penaliseContradicted(jobId, segment, round, address(0));
    }

    /// @inheritdoc IJobs
    function challenge(
        bytes32 jobId,
        uint256 segment,
        bytes calldata proof,
        uint256[] calldata instances,
        bytes32 proofCid
    ) external {
        Job storage job = _requireOpen(jobId);
        if (segment > job.segment) revert NothingToChallenge(jobId, segment, msg.sender);
        Round storage round = _round(jobId, job, segment);
        if (round.proofHash != 0) revert AlreadyProved(jobId, segment);
        bytes32 before = round.settledLink;
        bytes32 link;
        {
            link = _memberOf(round, jobId, segment, msg.sender).link;
            bool isContested = segment == job.segment && job.phase == Phase.Contested;
            if (!Tally.isOutput(link) || link == before || (before == 0 && !isContested)) {
                revert NothingToChallenge(jobId, segment, msg.sender);
            }
        }
        _acceptProof(jobId, segment, link, proof, instances, proofCid);

        round.settledLink = link;
        round.settledWeight = Tally.weightFor(round.members, link);
        if (before == 0) {
            emit SegmentSettled(jobId, segment, link, round.settledWeight, round.totalWeight);
            _advance(jobId, job);
        } else {
            round.overturned = true;
            emit SegmentOverturned(
                jobId, segment, msg.sender, before, link, Tally.weightFor(round.members, before)
            );
            _resume(jobId, job, segment);
        }
        _penaliseContradicted(jobId, segment, round, msg.sender);
    }

    // --- who may ---------------------------------------------------------------------------------------------------------

    /// Any phase from the first draw on, until the job is decided.
    function _requireOpen(bytes32 jobId) private view returns (Job storage job) {
        job = _jobs[jobId];
        Phase phase = _phase(jobId, job);
        if (phase < Phase.AwaitingInput || phase > Phase.Challengeable) revert WrongPhase(jobId, phase);
    }

    function _requireProver(bytes32 jobId, uint256 segment, Job storage job, Round storage round) private view {
        if (msg.sender == round.prover) return;
        bytes32 link = _memberOf(round, jobId, segment, msg.sender).link;
        if (!_isOpenToAll(job) || link != round.settledLink) revert NotProver(jobId, segment, msg.sender);
    }

    /// Whether the drawn provers' own time is over.
    function _isOpenToAll(Job storage job) private view returns (bool) {
        return block.timestamp + job.policy.proveSeconds >= job.deadline;
    }

    /// INVARIANT: what a copier can lift from a pending transaction is worth nothing to it.
    function _requireAnnounced(bytes32 jobId, uint256 segment, Round storage round, bytes32 proofHash) private view {
        Job storage job = _jobs[jobId];
        // The drawn prover alone may prove until its time is over. After that it could copy like anybody else.
        if (msg.sender == round.prover && !_isOpenToAll(job)) return;
        Member storage member = _memberOf(round, jobId, segment, msg.sender);
        bytes32 expected = announcementOf(jobId, segment, _attempt(job, segment), msg.sender, proofHash);
        if (member.announcement != expected) revert ProofNotAnnounced(jobId, segment, msg.sender, expected);
        if (member.announcedBlock >= block.number) revert AnnouncementTooFresh(member.announcedBlock, block.number);
    }

    // --- what a proof does -----------------------------------------------------------------------------------------------

    /// @param link What the proof has to close with.
    function _acceptProof(
        bytes32 jobId,
        uint256 segment,
        bytes32 link,
        bytes calldata proof,
        uint256[] calldata instances,
        bytes32 proofCid
    ) private {
        _requireValue(proofCid, "proofCid");
        Round storage round = _round(jobId, _jobs[jobId], segment);
        bytes32 proofHash = keccak256(abi.encode(proof, instances));
        _requireAnnounced(jobId, segment, round, proofHash);
        bytes32 opening = _openingOf(jobId, segment);
        _verify(jobId, segment, opening, link, proof, instances);
        round.proofHash = proofHash;
        round.proofCid = proofCid;
        round.provedBy = msg.sender;
        emit SegmentProved(jobId, segment, msg.sender, opening, link, proofHash, proofCid);
    }

    function _verify(
        bytes32 jobId,
        uint256 segment,
        bytes32 opening,
        bytes32 closing,
        bytes calldata proof,
        uint256[] calldata instances
    ) private view {
        // Interaction: a static call, which can change nothing.
        (bytes32 linkIn, bytes32 linkOut) = verifier.verifySegment(_jobs[jobId].modelId, segment, proof, instances);
        // INVARIANT: the interlock. A valid proof counts only between the links that its neighbours stand by.
        if (linkIn != opening) revert OpeningLinkMismatch(segment, opening, linkIn);
        if (linkOut != closing) revert ClosingLinkMismatch(segment, closing, linkOut);
    }

    /// The link that a proof of the segment has to open with.
    function _openingOf(bytes32 jobId, uint256 segment) private view returns (bytes32) {
        Job storage job = _jobs[jobId];
        return segment == 0 ? job.inputLink : _round(jobId, job, segment - 1).settledLink;
    }

    /// Takes stake of each member whose output is not the proved one, and has it held: its own may be proved as well. Votes are
    /// no outputs.
    function _penaliseContradicted(bytes32 jobId, uint256 segment, Round storage round, address challenger) private {
        Hold memory held;
        held.jobId = jobId;
        held.modelId = _jobs[jobId].modelId;
        held.segment = segment;
        held.attempt = _attempt(_jobs[jobId], segment);
        held.opening = _openingOf(jobId, segment);
        held.challenger = challenger;
        bytes32 proved = round.settledLink;
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member storage member = round.members[i];
            if (!Tally.isOutput(member.link) || member.link == proved) continue;
            held.operator = member.operator;
            held.link = member.link;
            held.amount = member.weight * contradictionPenaltyBps / BPS;
            uint256 taken = staking.hold(held);
            emit OperatorPenalised(jobId, segment, member.operator, Reason.ContradictedProof, taken);
        }
    }

    /// The job goes on behind an overturned segment: all that followed on it is to be done again.
    function _resume(bytes32 jobId, Job storage job, uint256 segment) private {
        bool isSampled = job.phase == Phase.Proving || job.phase == Phase.Challengeable;
        uint256 reached = job.segment;
        job.segment = uint8(segment);
        if (_isLast(job)) {
            if (!isSampled) return; // the seed that is to sample stays, or it could be thrown away for another
            job.proofsDue = 0;
            for (uint256 i = 0; i < segment; ++i) {
                Round storage round = _round(jobId, job, i);
                if (round.prover != address(0) && round.proofHash == 0) ++job.proofsDue;
            }
            return _awaitProofs(jobId, job);
        }
        job.proofsDue = 0;
        job.seedBlock = 0;
        for (uint256 i = segment + 1; i < job.segments && i <= reached + 1; ++i) {
            if (_round(jobId, job, i).members.length != 0) _reopen(jobId, job, i, i == segment + 1);
        }
        _advance(jobId, job);
    }

    /// Opens a new attempt at a segment. Right behind the overturned one its committee stays: it did nothing wrong, and the
    /// proved output is sealed to it already, unless it was drawn after that.
    function _reopen(bytes32 jobId, Job storage job, uint256 segment, bool sameCommittee) private {
        Round storage before = _round(jobId, job, segment);
        _nextAttempt(job, segment);
        uint16 attempt = _attempt(job, segment);
        emit SegmentReopened(jobId, segment, attempt, sameCommittee);
        if (!sameCommittee) return;
        Round storage round = _round(jobId, job, segment);
        round.totalWeight = before.totalWeight;
        for (uint256 i = 0; i < before.members.length; ++i) {
            Member storage member = round.members.push();
            (member.operator, member.weight) = (before.members[i].operator, before.members[i].weight);
        }
        Member[] storage senders = _round(jobId, job, segment - 1).members;
        for (uint256 i = 0; i < senders.length; ++i) {
            if (senders[i].sealedFor + 1 == attempt) senders[i].sealedFor = attempt;
        }
    }
}
