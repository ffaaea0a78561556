// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "../Escrow.sol";
import {Staking} from "../Staking.sol";
import {IJobs, Job, Member, Phase, Reason, Round} from "../interfaces/IJobs.sol";
import {IRegistry} from "../interfaces/IRegistry.sol";
import {IVerifier} from "../interfaces/IVerifier.sol";
import {FeeQueue} from "../libraries/FeeQueue.sol";
import {Policies} from "../libraries/Policies.sol";
import {Tally} from "../libraries/Tally.sol";

/// @notice What is fixed when the contracts are deployed, for ever: there is no administrator.
/// @param minimumStakeWei, unbondingSeconds See {IStaking}.
/// @param minimumFeeWei The least fee of a job.
/// @param minimumWindowSeconds The least length of each of a job's windows: what every operator must be able to keep.
/// @param maxRunningJobs How many jobs of one model may run at a time; others wait.
/// @param missPenaltyBps Share of its drawn stake that a member loses that was silent, or withheld its output.
/// @param contradictionPenaltyBps Share of its drawn stake that a member loses whose output a proof contradicts, or that
/// signed two.
/// @param proverShareBps Share of a proved segment's fee that goes to the prover; the rest goes to the voters.
/// @param faultShareBps Share of the fee that a requester pays whose input could not be had, or not be worked on.
/// @param challengerShareBps, requesterShareBps What a challenger and a requester get of the stake that a challenge took,
/// unless there is an appeal; one half of it or more is burnt.
struct Parameters {
    uint256 minimumStakeWei;
    uint256 unbondingSeconds;
    uint256 minimumFeeWei;
    uint256 minimumWindowSeconds;
    uint256 maxRunningJobs;
    uint256 missPenaltyBps;
    uint256 contradictionPenaltyBps;
    uint256 proverShareBps;
    uint256 faultShareBps;
    uint256 challengerShareBps;
    uint256 requesterShareBps;
}

