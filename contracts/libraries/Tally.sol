// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Member} from "../interfaces/IJobs.sol";

/// @title Counting a round by stake
library Tally {
    /// @notice Finds the output with the most stake behind it; the first of equals.
    /// @return link The output; zero if nobody revealed.
    /// @return weight The stake behind it.
    function leading(Member[] memory members) internal pure returns (bytes32 link, uint256 weight) {
        for (uint256 i = 0; i < members.length; ++i) {
            bytes32 candidate = members[i].link;
            if (candidate == 0 || candidate == link) continue;
            uint256 sum = weightFor(members, candidate);
            if (sum > weight) (link, weight) = (candidate, sum);
        }
    }

    /// @notice The stake of the members that revealed `link`.
    function weightFor(Member[] memory members, bytes32 link) internal pure returns (uint256 sum) {
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].link == link) sum += members[i].weight;
        }
    }

    /// @notice Whether anybody committed, and whether anybody revealed. A miss is a fault only where another member showed
    /// that it could be done: an input that nobody can have, or a window too short for anybody, is not the members' fault.
    function participation(Member[] memory members) internal pure returns (bool hasCommitted, bool hasRevealed) {
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].commitment != 0) hasCommitted = true;
            if (members[i].link != 0) hasRevealed = true;
        }
    }

    /// @notice Whether `weight` is at least `quorumBps` of `total`.
    function isQuorum(uint256 weight, uint256 total, uint256 quorumBps) internal pure returns (bool) {
        return weight * 10_000 >= total * quorumBps;
    }

    /// @notice Draws one of the members that revealed `link`, in proportion to their stakes.
    /// @param point Any number; it is reduced modulo the stake behind `link`.
    function drawSupporter(Member[] memory members, bytes32 link, uint256 point) internal pure returns (address) {
        point %= weightFor(members, link);
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].link != link) continue;
            if (point < members[i].weight) return members[i].operator;
            point -= members[i].weight;
        }
        assert(false); // unreachable: the weights of the supporters add up to what the point was reduced by
        return address(0);
    }
}
