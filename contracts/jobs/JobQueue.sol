// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {JobRecord} from "./JobRecord.sol";
import {IJobs, Job, Phase, Policy, Reason, Request} from "../interfaces/IJobs.sol";
import {FeeQueue} from "../libraries/FeeQueue.sol";
import {Policies} from "../libraries/Policies.sol";

/// @title How jobs come in, wait and start
abstract contract JobQueue is JobRecord {
    using FeeQueue for FeeQueue.Queue;

    /// Entries of cancelled jobs that one call passes over.
    uint256 public constant MAX_SKIPS = 64;

    /// @inheritdoc IJobs
    function request(Request calldata what) external payable returns (bytes32 jobId) {
        uint256 segments = registry.segmentCount(what.modelId);
        if (segments == 0) revert UnknownModel(what.modelId);
        if (msg.value < minimumFeeWei) revert FeeTooLow(minimumFeeWei, msg.value);
        _requireValue(what.inputLink, "inputLink");
        _requireValue(what.resultKey, "resultKey");
        Policy memory policy = what.policy;
        Policies.validate(policy, segments, minimumWindowSeconds);
        jobId = jobIdOf(msg.sender, what.salt);
        Job storage job = _jobs[jobId];
        if (job.phase != Phase.None) revert JobAlreadyRequested(jobId);

        job.requester = msg.sender;
        job.segments = uint8(segments);
        job.modelId = what.modelId;
        job.inputLink = what.inputLink;
        job.resultKey = what.resultKey;
        job.routeCid = what.routeCid;
        job.feeWei = msg.value;
        job.policy = policy;
        emit JobRequested(
            jobId, msg.sender, what.modelId, what.inputLink, what.resultKey, what.routeCid, msg.value, policy
        );
        FeeQueue.Queue storage queue = _queues[what.modelId];
        if (_running[what.modelId] < maxRunningJobs && queue.length == 0) {
            _start(jobId, job);
        } else {
            _enter(job, Phase.Queued, 0);
            emit JobQueued(jobId, what.modelId, queue.push(msg.value, jobId));
        }
    }

    /// @inheritdoc IJobs
    function admit(bytes32 modelId) external returns (bytes32 jobId) {
        FeeQueue.Queue storage queue = _queues[modelId];
        if (_running[modelId] >= maxRunningJobs || queue.length == 0) {
            revert NothingToAdmit(modelId, _running[modelId], queue.length);
        }
        for (uint256 i = 0; i < MAX_SKIPS && queue.length != 0; ++i) {
            jobId = queue.pop();
            if (_jobs[jobId].phase == Phase.Queued) {
                _start(jobId, _jobs[jobId]);
                return jobId;
            }
        }
        return 0; // only cancelled ones: they are gone now
    }

    /// @inheritdoc IJobs
    function cancel(bytes32 jobId) external {
        Job storage job = _requirePhase(jobId, Phase.Queued);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        _fail(jobId, job, Reason.Cancelled, job.feeWei);
    }

    /// @inheritdoc IJobs
    function loadOf(bytes32 modelId) external view returns (uint256 running, uint256 queued) {
        return (_running[modelId], _queues[modelId].length);
    }

    /// @inheritdoc IJobs
    function jobIdOf(address requester, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(JOB_TAG, block.chainid, address(this), requester, salt));
    }

    function _start(bytes32 jobId, Job storage job) private {
        ++_running[job.modelId];
        // INVARIANT: membership is frozen before any seed of this job exists.
        job.frozenBlock = uint48(block.number - 1);
        job.endsAt = uint48(block.timestamp + Policies.JOB_SECONDS);
        emit JobStarted(jobId, job.frozenBlock, job.endsAt);
        _enter(job, Phase.Requested, job.policy.inputSeconds);
        _setSeedBlock(jobId, job);
    }
}
