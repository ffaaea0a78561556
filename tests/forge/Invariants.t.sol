// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Campaign} from "./Campaign.sol";
import {Handler} from "./Handler.sol";

/// @notice Forge looks for a sequence of the handler's moves after which a rule of INVARIANTS.md does not hold;
/// `Broken` names it. What a call must do is checked in the call, the rest now and then (`check_interval`), and at
/// the end.
abstract contract InvariantsTest is Campaign {
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

    function invariant_rules_hold() public {
        handler.sweep();
    }

    function afterInvariant() public {
        handler.windUp();
    }
}

/// @notice Half of the sequences; forge plays each half in a thread of its own.
contract FirstWorldTest is InvariantsTest {
    function setUp() public {
        handler = new Handler(0);
    }
}

contract SecondWorldTest is InvariantsTest {
    function setUp() public {
        handler = new Handler(1);
    }
}
