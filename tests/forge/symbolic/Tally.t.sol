// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Cheats} from "../Cheats.sol";
import {Member} from "../../../contracts/interfaces/IJobs.sol";
import {Tally} from "../../../contracts/libraries/Tally.sol";

/// @notice Committees of three with any weights that a stake can have, and any links.
contract TallySymbolic is Cheats {
    Member[] private members;

    /// The supporters of two links have together no more than there is.
    function check_weightFor_twoLinks_fitIntoTheTotal(
        uint208[3] memory weights,
        bytes32[3] memory links,
        bytes32 a,
        bytes32 b
    ) public {
        if (a == b) return;
        _seat(weights, links);
        assert(Tally.weightFor(members, a) + Tally.weightFor(members, b) <= _total(weights));
    }

    /// Of the least quorum that a policy may ask for, there is but one in any total.
    function check_isQuorum_leastOfAPolicy_isForOneLink(uint208 weight, uint208 other, uint216 total) public pure {
        if (total == 0 || uint256(weight) + other > total) return;
        assert(!(Tally.isQuorum(weight, total, 5001) && Tally.isQuorum(other, total, 5001)));
    }

    /// So there is of any higher one: what is a quorum of more is a quorum of less.
    function check_isQuorum_ofMore_isOfLess(uint216 weight, uint216 total, uint16 bps) public pure {
        if (bps <= 5000 || bps > 10_000) return;
        if (Tally.isQuorum(weight, total, bps)) assert(Tally.isQuorum(weight, total, 5001));
    }

    /// No weight that a committee can have (21 members of less than 2^208 each are less than 2^213) makes it overflow.
    function check_isQuorum_neverOverflows(uint216 weight, uint216 total, uint16 bps) public view {
        try this.isQuorum(weight, total, bps) {}
        catch {
            assert(false);
        }
    }

    /// No link has more weight than the leading one, and that one has no more than there is.
    function check_leading_isTheMost(uint208[3] memory weights, bytes32[3] memory links, bytes32 other) public {
        _seat(weights, links);
        (bytes32 link, uint256 weight) = Tally.leading(members);
        assert(weight <= _total(weights));
        assert(weight == (link == 0 ? 0 : Tally.weightFor(members, link)));
        assert(other == 0 || Tally.weightFor(members, other) <= weight);
    }

    /// The draw among supporters ends, and names one of them that has a weight.
    function check_drawSupporter_isASupporter(uint208[2] memory weights, bytes32[2] memory links, uint256 point)
        public {
        for (uint256 i = 0; i < 2; ++i) {
            _seat(address(uint160(i + 1)), weights[i], links[i]);
        }
        if (links[0] == 0 || Tally.weightFor(members, links[0]) == 0) return;
        address drawn = Tally.drawSupporter(members, links[0], point);
        assert(drawn == address(1) ? weights[0] > 0 : (drawn == address(2) && links[1] == links[0] && weights[1] > 0));
    }

    function isQuorum(uint256 weight, uint256 total, uint256 bps) external pure returns (bool) {
        return Tally.isQuorum(weight, total, bps);
    }

    function _seat(uint208[3] memory weights, bytes32[3] memory links) private {
        for (uint256 i = 0; i < 3; ++i) {
            _seat(address(uint160(i + 1)), weights[i], links[i]);
        }
    }

    function _seat(address operator, uint208 weight, bytes32 link) private {
        Member storage member = members.push();
        (member.operator, member.weight, member.link) = (operator, weight, link);
    }

    function _total(uint208[3] memory weights) private pure returns (uint256) {
        return uint256(weights[0]) + weights[1] + weights[2];
    }
}
