// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {JobRecord} from "./JobRecord.sol";
import {IJobs, Job, Member, Phase, Reason, Round} from "../interfaces/IJobs.sol";
import {Policies} from "../libraries/Policies.sol";
import {Tally} from "../libraries/Tally.sol";

/// @title Rounds: draw, commit, reveal, tally
abstract contract JobRounds is JobRecord {
    /// @inheritdoc IJobs
    function draw(bytes32 jobId) external {
        Job storage job = _jobs[jobId];
        Phase phase = _phase(jobId, job);
        if (phase != Phase.Requested && phase != Phase.Drawing && phase != Phase.Sampling) {
            revert WrongPhase(jobId, phase);
        }
        // A commit phase that lapsed left no seed block behind: the first call after it fixes one.
        if (job.phase == Phase.Committing) return _closeCommitting(jobId, job);
        if (block.number <= job.seedBlock) revert SeedNotReady(job.seedBlock, block.number);
        bytes32 entropy = blockhash(job.seedBlock);
        if (entropy == 0) return _setSeedBlock(jobId, job);
        job.seedBlock = 0;

        uint256 segment = job.segment;
        if (phase == Phase.Sampling) {
            _drawProofs(jobId, job, entropy);
        } else if (_round(jobId, job, segment).members.length != 0) {
            if (!_drawCommittee(jobId, job, segment + 1, entropy)) return;
            _enter(job, Phase.Revealing, job.policy.revealSeconds);
        } else {
            if (!_drawCommittee(jobId, job, segment, entropy)) return;
            if (segment == 0) {
                _enter(job, Phase.AwaitingInput, job.policy.inputSeconds);
            } else {
                _enter(job, Phase.Committing, uint256(job.policy.inputSeconds) + job.policy.commitSeconds);
            }
        }
    }

    /// @inheritdoc IJobs
    function provideInput(bytes32 jobId, bytes32 inputCid) external {
        Job storage job = _requirePhase(jobId, Phase.AwaitingInput);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        _requireValue(inputCid, "inputCid");
        job.inputCid = inputCid;
        emit InputProvided(jobId, inputCid);
        _enter(job, Phase.Committing, job.policy.commitSeconds);
    }

    /// @inheritdoc IJobs
    function reseal(bytes32 jobId, bytes32 activationCid) external {
        Job storage job = _requirePhase(jobId, Phase.Committing);
        _requireValue(activationCid, "activationCid");
        uint256 next = job.segment;
        if (next == 0) revert NotSupporter(jobId, 0, msg.sender);
        Round storage round = _round(jobId, job, next - 1);
        Member storage member = _memberOf(round, jobId, next - 1, msg.sender);
        if (member.link != round.settledLink) revert NotSupporter(jobId, next - 1, msg.sender);
        if (member.sealedFor >= _attempt(job, next)) revert AlreadySealed(jobId, next - 1, msg.sender);
        member.sealedFor = _attempt(job, next);
        member.activationCid = activationCid;
        emit Resealed(jobId, next - 1, msg.sender, activationCid);
    }

    /// @inheritdoc IJobs
    function commit(bytes32 jobId, uint256 segment, uint256 attempt, bytes32 commitment) external {
        Job storage job = _requirePhase(jobId, Phase.Committing);
        _requireValue(commitment, "commitment");
        if (segment != job.segment || attempt != _attempt(job, segment)) {
            revert WrongRound(jobId, job.segment, _attempt(job, job.segment));
        }
        Round storage round = _round(jobId, job, segment);
        Member storage member = _memberOf(round, jobId, segment, msg.sender);
        if (member.commitment != 0) revert AlreadyCommitted(jobId, segment, msg.sender);
        member.commitment = commitment;
        emit Committed(jobId, segment, msg.sender, attempt, commitment);

        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].commitment == 0) return;
        }
        if (_isLast(job)) {
            _enter(job, Phase.Revealing, job.policy.revealSeconds);
        } else {
            _awaitCommittee(jobId, job);
        }
    }

    /// @inheritdoc IJobs
    function reveal(bytes32 jobId, bytes32 link, bytes32 salt, bytes32 activationCid) external {
        Job storage job = _requirePhase(jobId, Phase.Revealing);
        _requireValue(link, "link");
        if (Tally.isOutput(link)) {
            _requireValue(activationCid, "activationCid");
        } else if (activationCid != 0) {
            revert ValueNotZero("activationCid");
        }
        uint256 segment = job.segment;
        Round storage round = _round(jobId, job, segment);
        Member storage member = _memberOf(round, jobId, segment, msg.sender);
        if (member.link != 0) revert AlreadyRevealed(jobId, segment, msg.sender);
        {
            bytes32 actual = commitmentOf(jobId, segment, _attempt(job, segment), msg.sender, link, salt);
            if (member.commitment != actual) revert CommitmentMismatch(member.commitment, actual);
        }
        // A last commit phase that lapsed turns into revealing by time alone; from here on it is stored.
        if (job.phase == Phase.Committing) {
            job.phase = Phase.Revealing;
            job.deadline += uint48(job.policy.revealSeconds);
        }
        member.link = link;
        member.activationCid = activationCid;
        if (!_isLast(job)) member.sealedFor = _attempt(job, segment + 1);
        emit Revealed(jobId, segment, msg.sender, _attempt(job, segment), link, activationCid);

        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].commitment != 0 && round.members[i].link == 0) return;
        }
        _settle(jobId, job, round);
    }

    /// @inheritdoc IJobs
    function settle(bytes32 jobId) external {
        Job storage job = _requirePhase(jobId, Phase.Settling);
        _settle(jobId, job, _round(jobId, job, job.segment));
    }

    // --- draws ----------------------------------------------------------------------------------------------------------

    function _closeCommitting(bytes32 jobId, Job storage job) private {
        uint256 segment = job.segment;
        Round storage round = _round(jobId, job, segment);
        if (_isShort(job, round)) {
            _penaliseSilent(jobId, segment, round);
            if (job.redraws == Policies.MAX_REDRAWS) return _fail(jobId, job, Reason.TooFewActed, job.feeWei);
            ++job.redraws;
            _nextAttempt(job, segment);
            emit SegmentReopened(jobId, segment, _attempt(job, segment), false);
        }
        _awaitCommittee(jobId, job);
    }

    /// A committee is to be drawn: the next one or, where the round under way has none, its own.
    function _awaitCommittee(bytes32 jobId, Job storage job) private {
        _enter(job, Phase.Drawing, job.policy.revealSeconds);
        _setSeedBlock(jobId, job);
    }

    function _drawCommittee(bytes32 jobId, Job storage job, uint256 segment, bytes32 entropy) private returns (bool) {
        bytes32 seed = _draw(SEED_TAG, jobId, segment, entropy);
        uint256 size = job.policy.committeeSize;
        (address[] memory operators, uint256[] memory weights) =
            staking.draw(job.modelId, job.frozenBlock, seed, size, _earlierMembers(jobId, job, segment));
        if (operators.length < size) {
            // Too few workers for disjoint committees: better one that has seen another segment than none.
            (operators, weights) = staking.draw(job.modelId, job.frozenBlock, seed, size, new address[](0));
        }
        if (operators.length < size) {
            // The weights are frozen: what cannot be drawn now never can.
            _fail(jobId, job, Reason.TooFewActed, job.feeWei);
            return false;
        }

        Round storage round = _round(jobId, job, segment);
        uint256 total;
        for (uint256 i = 0; i < size; ++i) {
            Member storage member = round.members.push();
            (member.operator, member.weight) = (operators[i], weights[i]);
            total += weights[i];
        }
        round.totalWeight = total;
        emit CommitteeDrawn(jobId, segment, _attempt(job, segment), seed, operators, weights);
        return true;
    }

    /// The members of all earlier segments, and of the attempt before at this one.
    function _earlierMembers(bytes32 jobId, Job storage job, uint256 segment)
        private
        view
        returns (address[] memory earlier)
    {
        uint256 size = job.policy.committeeSize;
        earlier = new address[]((segment + 1) * size);
        uint256 count;
        for (uint256 i = 0; i <= segment; ++i) {
            uint256 attempt = _attempt(job, i);
            if (i == segment) {
                if (attempt == 0) break;
                --attempt;
            }
            Member[] storage members = _rounds[jobId][i][attempt].members;
            for (uint256 j = 0; j < members.length; ++j) {
                earlier[count++] = members[j].operator;
            }
        }
        assembly ("memory-safe") {
            mstore(earlier, count)
        }
    }

    function _drawProofs(bytes32 jobId, Job storage job, bytes32 entropy) private {
        uint256 due;
        for (uint256 i = 0; i < job.segments; ++i) {
            Round storage round = _round(jobId, job, i);
            if (round.proofHash != 0) continue;
            bytes32 sample = _draw(SAMPLE_TAG, jobId, i, entropy);
            // A segment that was sampled before a later one was overturned stays sampled: nobody can draw it out again.
            if (round.prover == address(0)) {
                if (uint256(sample) % 1000 >= job.policy.proofPermille) continue;
                uint256 point = uint256(keccak256(abi.encode(PROVER_TAG, sample)));
                round.prover = Tally.drawSupporter(round.members, round.settledLink, point);
            }
            ++due;
            emit ProverDrawn(jobId, i, round.prover, block.timestamp + job.policy.proveSeconds);
        }
        job.proofsDue = uint8(due);
        _awaitProofs(jobId, job);
    }

    // --- tally ----------------------------------------------------------------------------------------------------------

    function _settle(bytes32 jobId, Job storage job, Round storage round) private {
        uint256 segment = job.segment;
        Member[] storage members = round.members;
        (,, bool hasOutput) = Tally.participation(members);
        // The votes end the job; but behind a segment that can still be overturned, not before there was time for that.
        if (!hasOutput && segment == 0) return _failWithoutOutput(jobId, job);
        // Where nobody shows an output, nobody shows that it could be done.
        if (hasOutput) _penaliseSilent(jobId, segment, round);
        (bytes32 link, uint256 weight) = Tally.leading(members);
        bool isQuorum = Tally.isQuorum(weight, round.totalWeight, job.policy.quorumBps);
        if (isQuorum && Tally.isOutput(link)) {
            round.settledLink = link;
            round.settledWeight = weight;
            emit SegmentSettled(jobId, segment, link, weight, round.totalWeight);
            _advance(jobId, job);
        } else {
            // A proof can still show what the others could not agree on, or said could not be had.
            _enter(job, Phase.Contested, 2 * uint256(job.policy.proveSeconds));
            emit SegmentContested(jobId, segment, job.deadline);
        }
    }

    /// Penalises each member that was silent where another was not.
    function _penaliseSilent(bytes32 jobId, uint256 segment, Round storage round) private {
        (bool hasCommitted, bool hasRevealed,) = Tally.participation(round.members);
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member storage member = round.members[i];
            if (member.commitment == 0) {
                if (hasCommitted) _penaliseMiss(jobId, segment, member, Reason.MissedCommit);
            } else if (member.link == 0 && hasRevealed) {
                _penaliseMiss(jobId, segment, member, Reason.MissedReveal);
            }
        }
    }

    /// The job goes on behind a segment that has just been settled.
    function _advance(bytes32 jobId, Job storage job) internal {
        if (!_isLast(job)) {
            ++job.segment;
            // It was to be drawn anew when the segment before it was overturned.
            if (_round(jobId, job, job.segment).members.length == 0) return _awaitCommittee(jobId, job);
            // Where rounds were done again, a supporter may have to seal its output again first.
            uint256 sealing = _attempt(job, job.segment) == 0 ? 0 : job.policy.inputSeconds;
            _enter(job, Phase.Committing, sealing + job.policy.commitSeconds);
        } else if (job.policy.proofPermille != 0) {
            _enter(job, Phase.Sampling, job.policy.inputSeconds);
            _setSeedBlock(jobId, job);
        } else {
            _awaitProofs(jobId, job);
        }
    }

    /// The job goes on with the proofs that are due, or behind the last one.
    function _awaitProofs(bytes32 jobId, Job storage job) internal {
        if (job.proofsDue != 0) return _enter(job, Phase.Proving, 2 * uint256(job.policy.proveSeconds));
        for (uint256 i = 0; i < job.segments; ++i) {
            if (_round(jobId, job, i).proofHash == 0) {
                return _enter(job, Phase.Challengeable, job.policy.challengeSeconds);
            }
        }
        _enter(job, Phase.Finalisable, 0);
    }

    /// Ends a job whose round under way has no output that counts: by the vote that has a quorum, if there is one.
    function _failWithoutOutput(bytes32 jobId, Job storage job) internal {
        uint256 segment = job.segment;
        Round storage round = _round(jobId, job, segment);
        (bytes32 vote, uint256 weight) = Tally.leading(round.members);
        if (Tally.isOutput(vote) || !Tally.isQuorum(weight, round.totalWeight, job.policy.quorumBps)) {
            return _fail(jobId, job, Reason.NoQuorum, job.feeWei);
        }
        if (vote == Tally.BAD_INPUT) return _chargeRequester(jobId, job, Reason.BadInput, vote, weight);
        if (segment == 0) return _chargeRequester(jobId, job, Reason.InputUnavailable, vote, weight);
        Round storage before = _round(jobId, job, segment - 1);
        for (uint256 i = 0; i < before.members.length; ++i) {
            if (before.members[i].link != before.settledLink) continue;
            _penaliseMiss(jobId, segment - 1, before.members[i], Reason.WithheldActivation);
        }
        _fail(jobId, job, Reason.InputUnavailable, job.feeWei);
    }

    /// Ends a job by its requester's fault: a segment's part of a share of the fee goes to the members of the round under way
    /// that revealed `link`, whose stake is `weight`. Those of earlier segments get nothing: what they settled on may be
    /// why this input is bad.
    function _chargeRequester(bytes32 jobId, Job storage job, Reason reason, bytes32 link, uint256 weight) internal {
        uint256 share = job.feeWei * faultShareBps / BPS / job.segments;
        uint256 paid = _payByWeight(_round(jobId, job, job.segment), link, weight, share);
        _fail(jobId, job, reason, job.feeWei - paid);
    }

    /// Shares an amount among the members that revealed `link`, rounding down.
    function _payByWeight(Round storage round, bytes32 link, uint256 weight, uint256 amount)
        internal
        returns (uint256 paid)
    {
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member storage member = round.members[i];
            if (member.link != link) continue;
            uint256 part = amount * member.weight / weight;
            paid += part;
            _credit(member.operator, part);
        }
    }
}
