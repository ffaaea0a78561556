// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Cheats} from "../Cheats.sol";
import {Policy} from "../../../contracts/interfaces/IJobs.sol";
import {Policies} from "../../../contracts/libraries/Policies.sol";

/// @notice What a policy that was let through can be relied on for.
contract PoliciesSymbolic is Cheats {
    /// A quorum is more than half and no more than all, and the committees of a job fit into a transaction.
    function check_validate_bounds(Policy calldata policy, uint8 segments, uint32 minimum) external view {
        if (segments == 0 || segments > Policies.MAX_SEGMENTS) return;
        try this.validate(policy, segments, minimum) {
            assert(policy.quorumBps > 5000 && policy.quorumBps <= 10_000);
            assert(policy.proofPermille <= 1000);
            assert(policy.committeeSize > 0 && policy.committeeSize <= Policies.MAX_COMMITTEE);
            assert(uint256(policy.committeeSize) * segments <= Policies.MAX_MEMBERS);
        } catch {}
    }

    /// No window is shorter than the least there may be, nor longer than the most.
    function check_validate_windows(Policy calldata policy, uint32 minimum) external view {
        try this.validate(policy, 1, minimum) {
            assert(_isWindow(policy.inputSeconds, minimum) && _isWindow(policy.commitSeconds, minimum));
            assert(_isWindow(policy.revealSeconds, minimum) && _isWindow(policy.proveSeconds, minimum));
        } catch {}
    }

    function validate(Policy calldata policy, uint256 segments, uint256 minimum) external pure {
        Policies.validate(policy, segments, minimum);
    }

    function _isWindow(uint256 window, uint256 minimum) private pure returns (bool) {
        return window >= minimum && window <= Policies.MAX_WINDOW_SECONDS;
    }
}
