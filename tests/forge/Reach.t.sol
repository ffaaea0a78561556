// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Phase} from "../../contracts/interfaces/IJobs.sol";
import {Campaign} from "./Campaign.sol";
import {Handler} from "./Handler.sol";

/// @notice Invariants that hold because nothing happens are worth nothing: the handler's moves must lead everywhere.
contract ReachTest is Campaign {
    /// Forge prints these.
    event log_named_uint(string key, uint256 val);

    uint256 private constant WALKS = 192;
    uint256 private constant MOVES = 128;
    uint256 private constant OUTCOMES = 45;

    uint256[OUTCOMES] private _counts;
    mapping(Phase => uint256) private _overturned;
    uint256 private _attempts;

    function _outcomes() private pure returns (bytes32[OUTCOMES] memory) {
        return [
            bytes32("finalised"), "finalised after three", "failed: no quorum", "failed: timed out",
            "failed: too few acted", "failed: input unavailable", "failed: bad input", "failed: cancelled",
            "missed commit", "missed reveal", "missed proof", "contradicted proof",
            "withheld activation", "honest, but voted down", "equivocation", "proved",
            "proved by another", "contested", "contested, then proved", "overturned",
            "reopened", "resealed", "queued", "admitted",
            "trial passed", "trial passed with others", "seed block renewed", "withdrawn",
            "claimed", "refused", "proved, but late",
            "contested by votes alone", "held", "given back", "released",
            "released, and all burnt", "compensated", "compensation claimed", "honest, but contradicted",
            "forged", "appealed after the end", "appealed without a proof", "appealed too late",
            "released after the end", "released too early"
        ];
    }

    /// As many moves as forge makes, chosen by a fixed seed; the counts of all walks together.
    function test_moves__some_walks__reach_every_outcome() public {
        for (uint256 walk = 0; walk < WALKS; ++walk) {
            handler = new Handler(walk % 2);
            _walk(walk);
        }
        bytes32[OUTCOMES] memory outcomes = _outcomes();
        for (uint256 i = 0; i < OUTCOMES; ++i) {
            emit log_named_uint(string(abi.encodePacked(outcomes[i])), _counts[i]);
        }
        for (uint256 i = uint256(Phase.Committing); i <= uint256(Phase.Challengeable); ++i) {
            emit log_named_uint(string.concat("overturned in phase ", _digits(i)), _overturned[Phase(i)]);
        }
        for (uint256 i = 0; i < OUTCOMES; ++i) {
            check(_counts[i] > 2, outcomes[i]);
        }
        for (uint256 i = uint256(Phase.Committing); i <= uint256(Phase.Challengeable); ++i) {
            check(_overturned[Phase(i)] != 0, "overturned in every phase");
        }
        check(_attempts != 0, "nobody tried to be paid again");
    }

    function _digits(uint256 number) private pure returns (string memory) {
        return string(abi.encodePacked(bytes1(uint8(48 + number / 10)), bytes1(uint8(48 + number % 10))));
    }

    function _walk(uint256 walk) private {
        bytes4[] memory selectors = moves();
        for (uint256 i = 0; i < MOVES; ++i) {
            uint256 seed = uint256(keccak256(abi.encode(walk, i)));
            (bool ok, bytes memory answer) =
                address(handler).call(abi.encodeWithSelector(selectors[seed % selectors.length], seed));
            if (!ok) {
                assembly ("memory-safe") {
                    revert(add(answer, 32), mload(answer))
                }
            }
        }
        handler.windUp();
        bytes32[OUTCOMES] memory outcomes = _outcomes();
        for (uint256 i = 0; i < OUTCOMES; ++i) {
            _counts[i] += handler.reached(outcomes[i]);
        }
        for (uint256 i = 0; i < 16; ++i) {
            _overturned[Phase(i)] += handler.overturnedIn(Phase(i));
        }
        _attempts += handler.reenterer().attempts();
    }
}
