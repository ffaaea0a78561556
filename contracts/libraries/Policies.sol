// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Policy} from "../interfaces/IJobs.sol";

/// @title Bounds of a policy
library Policies {
    uint256 internal constant MAX_COMMITTEE = 21;
    uint256 internal constant MAX_WINDOW_SECONDS = 1 hours;
    uint256 internal constant MAX_SEGMENTS = 16;
    /// Members of all committees of a job: a draw passes over every earlier one, and has to fit into a transaction
    /// (EIP-7825).
    uint256 internal constant MAX_MEMBERS = 192;
    /// Committees that a job may replace.
    uint256 internal constant MAX_REDRAWS = 4;

    /// When everything lapses that is not decided by then, counted from a job's start. Without challenges, redraws and
    /// contested segments a job lasts at most 84 windows, which is half of it.
    uint256 internal constant JOB_SECONDS = 7 days;

    /// @notice Reverts unless every field is within its bounds.
    /// @param segments Of the model.
    /// @param minimumSeconds The least length of a window, fixed when the contracts were deployed.
    function validate(Policy memory policy, uint256 segments, uint256 minimumSeconds) internal pure {
        if (policy.committeeSize == 0 || policy.committeeSize > MAX_COMMITTEE) {
            revert IJobs.CommitteeSizeOutOfRange(policy.committeeSize, MAX_COMMITTEE);
        }
        if (policy.committeeSize * segments > MAX_MEMBERS) {
            revert IJobs.CommitteeSizeOutOfRange(policy.committeeSize, MAX_MEMBERS / segments);
        }
        // Above one half, at most one output can hold a quorum.
        if (policy.quorumBps <= 5000 || policy.quorumBps > 10_000) revert IJobs.QuorumOutOfRange(policy.quorumBps);
        if (policy.proofPermille > 1000) revert IJobs.ProofRateOutOfRange(policy.proofPermille);
        _validateWindow(policy.inputSeconds, minimumSeconds);
        _validateWindow(policy.commitSeconds, minimumSeconds);
        _validateWindow(policy.revealSeconds, minimumSeconds);
        _validateWindow(policy.proveSeconds, minimumSeconds);
        _validateWindow(policy.challengeSeconds, minimumSeconds);
    }

    function _validateWindow(uint256 window, uint256 minimum) private pure {
        if (window < minimum || window > MAX_WINDOW_SECONDS) {
            revert IJobs.WindowOutOfRange(window, minimum, MAX_WINDOW_SECONDS);
        }
    }
}
