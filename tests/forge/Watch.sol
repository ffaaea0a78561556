// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Job, Label, Member, Phase, Reason, Round} from "../../contracts/interfaces/IJobs.sol";
import {Ledger} from "./Ledger.sol";
import {Truth} from "./Truth.sol";

/// @notice Compares a job, after each call that it took, with what was seen of it before.
abstract contract Watch is Ledger {
    function _observe(uint256 index) internal {
        Ghost storage ghost = _ghosts[index];
        Job memory job = jobs.jobOf(ghost.id);
        _observeJob(ghost, job);
        uint256 due;
        bool isDone = true;
        bool isProved = true;
        for (uint256 i = 0; i < ghost.segments; ++i) {
            uint256 attempt = uint16(job.attempts >> (16 * i));
            _observeAttempt(ghost, i, attempt);
            Round memory round = jobs.roundAt(ghost.id, i, attempt);
            _observeRound(ghost, job, i, attempt, round);
            if (round.prover != address(0) && round.proofHash == 0) ++due;
            if (round.settledLink == 0) isDone = false;
            if (job.policy.proofPermille == 1000 && round.proofHash == 0) isProved = false;
        }
        ghost.attempts = job.attempts;
        if (job.phase == Phase.Proving) check(job.proofsDue == due && due != 0, "36 proofs due are counted");
        if (job.phase >= Phase.Challengeable && job.phase <= Phase.Finalised) {
            check(due == 0 && isDone, "35 sampled stays sampled");
            check(isProved, "47 all are proved that must be");
        }
        (uint256 running,) = jobs.loadOf(job.modelId);
        check(running == _running[ghost.model] && running <= MAX_RUNNING, "25 running jobs are counted");
        if (ghost.closed) ghost.record = _record(ghost.id);
    }

    function _observeJob(Ghost storage ghost, Job memory job) private {
        bool isClosed = job.phase == Phase.Finalised || job.phase == Phase.Failed;
        check(!ghost.closed, "40 closed stays closed");
        check(job.segment >= ghost.segment || _now.overturned == job.segment + 1
            || (_now.overturned != 0 && job.segment == _now.overturned), "39 back only by an overturn");
        check(job.redraws >= ghost.redraws && job.redraws <= 4, "39 back only by an overturn");
        check(job.endsAt == ghost.endsAt && job.frozenBlock == ghost.frozenBlock, "28 seeds come after the freeze");
        check(job.seedBlock == 0 || job.seedBlock > job.frozenBlock, "28 seeds come after the freeze");
        (ghost.segment, ghost.redraws, ghost.deadline) = (job.segment, job.redraws, job.deadline);
        ghost.stored = job.phase;
        if (!isClosed) return;
        ghost.closed = true;
        _openFees -= ghost.feeWei;
        if (ghost.started) --_running[ghost.model];
        for (uint256 i = 0; i < _open.length; ++i) {
            if (_ghosts[_open[i]].id != ghost.id) continue;
            _open[i] = _open[_open.length - 1];
            _open.pop();
            break;
        }
        check(job.closedAt == block.timestamp, "40 closed stays closed");
        check(ghost.credited == ghost.feeWei, "06 a closed job credits its fee");
        check((job.phase == Phase.Finalised) == (job.evidenceRoot != 0), "43 the evidence root is so");
    }

    /// A new attempt: the one before was overtaken by an overturned segment before it, or too few acted in it.
    function _observeAttempt(Ghost storage ghost, uint256 segment, uint256 attempt) private view {
        uint256 before = uint16(ghost.attempts >> (16 * segment));
        if (attempt == before) return;
        Seen storage old = _seen[ghost.id][segment][before];
        bool isOvertaken = _now.overturned != 0 && segment >= _now.overturned;
        check(attempt == before + 1, "39 back only by an overturn");
        check(isOvertaken || old.proofHash == 0, "31 what is proved is final");
        check(isOvertaken || old.settledLink == 0, "29 settled changes by proof");
        check(isOvertaken || _now.selector == IJobs.draw.selector, "39 back only by an overturn");
    }

    function _observeRound(Ghost storage ghost, Job memory job, uint256 segment, uint256 attempt, Round memory round)
        private
    {
        Seen storage seen = _seen[ghost.id][segment][attempt];
        bytes32 committee = _committee(round);
        if (seen.committee == 0) {
            if (round.members.length != 0) {
                seen.committee = committee;
                if (_now.selector == IJobs.draw.selector) _observeDraw(ghost, job, segment, attempt, round);
                else _observeSame(ghost, segment, attempt, committee);
            }
        } else {
            check(seen.committee == committee, "23 k distinct frozen members");
        }
        check(seen.prover == address(0) || seen.prover == round.prover, "35 sampled stays sampled");
        if (seen.prover != round.prover) {
            check(_now.before == Phase.Sampling, "35 sampled stays sampled");
            check(_member(round, round.prover).link == round.settledLink, "35 sampled stays sampled");
            seen.prover = round.prover;
        }
        _observeOutcome(ghost, job, segment, seen, round);
    }

    function _observeOutcome(
        Ghost storage ghost,
        Job memory job,
        uint256 segment,
        Seen storage seen,
        Round memory round
    ) private {
        bool isProvedNow = _now.proved == segment + 1;
        check(seen.proofHash == 0 || seen.proofHash == round.proofHash, "31 what is proved is final");
        check((seen.proofHash != round.proofHash) == isProvedNow, "31 what is proved is final");
        bool isChanged = seen.settledLink != round.settledLink;
        if (isChanged && seen.settledLink != 0) {
            check(isProvedNow && seen.proofHash == 0, "29 settled changes by proof");
            check(_now.overturned == segment + 1 && round.overturned, "29 settled changes by proof");
        }
        if (isChanged && !isProvedNow) {
            bool isTally = _now.selector == IJobs.reveal.selector || _now.selector == IJobs.settle.selector;
            check(isTally, "30 settled by quorum or proof");
        }
        (seen.settledLink, seen.proofHash) = (round.settledLink, round.proofHash);
        if (round.settledLink == 0) return;
        check(_isOutput(round.settledLink), "30 settled by quorum or proof");
        uint256 sum = _weightFor(round, round.settledLink);
        check(sum == round.settledWeight && sum != 0, "30 settled by quorum or proof");
        if (round.proofHash == 0) {
            check(sum * BPS >= round.totalWeight * job.policy.quorumBps, "30 settled by quorum or proof");
            check(seen.closing == 0, "33 only true proofs");
        } else {
            bytes32 opening = segment == 0
                ? job.inputLink
                : _seen[ghost.id][segment - 1][uint16(job.attempts >> (16 * (segment - 1)))].settledLink;
            check(seen.opening == opening && opening != 0, "32 proofs interlock");
            check(seen.closing == round.settledLink, "32 proofs interlock");
        }
        if (isChanged || isProvedNow) _observeFaults(ghost, segment, round, isProvedNow);
    }

    /// Every fault in a round that was just settled or proved is penalised.
    function _observeFaults(Ghost storage ghost, uint256 segment, Round memory round, bool isProvedNow) private view {
        bytes32 key = _round(ghost.id, segment, uint16(ghost.attempts >> (16 * segment)));
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member memory member = round.members[i];
            mapping(Reason => uint256) storage penalties = _penalties[key][member.operator];
            bool isMissing = member.commitment == 0;
            check(penalties[Reason.MissedCommit] == (isMissing ? 1 : 0), "13 every fault is penalised");
            bool isSilent = !isMissing && member.link == 0;
            check(penalties[Reason.MissedReveal] == (isSilent ? 1 : 0), "13 every fault is penalised");
            bool isWrong = isProvedNow && _isOutput(member.link) && member.link != round.settledLink;
            check(penalties[Reason.ContradictedProof] == (isWrong ? 1 : 0), "13 every fault is penalised");
            bool isLate = isProvedNow && round.prover == member.operator && round.provedBy != member.operator
                && _now.selector == IJobs.prove.selector;
            check(penalties[Reason.MissedProof] == (isLate ? 1 : 0), "13 every fault is penalised");
        }
    }

    // --- committees -------------------------------------------------------------------------------------------------

    function _committee(Round memory round) private pure returns (bytes32 hash) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            hash = keccak256(abi.encode(hash, round.members[i].operator, round.members[i].weight));
        }
    }

    /// Behind an overturned segment its committee works again.
    function _observeSame(Ghost storage ghost, uint256 segment, uint256 attempt, bytes32 committee) private view {
        check(_now.overturned == segment && attempt != 0, "23 k distinct frozen members");
        check(_seen[ghost.id][segment][attempt - 1].committee == committee, "23 k distinct frozen members");
    }

    function _observeDraw(Ghost storage ghost, Job memory job, uint256 segment, uint256 attempt, Round memory round)
        private
        view
    {
        (address[] memory all, uint256[] memory weights) =
            staking.draw(job.modelId, job.frozenBlock, 0, OPERATORS, new address[](0));
        check(round.members.length == job.policy.committeeSize, "23 k distinct frozen members");
        uint256 total;
        uint256 seats;
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member memory member = round.members[i];
            uint256 seat = 1 << _placeOf[member.operator];
            check(seats & seat == 0, "23 k distinct frozen members");
            seats |= seat;
            total += member.weight;
            check(member.weight != 0 && member.commitment == 0 && member.link == 0, "23 k distinct frozen members");
            for (uint256 j = 0; j < all.length; ++j) {
                if (all[j] == member.operator) check(weights[j] == member.weight, "23 k distinct frozen members");
            }
        }
        check(total == round.totalWeight, "23 k distinct frozen members");
        uint256 earlier = _earlierSeats(ghost.id, job.attempts, segment, attempt);
        uint256 free;
        for (uint256 j = 0; j < all.length; ++j) {
            if (earlier & (1 << _placeOf[all[j]]) == 0) ++free;
        }
        if (free >= round.members.length) check(earlier & seats == 0, "24 committees are apart");
    }

    function _earlierSeats(bytes32 id, uint256 attempts, uint256 segment, uint256 attempt)
        private
        view
        returns (uint256 seats)
    {
        for (uint256 i = 0; i <= segment; ++i) {
            if (i == segment && attempt == 0) break;
            Member[] memory members =
                jobs.roundAt(id, i, i == segment ? attempt - 1 : uint16(attempts >> (16 * i))).members;
            for (uint256 j = 0; j < members.length; ++j) {
                seats |= 1 << _placeOf[members[j].operator];
            }
        }
    }

    // --- what a closed job rests on ---------------------------------------------------------------------------------

    function _record(bytes32 id) internal view returns (bytes32 hash) {
        Job memory job = jobs.jobOf(id);
        hash = keccak256(abi.encode(job));
        for (uint256 i = 0; i < job.segments; ++i) {
            hash = keccak256(abi.encode(hash, jobs.roundOf(id, i)));
        }
    }

    /// The root as the receipt's format says it, with labels that are derived here.
    function _root(uint256 index) internal view returns (bytes32 hash) {
        Ghost storage ghost = _ghosts[index];
        bytes32 tag = keccak256("interlock.evidence.v1");
        bytes32 input = Truth.linkOf(ghost.input, false);
        hash = keccak256(
            abi.encode(
                tag, block.chainid, address(jobs), ghost.id, models[ghost.model], input, uint256(ghost.segments)
            )
        );
        for (uint256 i = 0; i < ghost.segments; ++i) {
            Round memory round = _roundNow(index, i);
            hash = keccak256(abi.encode(hash, i, _label(index, i, round), round.settledLink, round.settledWeight,
                round.totalWeight, round.proofHash, round.proofCid));
        }
    }

    function _label(uint256 index, uint256 segment, Round memory round) internal view returns (Label) {
        if (round.settledLink == 0) return Label.None;
        if (_seenNow(index, segment).closing != 0) return Label.Proved;
        uint256 supporters;
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].link == round.settledLink) ++supporters;
        }
        return supporters > 1 ? Label.Agreed : Label.Unproved;
    }
}
