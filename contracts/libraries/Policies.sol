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

    /// What a job can last at most: two windows for the input; five a segment (to commit, then up to one more until somebody
    /// draws, the draw itself, to reveal, to settle) but three for the last, which has no draw; one for drawing the proofs;
    /// two for proving.
    uint256 internal constant LONGEST_JOB_SECONDS = (2 + 5 * (MAX_SEGMENTS - 1) + 3 + 1 + 2) * MAX_WINDOW_SECONDS;

    /// @notice Reverts unless every field is within its bounds.
    /// @param segments Of the model.
    /// @param minimumSeconds The least length of a window, fixed when the contracts were deployed.
    function validate(Policy calldata policy, uint256 segments, uint256 minimumSeconds) internal pure {
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
    }

    function _validateWindow(uint256 window, uint256 minimum) private pure {
        if (window < minimum || window > MAX_WINDOW_SECONDS) {
            revert IJobs.WindowOutOfRange(window, minimum, MAX_WINDOW_SECONDS);
        }
    }
}
