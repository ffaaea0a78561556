// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Job, Label, Member, Phase, Reason, Round} from "./interfaces/IJobs.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {IVerifier} from "./interfaces/IVerifier.sol";
import {JobProofs} from "./jobs/JobProofs.sol";
import {JobQueue} from "./jobs/JobQueue.sol";
import {JobRecord, Parameters} from "./jobs/JobRecord.sol";
import {Evidence} from "./libraries/Evidence.sol";

/// @title Jobs
/// @notice See {IJobs}. How jobs start is in {JobQueue}, rounds in {JobRounds}, proofs in {JobProofs}; here they end.
contract Jobs is JobQueue, JobProofs {
    constructor(IRegistry registry_, IVerifier verifier_, Parameters memory parameters)
        JobRecord(registry_, verifier_, parameters)
    {}

    /// @inheritdoc IJobs
    function finalise(bytes32 jobId) external {
        Job storage job = _requirePhase(jobId, Phase.Finalisable);
        _close(job, Phase.Finalised);
        uint256 segmentFee = job.feeWei / job.segments;
        uint256 paid;
        for (uint256 i = 0; i < job.segments; ++i) {
            Round storage round = _round(jobId, job, i);
            paid += _pay(round, segmentFee);
            _commend(job.modelId, round);
        }
        _credit(job.requester, job.feeWei - paid); // what rounding left over
        job.evidenceRoot = Evidence.root(jobId, job, _rounds[jobId]);
        emit JobFinalised(jobId, _round(jobId, job, job.segments - 1).settledLink, job.evidenceRoot);
    }

    /// @inheritdoc IJobs
    function expire(bytes32 jobId) external {
        Job storage job = _requirePhase(jobId, Phase.Expired);
        // Where the job's own end came first, nobody had the time that the policy gave.
        bool hadTime = job.deadline <= job.endsAt;
        if (job.phase == Phase.AwaitingInput && hadTime) {
            uint256 total = _round(jobId, job, 0).totalWeight;
            return _chargeRequester(jobId, job, Reason.InputUnavailable, 0, total);
        }
        if (job.phase == Phase.Contested && hadTime) return _failWithoutOutput(jobId, job);
        if (job.phase == Phase.Proving && hadTime) {
            for (uint256 i = 0; i < job.segments; ++i) {
                Round storage round = _round(jobId, job, i);
                if (round.prover == address(0) || round.proofHash != 0) continue;
                _penaliseMiss(jobId, i, _memberOf(round, jobId, i, round.prover), Reason.MissedProof);
            }
        }
        _fail(jobId, job, Reason.TimedOut, job.feeWei);
    }

    /// @inheritdoc IJobs
    function phaseOf(bytes32 jobId) external view returns (Phase) {
        return _phase(jobId, _jobs[jobId]);
    }

    /// @inheritdoc IJobs
    function jobOf(bytes32 jobId) external view returns (Job memory) {
        if (_jobs[jobId].phase == Phase.None) revert UnknownJob(jobId);
        return _jobs[jobId];
    }

    /// @inheritdoc IJobs
    function roundOf(bytes32 jobId, uint256 segment) external view returns (Round memory) {
        return roundAt(jobId, segment, _attempt(_jobs[jobId], segment));
    }

    /// @inheritdoc IJobs
    function roundAt(bytes32 jobId, uint256 segment, uint256 attempt) public view returns (Round memory) {
        return _rounds[jobId][segment][attempt];
    }

    /// @inheritdoc IJobs
    function labelOf(bytes32 jobId, uint256 segment) external view returns (Label) {
        return Evidence.labelOf(_round(jobId, _jobs[jobId], segment));
    }

    /// Rounded down throughout; the requester gets the rest.
    function _pay(Round storage round, uint256 fee) private returns (uint256 paid) {
        if (round.provedBy != address(0)) {
            paid = fee * proverShareBps / BPS;
            _credit(round.provedBy, paid);
        }
        paid += _payByWeight(round, round.settledLink, round.settledWeight, fee - paid);
    }

    /// One more segment without fault for each member that stands behind the output.
    function _commend(bytes32 modelId, Round storage round) private {
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member storage member = round.members[i];
            if (member.link == round.settledLink) staking.commend(member.operator, modelId);
        }
    }
}
