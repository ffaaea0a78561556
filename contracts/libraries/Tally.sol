// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Member} from "../interfaces/IJobs.sol";

/// @title Counting a round by stake
library Tally {
    /// A vote that the round's input cannot be had: not fetched, not opened, or not what its link stands for.
    bytes32 internal constant UNAVAILABLE = bytes32(uint256(1));
    /// A vote that the round's input cannot be worked on as the job asks.
    bytes32 internal constant BAD_INPUT = bytes32(uint256(2));

    /// @notice Whether a revealed link stands for an output, and is no vote.
    function isOutput(bytes32 link) internal pure returns (bool) {
        return uint256(link) > uint256(BAD_INPUT);
    }

    /// @notice Finds the link with the most stake behind it, votes included; the first of equals.
    /// @return link The link; zero if nobody revealed.
    /// @return weight The stake behind it.
    function leading(Member[] storage members) internal view returns (bytes32 link, uint256 weight) {
        for (uint256 i = 0; i < members.length; ++i) {
            bytes32 candidate = members[i].link;
            if (candidate == 0 || candidate == link) continue;
            uint256 sum = weightFor(members, candidate);
            if (sum > weight) (link, weight) = (candidate, sum);
        }
    }

    /// @notice The stake of the members that revealed `link`.
    function weightFor(Member[] storage members, bytes32 link) internal view returns (uint256 sum) {
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].link == link) sum += members[i].weight;
        }
    }

    /// @notice The stake of the members that committed.
    function weightCommitted(Member[] storage members) internal view returns (uint256 sum) {
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].commitment != 0) sum += members[i].weight;
        }
    }

    /// @notice Whether anybody committed, whether anybody revealed, and whether anybody revealed an output. A miss is a
    /// fault only where another member showed that it could be done.
    function participation(Member[] storage members)
        internal
        view
        returns (bool hasCommitted, bool hasRevealed, bool hasOutput)
    {
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].commitment != 0) hasCommitted = true;
            if (members[i].link != 0) hasRevealed = true;
            if (isOutput(members[i].link)) hasOutput = true;
        }
    }

    /// @notice Whether `weight` is at least `quorumBps` of `total`.
    function isQuorum(uint256 weight, uint256 total, uint256 quorumBps) internal pure returns (bool) {
        return weight * 10_000 >= total * quorumBps;
    }

    /// @notice Draws one of the members that revealed `link`, in proportion to their stakes.
    /// @param point Any number; it is reduced modulo the stake behind `link`.
    function drawSupporter(Member[] storage members, bytes32 link, uint256 point) internal view returns (address) {
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
