// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "../../contracts/Escrow.sol";
import {IJobs, Label, Member, Phase, Reason, Round} from "../../contracts/interfaces/IJobs.sol";
import {IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Vm} from "./Cheats.sol";
import {World} from "./World.sol";

/// @notice What has to be remembered to tell whether the contracts keep their word: amounts that went in and out, what
/// each job had settled, whom it penalised. It is kept from calls and events, apart from the contracts' own books.
abstract contract Ledger is World {
    /// @param rank How far the job had come when last seen; see {_rank}.
    /// @param credited All that was credited because of this job.
    struct Ghost {
        bytes32 id;
        address requester;
        uint256 model;
        uint256 segments;
        uint256 feeWei;
        uint256 rank;
        uint256 credited;
        uint256 creditedToRequester;
        bytes32 evidenceRoot;
    }

    /// @param closing The link with which the accepted proof closes; zero until one was accepted.
    struct Seen {
        bytes32 settledLink;
        bytes32 proofHash;
        bytes32 opening;
        bytes32 closing;
    }

    uint256 internal constant NO_JOB = type(uint256).max;

    Ghost[] internal _ghosts;
    mapping(bytes32 jobId => mapping(uint256 segment => Seen)) internal _seen;
    mapping(bytes32 jobId => mapping(uint256 segment => mapping(address operator => uint256))) public penalties;

    mapping(address operator => uint256) public bonded;
    mapping(address operator => uint256) public withdrawn;
    mapping(address operator => uint256) public slashed;
    mapping(address operator => uint256) public releaseAt;
    /// Slashed for another model since this one's weights were refreshed.
    mapping(uint256 model => mapping(address operator => bool)) public stale;
    uint256 public feesIn;
    uint256 public claimed;
    uint256 public burnt;
    uint256 public burntBefore = address(0).balance;
    uint256 public forcedOnJobs;
    uint256 public forcedOnStaking;

    mapping(string rule => bool) public isBroken;
    /// How often each outcome came about.
    mapping(string outcome => uint256) public reached;

    function ghostCount() external view returns (uint256) {
        return _ghosts.length;
    }

    function ghostAt(uint256 index) external view returns (Ghost memory) {
        return _ghosts[index];
    }

    function seenAt(bytes32 jobId, uint256 segment) external view returns (Seen memory) {
        return _seen[jobId][segment];
    }

    function _hold(bool holds, string memory rule) internal {
        if (!holds) isBroken[rule] = true;
    }

    /// Calls as `from`, and books every event. `job` is the ghost that the call is about.
    function _send(address from, uint256 value, address to, bytes memory data, uint256 job) internal returns (bool ok) {
        vm.recordLogs();
        vm.prank(from);
        (ok,) = to.call{value: value}(data);
        Vm.Log[] memory logs = vm.getRecordedLogs();
        if (!ok) {
            ++reached["refused"];
            return false;
        }
        for (uint256 i = 0; i < logs.length; ++i) {
            if (logs[i].emitter == address(jobs) || logs[i].emitter == address(staking)) _book(logs[i], job);
        }
        if (job != NO_JOB) _observe(job);
    }

    function _book(Vm.Log memory log, uint256 job) private {
        bytes32 topic = log.topics[0];
        if (topic == Escrow.Credited.selector) _bookCredit(log, job);
        else if (topic == IStaking.Slashed.selector) _bookSlash(log, job);
        else if (topic == IJobs.OperatorPenalised.selector) _bookPenalty(log);
        else if (topic == IJobs.JobFinalised.selector) _bookEnd(job);
        else if (topic == IJobs.JobFailed.selector) _bookFailure(log);
    }

    function _bookCredit(Vm.Log memory log, uint256 job) private {
        _hold(job != NO_JOB, "credits come from jobs");
        if (job == NO_JOB) return;
        uint256 amount = abi.decode(log.data, (uint256));
        _ghosts[job].credited += amount;
        if (_address(log.topics[1]) == _ghosts[job].requester) _ghosts[job].creditedToRequester += amount;
    }

    function _bookSlash(Vm.Log memory log, uint256 job) private {
        address operator = _address(log.topics[1]);
        (uint256 amount,,) = abi.decode(log.data, (uint256, uint256, uint256));
        _hold(job != NO_JOB, "only jobs slash");
        _hold(amount <= bonded[operator] - withdrawn[operator] - slashed[operator], "a slash takes what is there");
        slashed[operator] += amount;
        burnt += amount;
        for (uint256 i = 0; i < MODELS; ++i) {
            stale[i][operator] = job == NO_JOB || i != _ghosts[job].model;
        }
    }

    function _bookEnd(uint256 job) private {
        ++reached["Finalised"];
        uint256 last = _ghosts[job].segments - 1;
        if (jobs.labelOf(_ghosts[job].id, last) == Label.Agreed) ++reached["Agreed in the end"];
        if (last == 2) ++reached["Finalised after three segments"];
    }

    function _bookFailure(Vm.Log memory log) private {
        (Reason reason,) = abi.decode(log.data, (Reason, uint256));
        ++reached[
            reason == Reason.NoQuorum
                ? "Failed: NoQuorum"
                : reason == Reason.TimedOut ? "Failed: TimedOut" : "Failed: else"
        ];
    }

    function _bookPenalty(Vm.Log memory log) private {
        (bytes32 jobId, uint256 segment, address operator) =
            (log.topics[1], uint256(log.topics[2]), _address(log.topics[3]));
        (Reason reason, uint256 amount) = abi.decode(log.data, (Reason, uint256));
        Round memory round = jobs.roundOf(jobId, segment);
        Member memory member = _member(round, operator);
        (bool committed, bool revealed) = participation(round);
        bool fault;
        uint256 shareBps = MISS_BPS;
        if (reason == Reason.MissedCommit) {
            fault = member.commitment == 0 && committed;
            ++reached["MissedCommit"];
        } else if (reason == Reason.MissedReveal) {
            fault = member.commitment != 0 && member.link == 0 && revealed;
            ++reached["MissedReveal"];
        } else if (reason == Reason.MissedProof) {
            // The deadline may be gone by now; that half of it was over is checked where proofs are sent.
            fault = round.prover == operator && round.provedBy != operator && round.proofHash != 0;
            ++reached["MissedProof"];
        } else {
            fault = member.link != 0 && member.link != round.settledLink && round.proofHash != 0;
            shareBps = CONTRADICTION_BPS;
            ++reached["ContradictedProof"];
        }
        _hold(fault, "only faults are penalised");
        // The slash was booked before this event: what is left now and what was taken is what was there.
        uint256 had = bonded[operator] - withdrawn[operator] - slashed[operator] + amount;
        uint256 due = member.weight * shareBps / 10_000;
        _hold(amount == (due < had ? due : had), "a penalty is its share of the drawn stake");
        _hold(++penalties[jobId][segment][operator] == 1, "a fault is penalised once");
    }

    /// Compares the job with what was seen of it before, and remembers what it is now.
    function _observe(uint256 index) internal {
        Ghost storage ghost = _ghosts[index];
        uint256 rank = _rank(ghost.id);
        _hold(rank >= ghost.rank, "phases never go back");
        if (ghost.rank == RANK_FINALISED || ghost.rank == RANK_FAILED) {
            _hold(rank == ghost.rank, "Finalised and Failed are terminal");
        }
        ghost.rank = rank;
        bytes32 root = jobs.jobOf(ghost.id).evidenceRoot;
        _hold(ghost.evidenceRoot == 0 || root == ghost.evidenceRoot, "Finalised and Failed are terminal");
        ghost.evidenceRoot = root;
        for (uint256 i = 0; i < ghost.segments; ++i) {
            Round memory round = jobs.roundOf(ghost.id, i);
            Seen storage seen = _seen[ghost.id][i];
            _hold(seen.settledLink == 0 || round.settledLink == seen.settledLink, "a settled link never changes");
            _hold(seen.proofHash == 0 || round.proofHash == seen.proofHash, "an accepted proof never changes");
            (seen.settledLink, seen.proofHash) = (round.settledLink, round.proofHash);
        }
    }

    uint256 internal constant RANK_FINALISED = 104;
    uint256 internal constant RANK_FAILED = 105;

    /// One line along which a job can only move forwards.
    function _rank(bytes32 jobId) internal view returns (uint256) {
        Phase phase = jobs.phaseOf(jobId);
        if (phase < Phase.Committing) return uint256(phase);
        if (phase <= Phase.Settling) {
            return uint256(phase) + 4 * uint256(jobs.jobOf(jobId).segment);
        }
        if (phase == Phase.Sampling) return 100;
        if (phase == Phase.Proving) return 101;
        if (phase == Phase.Finalisable) return 102;
        if (phase == Phase.Expired) return 103;
        return phase == Phase.Finalised ? RANK_FINALISED : RANK_FAILED;
    }

    function participation(Round memory round) public pure returns (bool committed, bool revealed) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].commitment != 0) committed = true;
            if (round.members[i].link != 0) revealed = true;
        }
    }

    function _member(Round memory round, address operator) internal pure returns (Member memory none) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].operator == operator) return round.members[i];
        }
        return none;
    }

    function _address(bytes32 topic) private pure returns (address) {
        return address(uint160(uint256(topic)));
    }
}
