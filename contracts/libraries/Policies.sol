// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Policy} from "../interfaces/IJobs.sol";

/// @title Bounds of a policy
library Policies {
    uint256 internal constant MAX_COMMITTEE = 21;
    uint256 internal constant MIN_WINDOW_SECONDS = 2;
    uint256 internal constant MAX_WINDOW_SECONDS = 1 hours;
    uint256 internal constant MAX_SEGMENTS = 16;

    /// What a job can last at most, if every round that lapsed is settled at once: two windows for the input; four a segment
    /// (to commit, then up to one more until somebody draws, the draw itself, to reveal) but two for the last, which has no
    /// draw; one for drawing the proofs; two for proving.
    uint256 internal constant LONGEST_JOB_SECONDS = (2 + 4 * (MAX_SEGMENTS - 1) + 2 + 1 + 2) * MAX_WINDOW_SECONDS;

    /// @notice Reverts unless every field is within its bounds.
    function validate(Policy calldata policy) internal pure {
        if (policy.committeeSize == 0 || policy.committeeSize > MAX_COMMITTEE) {
            revert IJobs.CommitteeSizeOutOfRange(policy.committeeSize, MAX_COMMITTEE);
        }
        // Above one half, at most one output can hold a quorum.
        if (policy.quorumBps <= 5000 || policy.quorumBps > 10_000) revert IJobs.QuorumOutOfRange(policy.quorumBps);
        if (policy.proofPermille > 1000) revert IJobs.ProofRateOutOfRange(policy.proofPermille);
        _validateWindow(policy.inputSeconds);
        _validateWindow(policy.commitSeconds);
        _validateWindow(policy.revealSeconds);
        _validateWindow(policy.proveSeconds);
    }

    function _validateWindow(uint256 window) private pure {
        if (window < MIN_WINDOW_SECONDS || window > MAX_WINDOW_SECONDS) {
            revert IJobs.WindowOutOfRange(window, MIN_WINDOW_SECONDS, MAX_WINDOW_SECONDS);
        }
    }
}
