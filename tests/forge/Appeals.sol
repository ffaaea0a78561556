// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "../../contracts/Escrow.sol";
import {Hold, IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Book} from "./Book.sol";
import {Truth} from "./Truth.sol";

/// @notice The calls that end a hold, each with what it must do.
abstract contract Appeals is Book {
    /// @param said What the caller says that the hold is.
    /// @param opening, closing The numbers that the proof is of.
    function _appeal(uint256 place, Hold memory said, address caller, uint256 opening, uint256 closing)
        internal
        returns (bool ok)
    {
        Hold memory held = _holds[place];
        bool isThere = _heldState[place] == Held.Open && _isSame(said, held);
        bool isProof = _isProofOf(held, opening, closing);
        uint256 active = staking.activeOf(held.operator);
        ok = _toHold(place, caller, _appealOf(said, opening, closing));
        bool isInTime = block.timestamp < held.releaseAt;
        check(!ok || isThere, "50 a hold ends once");
        check(!ok || isInTime, "53 a hold has its time");
        check(!ok || isProof, "52 only a proof gives back");
        check(ok || !isThere || !isInTime || !isProof, "55 who proves its own is whole");
        check(staking.activeOf(held.operator) == active + (ok ? held.amount : 0), "51 back goes what was taken");
        if (ok) return true;
        if (!isThere) ++reached[_isSame(said, held) ? bytes32("appealed after the end") : bytes32("forged")];
        else ++reached[isProof ? bytes32("appealed too late") : bytes32("appealed without a proof")];
    }

    function _appealOf(Hold memory said, uint256 opening, uint256 closing) private view returns (bytes memory) {
        uint256 segments = _ghosts[_indexOf[said.jobId] - 1].segments;
        (bytes memory proof, uint256[] memory instances) = _proof(segments, said.segment, opening, closing);
        return abi.encodeCall(IStaking.appeal, (said, proof, instances));
    }

    /// With a proof of what the operator had revealed, if there is one.
    function _appealRightly(uint256 place, address caller) internal returns (bool) {
        Hold memory held = _holds[place];
        return _appeal(place, held, caller, _valueOf[held.opening], _valueOf[held.link]);
    }

    function _release(uint256 place, Hold memory said, address caller) internal returns (bool ok) {
        Hold memory held = _holds[place];
        bool isThere = _heldState[place] == Held.Open && _isSame(said, held);
        bool isOver = block.timestamp >= held.releaseAt;
        uint256 owed = _owed(held);
        ok = _toHold(place, caller, abi.encodeCall(IStaking.release, (said)));
        check(!ok || isThere, "50 a hold ends once");
        check(!ok || isOver, "53 a hold has its time");
        check(ok || !isThere || !isOver, "46 nothing is stuck");
        check(!ok || _owed(held) - owed == _now.compensated, "54 half of what is held burns");
        if (ok) return true;
        if (isThere) ++reached["released too early"];
        else ++reached[_isSame(said, held) ? bytes32("released after the end") : bytes32("forged")];
    }

    /// To those whom a hold may compensate.
    function _owed(Hold memory held) private view returns (uint256 owed) {
        address requester = _ghosts[_indexOf[held.jobId] - 1].requester;
        owed = _compensations[requester];
        if (held.challenger != requester) owed += _compensations[held.challenger];
    }

    function _toHold(uint256 place, address caller, bytes memory data) private returns (bool ok) {
        _theHold = place + 1;
        ok = _send(caller, 0, address(staking), data, NO_JOB);
        _theHold = 0;
    }

    /// Before it is too late, the honest prove their own outputs.
    function _appealHonestly(uint256 timestamp) internal {
        uint256[] memory open = _openHolds;
        for (uint256 i = 0; i < open.length; ++i) {
            Hold storage held = _holds[open[i]];
            if (!_isHonest(held.operator) || timestamp < held.releaseAt || block.timestamp >= held.releaseAt) continue;
            check(_appealRightly(open[i], held.operator), "55 who proves its own is whole");
        }
    }

    function _claimCompensation(address account) internal {
        (uint256 credit, uint256 before) = (_compensations[account], account.balance);
        bool ok = _send(account, 0, address(staking), abi.encodeCall(Escrow.claim, ()), NO_JOB);
        check(ok == (credit != 0), "08 a credit is paid once");
        if (ok) check(account.balance - before == credit && reenterer.successes() == 0, "08 a credit is paid once");
    }

    function _isProofOf(Hold memory held, uint256 opening, uint256 closing) private view returns (bool) {
        bool isLast = held.segment + 1 == _ghosts[_indexOf[held.jobId] - 1].segments;
        bool isLinked = Truth.linkOf(opening, false) == held.opening && Truth.linkOf(closing, isLast) == held.link;
        return isLinked && Truth.admits(held.segment, opening, closing);
    }

    function _isSame(Hold memory said, Hold memory held) private pure returns (bool) {
        return keccak256(abi.encode(said)) == keccak256(abi.encode(held));
    }
}
