// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Rules} from "./Rules.sol";

/// @notice Forge looks for a sequence of the handler's moves after which a rule does not hold; `Broken` names the
/// rule. The rules are checked in three groups, since forge plays sequences anew for every invariant.
contract InvariantsTest is Rules {
    struct FuzzSelector {
        address addr;
        bytes4[] selectors;
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function targetSelectors() public view returns (FuzzSelector[] memory targets) {
        targets = new FuzzSelector[](1);
        targets[0] = FuzzSelector(address(handler), moves());
    }

    function invariant_money_is_where_it_belongs() public view {
        moneyIsWhereItBelongs();
    }

    function invariant_draws_are_by_stake() public {
        drawsAreByStake();
    }

    function invariant_rounds_keep_their_word() public view {
        roundsKeepTheirWord();
    }
}
