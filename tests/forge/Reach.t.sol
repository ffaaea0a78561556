// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Handler} from "./Handler.sol";
import {Rules} from "./Rules.sol";

/// @notice Invariants that hold because nothing happens are worth nothing: the handler's moves must lead everywhere.
contract ReachTest is Rules {
    /// Forge prints these.
    event log_named_uint(string key, uint256 val);

    uint256 private constant WALKS = 32;
    uint256 private constant MOVES = 128;

    /// As many moves as forge makes, chosen by a fixed seed; the counts of all walks together.
    function test_moves__some_walks__reach_every_outcome() public {
        string[15] memory outcomes = [
            "Finalised",
            "Failed: NoQuorum",
            "Failed: TimedOut",
            "MissedCommit",
            "MissedReveal",
            "MissedProof",
            "ContradictedProof",
            "proved",
            "proved by another",
            "Agreed in the end",
            "Finalised after three segments",
            "seed block renewed",
            "withdrawn",
            "claimed",
            "refused"
        ];
        uint256[15] memory counts;
        uint256 attempts;
        bytes4[] memory selectors = moves();
        for (uint256 walk = 0; walk < WALKS; ++walk) {
            setUp();
            for (uint256 i = 0; i < MOVES; ++i) {
                uint256 seed = uint256(keccak256(abi.encode(walk, i)));
                (bool ok,) = address(handler).call(abi.encodeWithSelector(selectors[seed % selectors.length], seed));
                check(ok, "the handler never reverts");
                if (i % 8 == 0) roundsKeepTheirWord();
            }
            moneyIsWhereItBelongs();
            drawsAreByStake();
            for (uint256 i = 0; i < outcomes.length; ++i) {
                counts[i] += handler.reached(outcomes[i]);
            }
            attempts += handler.reenterer().attempts();
        }
        for (uint256 i = 0; i < outcomes.length; ++i) {
            emit log_named_uint(outcomes[i], counts[i]);
            check(counts[i] > 2, string.concat("hardly reached: ", outcomes[i]));
        }
        check(attempts != 0, "nobody tried to be paid while being paid");
    }
}