/// @title The record of all jobs, and what every part of {Jobs} does with it
abstract contract JobRecord is IJobs, Escrow {
    bytes32 internal constant JOB_TAG = keccak256("interlock.job.v1");
    bytes32 internal constant COMMIT_TAG = keccak256("interlock.commit.v2");
    bytes32 internal constant SEED_TAG = keccak256("interlock.seed.v1");
    bytes32 internal constant SAMPLE_TAG = keccak256("interlock.sample.v1");
    bytes32 internal constant PROVER_TAG = keccak256("interlock.prover.v1");
    bytes32 internal constant PROOF_TAG = keccak256("interlock.proof.v1");
    uint256 internal constant BPS = 10_000;

    IRegistry public immutable registry;
    IVerifier public immutable verifier;
    /// Deployed by this contract, so that no other can ever be its slasher.
    Staking public immutable staking;
    uint256 public immutable minimumFeeWei;
    uint256 public immutable minimumWindowSeconds;
    uint256 public immutable maxRunningJobs;
    uint256 public immutable missPenaltyBps;
    uint256 public immutable contradictionPenaltyBps;
    uint256 public immutable proverShareBps;
    uint256 public immutable faultShareBps;

    mapping(bytes32 jobId => Job) internal _jobs;
    mapping(bytes32 jobId => mapping(uint256 segment => mapping(uint256 attempt => Round))) internal _rounds;
    mapping(bytes32 modelId => uint256) internal _running;
    mapping(bytes32 modelId => FeeQueue.Queue) internal _queues;

    constructor(IRegistry registry_, IVerifier verifier_, Parameters memory parameters) {
        // INVARIANT: stake that is on its way out can still be slashed for any job that it was drawn for.
        if (parameters.unbondingSeconds < Policies.JOB_SECONDS) {
            revert UnbondingTooShort(parameters.unbondingSeconds, Policies.JOB_SECONDS);
        }
        if (parameters.minimumWindowSeconds == 0 || parameters.minimumWindowSeconds > Policies.MAX_WINDOW_SECONDS) {
            revert WindowOutOfRange(parameters.minimumWindowSeconds, 1, Policies.MAX_WINDOW_SECONDS);
        }
        if (parameters.maxRunningJobs == 0) revert CountIsZero("maxRunningJobs");
        _requireShare(parameters.missPenaltyBps, BPS);
        _requireShare(parameters.contradictionPenaltyBps, BPS);
        _requireShare(parameters.proverShareBps, BPS);
        _requireShare(parameters.faultShareBps, BPS);
        // INVARIANT: whoever has its own stake slashed by its own proof loses at least half of it.
        _requireShare(parameters.challengerShareBps, BPS / 2);
        _requireShare(parameters.challengerShareBps + parameters.requesterShareBps, BPS / 2);
        registry = registry_;
        verifier = verifier_;
        staking = new Staking(
            registry_,
            verifier_,
            parameters.minimumStakeWei,
            parameters.unbondingSeconds,
            parameters.contradictionPenaltyBps,
            parameters.challengerShareBps,
            parameters.requesterShareBps
        );
        minimumFeeWei = parameters.minimumFeeWei;
        minimumWindowSeconds = parameters.minimumWindowSeconds;
        maxRunningJobs = parameters.maxRunningJobs;
        missPenaltyBps = parameters.missPenaltyBps;
        contradictionPenaltyBps = parameters.contradictionPenaltyBps;
        proverShareBps = parameters.proverShareBps;
        faultShareBps = parameters.faultShareBps;
    }

    /// @inheritdoc IJobs
    function commitmentOf(
        bytes32 jobId,
        uint256 segment,
        uint256 attempt,
        address operator,
        bytes32 link,
        bytes32 salt
    ) public view returns (bytes32) {
        return keccak256(
            abi.encode(COMMIT_TAG, block.chainid, address(this), jobId, segment, attempt, operator, link, salt)
        );
    }

    /// @inheritdoc IJobs
    function announcementOf(bytes32 jobId, uint256 segment, uint256 attempt, address operator, bytes32 proofHash)
        public
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(PROOF_TAG, block.chainid, address(this), jobId, segment, attempt, operator, proofHash)
        );
    }

    // --- phases ---------------------------------------------------------------------------------------------------------

    function _phase(bytes32 jobId, Job storage job) internal view returns (Phase) {
        Phase stored = job.phase;
        uint256 deadline = job.deadline;
        if (deadline == 0 || (block.timestamp < deadline && block.timestamp < job.endsAt)) return stored;
        // INVARIANT: a job ends while the stake behind it can still be slashed; what is decided by then stands.
        if (stored == Phase.Challengeable) return deadline <= job.endsAt ? Phase.Finalisable : Phase.Expired;
        if (block.timestamp >= job.endsAt) return Phase.Expired;
        uint256 late = (block.timestamp - deadline) / job.policy.revealSeconds;
        if (stored == Phase.Revealing && late == 0) return Phase.Settling;
        if (stored == Phase.Committing && late < 2) {
            // There is no committee to draw behind the last segment, unless its own has to be replaced.
            bool isComplete = _isLast(job) && !_isShort(job, _round(jobId, job, job.segment));
            if (late == 0) return isComplete ? Phase.Revealing : Phase.Drawing;
            if (isComplete) return Phase.Settling;
        }
        return Phase.Expired;
    }

    function _requirePhase(bytes32 jobId, Phase expected) internal view returns (Job storage job) {
        job = _jobs[jobId];
        Phase actual = _phase(jobId, job);
        if (actual != expected) revert WrongPhase(jobId, actual);
    }

    /// @param window Seconds until the phase lapses; zero if it never does.
    function _enter(Job storage job, Phase phase, uint256 window) internal {
        job.phase = phase;
        job.deadline = window == 0 ? 0 : uint48(block.timestamp + window);
    }

    function _setSeedBlock(bytes32 jobId, Job storage job) internal {
        job.seedBlock = uint48(block.number);
        emit SeedBlockSet(jobId, job.segment, block.number);
    }

    function _isLast(Job storage job) internal view returns (bool) {
        return job.segment + 1 == job.segments;
    }

    /// Whether too few committed for any output to have a quorum.
    function _isShort(Job storage job, Round storage round) internal view returns (bool) {
        return !Tally.isQuorum(Tally.weightCommitted(round.members), round.totalWeight, job.policy.quorumBps);
    }

    function _requireValue(bytes32 value, string memory field) internal pure {
        if (value == 0) revert ValueIsZero(field);
    }

    /// A hash of the job, a segment and a block's hash, in a domain of its own.
    function _draw(bytes32 tag, bytes32 jobId, uint256 segment, bytes32 entropy) internal view returns (bytes32) {
        return keccak256(abi.encode(tag, block.chainid, address(this), jobId, segment, entropy));
    }

    // --- rounds ---------------------------------------------------------------------------------------------------------

    function _round(bytes32 jobId, Job storage job, uint256 segment) internal view returns (Round storage) {
        return _rounds[jobId][segment][_attempt(job, segment)];
    }

    function _attempt(Job storage job, uint256 segment) internal view returns (uint16) {
        return uint16(job.attempts >> (16 * segment));
    }

    function _nextAttempt(Job storage job, uint256 segment) internal {
        job.attempts += 1 << (16 * segment);
    }

    function _memberOf(Round storage round, bytes32 jobId, uint256 segment, address operator)
        internal
        view
        returns (Member storage)
    {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].operator == operator) return round.members[i];
        }
        revert NotMember(jobId, segment, operator);
    }

    // --- stake, reputation and closing ----------------------------------------------------------------------------------

    /// Takes a share of the stake that the member was drawn with, and burns it.
    function _penaliseMiss(bytes32 jobId, uint256 segment, Member storage member, Reason reason) internal {
        uint256 amount = member.weight * missPenaltyBps / BPS;
        uint256 taken = staking.slash(member.operator, amount, _jobs[jobId].modelId);
        emit OperatorPenalised(jobId, segment, member.operator, reason, taken);
    }

    /// @param refund What of the fee goes back to the requester.
    function _fail(bytes32 jobId, Job storage job, Reason reason, uint256 refund) internal {
        _close(job, Phase.Failed);
        _credit(job.requester, refund);
        emit JobFailed(jobId, reason, refund);
    }

    function _close(Job storage job, Phase phase) internal {
        if (job.phase != Phase.Queued) --_running[job.modelId];
        _enter(job, phase, 0);
        job.closedAt = uint48(block.timestamp);
    }

    function _requireShare(uint256 shareBps, uint256 maximum) private pure {
        if (shareBps > maximum) revert ShareOutOfRange(shareBps);
    }
}
