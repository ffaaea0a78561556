// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Cheats} from "./Cheats.sol";
import {Handler} from "./Handler.sol";
import {Play} from "./Play.sol";
import {Stakes} from "./Stakes.sol";

/// @notice A handler and its moves: shared by forge's sequences and by the walk that has to reach every outcome.
abstract contract Campaign is Cheats {
    Handler internal handler;

    function moves() public pure returns (bytes4[] memory selectors) {
        bytes4[17] memory all = [
            Stakes.stake.selector,
            Stakes.membership.selector,
            Stakes.trial.selector,
            Stakes.reportEquivocation.selector,
            Handler.begin.selector,
            Handler.vote.selector,
            Handler.evidence.selector,
            Handler.end.selector,
            Handler.claim.selector,
            Handler.appeal.selector,
            Handler.release.selector,
            Handler.pass.selector,
            Handler.misuse.selector,
            Play.play.selector,
            Play.playOn.selector,
            Play.playThrough.selector,
            Play.overturn.selector
        ];
        selectors = new bytes4[](all.length);
        for (uint256 i = 0; i < all.length; ++i) {
            selectors[i] = all[i];
        }
    }
}
