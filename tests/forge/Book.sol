// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "../../contracts/Escrow.sol";
import {IJobs, Member, Phase, Reason, Round} from "../../contracts/interfaces/IJobs.sol";
import {IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Vm} from "./Cheats.sol";
import {Truth} from "./Truth.sol";
import {Holds} from "./Holds.sol";

/// @notice Makes every call, and books every event of it.
abstract contract Book is Holds {
    /// Calls as `from`. `job` is the ghost that the call is about.
    function _send(address from, uint256 value, address to, bytes memory data, uint256 job) internal returns (bool ok) {
        delete _now;
        (_now.selector, _now.caller, _now.job) = (bytes4(data), from, job);
        if (job != NO_JOB) _now.before = jobs.phaseOf(_ghosts[job].id);
        vm.recordLogs();
        vm.prank(from);
        (ok,) = to.call{value: value}(data);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (!ok) {
            ++reached["refused"];
            return false;
        }
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == address(jobs)) _bookJobs(logs[i]);
            else if (logs[i].emitter == address(staking)) _bookStaking(logs[i]);
        }
        _balance();
        if (_now.job != NO_JOB && _now.selector != IStaking.reportEquivocation.selector) _observe(_now.job);
        check(address(jobs).balance == _openFees + _allCredits + _forcedOnJobs, "01 Jobs holds fees and credits");
    }

    /// What went where in this call.
    function _balance() private {
        uint256 burnt = address(0).balance - _burntSeen;
        _burntSeen += burnt;
        check(2 * burnt >= _now.released, "54 half of what is held burns");
        uint256 due = _now.taken - _now.held + _now.released - _now.compensated;
        check(burnt == due, "05 what is not held is burnt");
        uint256 owed = _allStakes + _allHeld + _allCompensations;
        check(address(staking).balance == owed + _forcedOnStaking, "02 Staking holds every bond");
    }

    // --- Jobs --------------------------------------------------------------------------------------------------------

    function _bookJobs(Vm.Log memory log) private {
        bytes32 topic = log.topics[0];
        if (topic == Escrow.Credited.selector) _bookCredit(log);
        else if (topic == Escrow.Claimed.selector) _bookClaim(log);
        else if (topic == IJobs.OperatorPenalised.selector) _bookPenalty(log);
        else if (topic == IJobs.SegmentProved.selector) _bookProof(log);
        else if (topic == IJobs.SegmentOverturned.selector) _bookOverturn(log);
        else if (topic == IJobs.JobStarted.selector) _bookStart(log);
        else if (topic == IJobs.JobFailed.selector) _bookFailure(log);
        else if (topic == IJobs.SegmentReopened.selector) ++reached["reopened"];
        else if (topic == IJobs.SegmentContested.selector) _bookContest();
        else if (topic == IJobs.JobFinalised.selector) _bookEnd();
    }

    function _bookCredit(Vm.Log memory log) private {
        check(_now.job != NO_JOB, "06 a closed job credits its fee");
        uint256 amount = abi.decode(log.data, (uint256));
        _ghosts[_now.job].credited += amount;
        _allCredits += amount;
        _credits[_account(log.topics[1])] += amount;
    }

    function _bookClaim(Vm.Log memory log) private {
        (address account, uint256 amount) = (_account(log.topics[1]), abi.decode(log.data, (uint256)));
        check(account == _now.caller && amount == _credits[account] && amount != 0, "08 a credit is paid once");
        _allCredits -= amount;
        _credits[account] = 0;
        ++reached["claimed"];
    }

    function _bookStart(Vm.Log memory log) private {
        uint256 index = _indexOf[log.topics[1]] - 1;
        _now.job = index;
        Ghost storage ghost = _ghosts[index];
        check(!ghost.started, "27 a job is made once");
        uint256 endsAt;
        (ghost.started, ghost.frozenBlock) = (true, uint48(block.number - 1));
        (, endsAt) = abi.decode(log.data, (uint256, uint256));
        ghost.endsAt = uint48(endsAt);
        check(endsAt == block.timestamp + JOB_SECONDS, "41 nothing is open after its end");
        ++_running[ghost.model];
        if (_now.selector == IJobs.admit.selector) ++reached["admitted"];
        _checkQueue(index);
        for (uint256 i = 0; i < OPERATORS; ++i) {
            address operator = actors[i];
            _withdrawnBefore[ghost.id][operator] = _withdrawn[operator];
            (uint256 unbonding,) = staking.unbondingOf(operator);
            _unbondingBefore[ghost.id][operator] =
                _unbondingBlock[operator] == block.number ? _unbondingThen[operator] : unbonding;
        }
    }

    /// Nobody is left waiting that offered more, or as much and earlier.
    function _checkQueue(uint256 started) private view {
        uint256 bucket = _bucket(_ghosts[started].feeWei);
        for (uint256 i = 0; i < _open.length; ++i) {
            Ghost storage ghost = _ghosts[_open[i]];
            if (_open[i] == started || ghost.started || ghost.model != _ghosts[started].model) continue;
            uint256 other = _bucket(ghost.feeWei);
            check(other < bucket || (other == bucket && _open[i] > started), "26 queue by fee, then by age");
        }
    }

    function _bookProof(Vm.Log memory log) private {
        uint256 segment = uint256(log.topics[2]);
        (bytes32 opening, bytes32 closing, bytes32 proofHash,) =
            abi.decode(log.data, (bytes32, bytes32, bytes32, bytes32));
        Ghost storage ghost = _ghosts[_now.job];
        check(_now.proved == 0, "31 what is proved is final");
        _now.proved = uint8(segment + 1);
        Seen storage seen = _seenNow(_now.job, segment);
        check(seen.closing == 0, "31 what is proved is final");
        (seen.opening, seen.closing) = (opening, closing);
        check(_isTrue(segment, opening, closing, segment + 1 == ghost.segments), "33 only true proofs");
        Round memory round = _roundNow(_now.job, segment);
        check(round.proofHash == proofHash && round.provedBy == _now.caller, "33 only true proofs");
        check(_member(round, _now.caller).link == closing, "34 who may prove, and when");
        if (_now.selector == IJobs.prove.selector) {
            bool isDrawn = round.prover == _now.caller;
            ++reached[isDrawn ? bytes32("proved") : bytes32("proved by another")];
            bool isOpen = block.timestamp + ghost.proveSeconds >= ghost.deadline;
            check(round.prover != address(0) && (isDrawn || isOpen), "34 who may prove, and when");
            if (isDrawn && !isOpen) return;
            if (isDrawn) ++reached["proved, but late"];
        }
        Member memory member = _member(round, _now.caller);
        uint256 attempt = _attempt(_now.job, segment);
        bytes32 announcement = jobs.announcementOf(ghost.id, segment, attempt, _now.caller, proofHash);
        bool wasAnnounced = member.announcement == announcement && member.announcedBlock < block.number;
        check(wasAnnounced, "34 who may prove, and when");
    }

    function _isTrue(uint256 segment, bytes32 opening, bytes32 closing, bool isLast) private view returns (bool) {
        uint256 value = _valueOf[closing];
        return Truth.admits(segment, _valueOf[opening], value) && closing == Truth.linkOf(value, isLast);
    }

    function _bookOverturn(Vm.Log memory log) private {
        check(_now.overturned == 0, "29 settled changes by proof");
        _now.overturned = uint8(uint256(log.topics[2]) + 1);
        ++reached["overturned"];
        ++overturnedIn[_now.before];
    }

    function _bookContest() private {
        ++reached["contested"];
        (, bool hasOutput) = _participation(_roundNow(_now.job, _ghosts[_now.job].segment));
        if (!hasOutput) ++reached["contested by votes alone"];
    }

    function _bookEnd() private {
        ++reached["finalised"];
        Ghost storage ghost = _ghosts[_now.job];
        if (ghost.segments == 3) ++reached["finalised after three"];
        check(_now.before == Phase.Finalisable, "40 closed stays closed");
        check(jobs.jobOf(ghost.id).evidenceRoot == _root(_now.job), "43 the evidence root is so");
    }

    function _bookFailure(Vm.Log memory log) private {
        (Reason reason, uint256 refund) = abi.decode(log.data, (Reason, uint256));
        Ghost storage ghost = _ghosts[_now.job];
        if (reason == Reason.NoQuorum) ++reached["failed: no quorum"];
        else if (reason == Reason.TimedOut) ++reached["failed: timed out"];
        else if (reason == Reason.TooFewActed) ++reached["failed: too few acted"];
        else if (reason == Reason.InputUnavailable) ++reached["failed: input unavailable"];
        else if (reason == Reason.BadInput) ++reached["failed: bad input"];
        else if (reason == Reason.Cancelled) ++reached["failed: cancelled"];
        bool isByVotes = reason != Reason.TimedOut && reason != Reason.TooFewActed && reason != Reason.Cancelled;
        bool hasWaited = _now.selector == IJobs.expire.selector && ghost.stored == Phase.Contested;
        check(!isByVotes || ghost.segment == 0 || hasWaited, "56 votes wait for a proof");
        bool isCharged = reason == Reason.BadInput || (reason == Reason.InputUnavailable && ghost.segment == 0);
        uint256 least = isCharged ? ghost.feeWei - ghost.feeWei * FAULT_BPS / BPS : ghost.feeWei;
        check(refund >= least && refund <= ghost.feeWei, "07 who did their part is paid");
        if (_now.selector == IJobs.expire.selector && ghost.stored == Phase.Proving && ghost.deadline <= ghost.endsAt) {
            _checkProvers(ghost);
        }
    }

    function _checkProvers(Ghost storage ghost) private view {
        for (uint256 i = 0; i < ghost.segments; ++i) {
            Round memory round = _roundNow(_now.job, i);
            if (round.prover == address(0) || round.proofHash != 0) continue;
            bytes32 key = _round(ghost.id, i, _attempt(_now.job, i));
            check(_penalties[key][round.prover][Reason.MissedProof] == 1, "13 every fault is penalised");
        }
    }

    // --- penalties ---------------------------------------------------------------------------------------------------

    function _bookPenalty(Vm.Log memory log) private {
        (uint256 segment, address operator) = (uint256(log.topics[2]), _account(log.topics[3]));
        (Reason reason, uint256 amount) = abi.decode(log.data, (Reason, uint256));
        uint256 index = _now.job;
        Round memory round = _roundNow(index, segment);
        Member memory member = _member(round, operator);
        check(_isFault(index, segment, round, member, reason), "12 only faults are penalised");
        bytes32 key = _round(_ghosts[index].id, segment, _attempt(index, segment));
        check(++_penalties[key][operator][reason] == 1, "14 once for a fault");
        bool isGrave = reason == Reason.ContradictedProof;
        {
            // The slash was booked before this event: what is left now and what was taken is what was there.
            uint256 due = member.weight * (isGrave ? CONTRADICTION_BPS : MISS_BPS) / BPS;
            uint256 had = _stakes[operator] + amount;
            check(amount == (due < had ? due : had), "04 a slash is its share");
        }
        if (_isHonest(operator)) _bookHonestLoss(index, segment, operator, reason, amount);
        if (isGrave) {
            key = _heldKey(_ghosts[index].id, segment, _attempt(index, segment), operator);
            check(_holdAt[key] != 0, "49 a hold is what a proof took");
        }
        uint256 model = _ghosts[index].model;
        _reputations[model][operator] = isGrave ? 0 : _reputations[model][operator] / 2;
        _reach(reason);
    }

    /// What no proof can show is whether an activation could be had; and of two that can be proved, one was.
    function _bookHonestLoss(uint256 index, uint256 segment, address operator, Reason reason, uint256 amount)
        private
    {
        bool isDoubted =
            reason == Reason.ContradictedProof && Truth.isDoubtful(segment, _valueOf[_opening(index, segment)]);
        check(isDoubted || reason == Reason.WithheldActivation, "16 the honest lose nothing");
        if (!isDoubted) _votedDown[operator] += amount;
        ++reached[isDoubted ? bytes32("honest, but contradicted") : bytes32("honest, but voted down")];
    }

    function _reach(Reason reason) private {
        if (reason == Reason.MissedCommit) ++reached["missed commit"];
        else if (reason == Reason.MissedReveal) ++reached["missed reveal"];
        else if (reason == Reason.MissedProof) ++reached["missed proof"];
        else if (reason == Reason.ContradictedProof) ++reached["contradicted proof"];
        else if (reason == Reason.WithheldActivation) ++reached["withheld activation"];
    }

    function _isFault(uint256 index, uint256 segment, Round memory round, Member memory member, Reason reason)
        private
        view
        returns (bool)
    {
        Ghost storage ghost = _ghosts[index];
        (bool hasCommitted, bool hasOutput) = _participation(round);
        bool isOver = block.timestamp >= ghost.deadline;
        if (reason == Reason.MissedCommit) {
            // In a later phase than Committing the stored deadline is that of revealing.
            isOver = isOver || ghost.stored != Phase.Committing;
            // Somebody showed that it could be done: by an output, or where the committee is replaced by a commitment.
            bool isShown = _now.selector == IJobs.draw.selector ? hasCommitted : hasOutput;
            return member.operator != address(0) && member.commitment == 0 && isShown && isOver;
        }
        if (reason == Reason.MissedReveal) return isOver && member.commitment != 0 && member.link == 0 && hasOutput;
        if (reason == Reason.MissedProof) {
            bool isSilent = round.prover == member.operator && round.provedBy != member.operator;
            if (_now.selector == IJobs.prove.selector) return isSilent && round.proofHash != 0;
            return isSilent && isOver && ghost.stored == Phase.Proving && round.proofHash == 0;
        }
        if (reason == Reason.ContradictedProof) {
            check(_isOutput(member.link), "15 a vote costs nothing");
            return member.link != round.settledLink && round.proofHash != 0;
        }
        check(_isOutput(member.link), "15 a vote costs nothing");
        Round memory next = _roundNow(index, segment + 1);
        uint256 against = _weightFor(next, bytes32(uint256(1)));
        bool isQuorum = against * BPS >= next.totalWeight * jobs.jobOf(ghost.id).policy.quorumBps;
        return reason == Reason.WithheldActivation && member.link == round.settledLink && isQuorum
            && ghost.segment == segment + 1;
    }

    function _participation(Round memory round) private pure returns (bool hasCommitted, bool hasOutput) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].commitment != 0) hasCommitted = true;
            if (_isOutput(round.members[i].link)) hasOutput = true;
        }
    }

    // --- Staking -----------------------------------------------------------------------------------------------------

    function _bookStaking(Vm.Log memory log) private {
        bytes32 topic = log.topics[0];
        if (topic == IStaking.Slashed.selector) {
            _bookSlash(log);
        } else if (topic == IStaking.Bonded.selector) {
            (uint256 amount,) = abi.decode(log.data, (uint256, uint256));
            _stakes[_account(log.topics[1])] += amount;
            _bonded[_account(log.topics[1])] += amount;
            _allStakes += amount;
        } else if (topic == IStaking.Withdrawn.selector) {
            uint256 amount = abi.decode(log.data, (uint256));
            check(_now.selector == IStaking.withdraw.selector, "10 no stake leaves early");
            _stakes[_now.caller] -= amount;
            _withdrawn[_now.caller] += amount;
            _allStakes -= amount;
            ++reached["withdrawn"];
        } else if (topic == IStaking.WeightChanged.selector) {
            (, uint256 weight) = abi.decode(log.data, (uint256, uint256));
            _weights[_modelOf(log.topics[1])][_account(log.topics[2])] = weight;
        } else if (topic == IStaking.SlashHeld.selector) {
            _bookHold(log);
        } else if (topic == IStaking.SlashAppealed.selector) {
            _bookAppeal(log);
        } else if (topic == IStaking.SlashReleased.selector) {
            _bookRelease(log);
        } else if (topic == Escrow.Credited.selector) {
            _bookCompensation(log);
        } else if (topic == Escrow.Claimed.selector) {
            _bookCompensationPaid(log);
        } else if (topic == IStaking.EquivocationPenalised.selector) {
            _bookEquivocation(log);
        } else if (topic == IStaking.TrialPassed.selector) {
            ++reached["trial passed"];
        }
    }

    function _bookSlash(Vm.Log memory log) private {
        address operator = _account(log.topics[1]);
        (uint256 amount, uint256 active, uint256 unbonding) = abi.decode(log.data, (uint256, uint256, uint256));
        check(_now.job != NO_JOB, "18 only jobs and words slash");
        check(amount <= _stakes[operator], "04 a slash is its share");
        _stakes[operator] -= amount;
        _allStakes -= amount;
        _now.taken += amount;
        (_now.slashed, _now.last) = (operator, amount);
        check(active + unbonding == _stakes[operator], "03 bonds are accounted for");
        for (uint256 i = 0; i < MODELS; ++i) {
            _stale[i][operator] = i != _ghosts[_now.job].model;
        }
    }

    function _bookEquivocation(Vm.Log memory log) private {
        address operator = _account(log.topics[3]);
        check(!_isHonest(operator), "16 the honest lose nothing");
        _reputations[_ghosts[_now.job].model][operator] = 0;
        ++reached["equivocation"];
    }

    function _modelOf(bytes32 id) private view returns (uint256 model) {
        while (models[model] != id) ++model;
    }
}
