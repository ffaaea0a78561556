// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Job, Label, Phase, Round} from "../interfaces/IJobs.sol";
import {IValidationRegistry} from "./interfaces/IValidationRegistry.sol";

/// @title Validations: the record of jobs, read as draft ERC-8004 wants it read
/// @notice Follows the validation registry of ERC-8004 as of ethereum/ERCs 503591a6e80e6e1affdd6403341e25269141f046
/// (2026-01-25, status Draft), in part. It stores nothing, has no administrator, and has no call but static ones.
///
/// What the terms of the draft are here:
/// - `requestHash`: a job's id. `agentId`: its model's id in the registry of models, as a number. `validatorAddress`:
///   {IJobs}.
/// - `response`: of a finalised job, 100 if every segment is Proved, and only then. 0 if one is Unproved, one member's
///   word. Otherwise the least share of a segment's drawn stake that stands behind its output, in ninety-ninths and
///   rounded down: 49 to 99.
/// - `tag`: of a finalised job its weakest label, "proved", "agreed", "attested" or "unproved"; else "failed",
///   "expired" or "pending", all of them with a `response` of 0.
/// - `responseHash`: the root over the job's evidence; zero until it is finalised.
/// - `lastUpdate`: when the job was finalised or failed; zero until then.
///
/// Where it deviates:
/// - `requestHash` is the hash of the requester and a salt, not of the payload; {IJobs} binds one payload to it.
/// - `agentId` is no ERC-721 token, and there is no identity registry: `getIdentityRegistry` is address 0.
/// - `validationRequest` always reverts: a request needs a fee and a policy; see {IJobs.request}.
/// - `validationResponse` always reverts: a response follows from the record, and nobody can give one.
/// - `getSummary`, `getAgentValidations` and `getValidatorRequests` always revert: the record has no lists, and an
///   empty answer would be a false one. {IJobs.JobRequested} has the model as a topic.
/// - There is no `initialize`, and no event: {IJobs.JobRequested}, {IJobs.JobFinalised} and {IJobs.JobFailed} say the
///   same.
/// - An unknown `requestHash` reverts with {IJobs.UnknownJob}; the draft says nothing of it.
/// - The identity and reputation registries of the draft are left out.
contract ValidationRegistry is IValidationRegistry {
    uint256 private constant PROVED = 100;
    /// Below {PROVED}: no stake stands for a proof.
    uint256 private constant UNANIMOUS = 99;

    IJobs public immutable jobs;

    error RequestThroughJobs(address jobs);
    error ResponseIsDerived(bytes32 requestHash);
    error NotEnumerable();

    constructor(IJobs jobs_) {
        jobs = jobs_;
    }

    /// @inheritdoc IValidationRegistry
    function getValidationStatus(bytes32 requestHash)
        external
        view
        returns (
            address validatorAddress,
            uint256 agentId,
            uint8 response,
            bytes32 responseHash,
            string memory tag,
            uint256 lastUpdate
        )
    {
        Job memory job = jobs.jobOf(requestHash);
        validatorAddress = address(jobs);
        agentId = uint256(job.modelId);
        responseHash = job.evidenceRoot;
        lastUpdate = job.closedAt;
        Phase phase = jobs.phaseOf(requestHash);
        if (phase == Phase.Finalised) (response, tag) = _verdict(requestHash, job.segments);
        else if (phase == Phase.Failed) tag = "failed";
        else if (phase == Phase.Expired) tag = "expired";
        else tag = "pending";
    }

    /// @notice Always address 0: there is none.
    function getIdentityRegistry() external pure returns (address) {
        return address(0);
    }

    /// @notice Always reverts: jobs are requested with {IJobs.request}.
    function validationRequest(address, uint256, string calldata, bytes32) external view {
        revert RequestThroughJobs(address(jobs));
    }

    /// @notice Always reverts: a response follows from the record.
    function validationResponse(bytes32 requestHash, uint8, string calldata, bytes32, string calldata) external pure {
        revert ResponseIsDerived(requestHash);
    }

    /// @notice Always reverts: the record has no lists.
    function getSummary(uint256, address[] calldata, string calldata) external pure returns (uint64, uint8) {
        revert NotEnumerable();
    }

    /// @notice Always reverts: the record has no lists.
    function getAgentValidations(uint256) external pure returns (bytes32[] memory) {
        revert NotEnumerable();
    }

    /// @notice Always reverts: the record has no lists.
    function getValidatorRequests(address) external pure returns (bytes32[] memory) {
        revert NotEnumerable();
    }

    /// A job is worth as much as its weakest segment.
    function _verdict(bytes32 jobId, uint256 segments) private view returns (uint8 response, string memory tag) {
        uint256 least = PROVED;
        tag = "proved";
        bool isAttested = false;
        for (uint256 i = 0; i < segments; ++i) {
            Label label = jobs.labelOf(jobId, i);
            if (label == Label.Proved) continue;
            if (label == Label.Attested) isAttested = true; // kept for evidence still to come
            else if (label != Label.Agreed) return (0, "unproved");
            Round memory round = jobs.roundOf(jobId, i);
            uint256 share = UNANIMOUS * round.settledWeight / round.totalWeight;
            if (share < least) least = share;
            tag = isAttested ? "attested" : "agreed";
        }
        return (uint8(least), tag);
    }
}
