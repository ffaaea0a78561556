// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Cheats} from "../Cheats.sol";
import {Escrow} from "../../../contracts/Escrow.sol";

contract EscrowHarness is Escrow {
    constructor() payable {}

    function credit(address account, uint256 amount) external {
        _credit(account, amount);
    }
}

/// @notice Claims, and if it is greedy, claims once more while it is being paid.
contract Claimant {
    EscrowHarness private immutable ESCROW;
    bool private immutable GREEDY;
    bool public wasPaidAgain;
    bool private hasTried;

    constructor(EscrowHarness escrow, bool greedy) {
        (ESCROW, GREEDY) = (escrow, greedy);
    }

    function claim() external {
        ESCROW.claim();
    }

    receive() external payable {
        if (!GREEDY || hasTried) return;
        hasTried = true;
        try ESCROW.claim() {
            wasPaidAgain = true;
        } catch {}
    }
}

/// @notice Holds for all amounts, not only for those that a test thought of.
contract EscrowSymbolic is Cheats {
    EscrowHarness private escrow;
    Claimant private first;
    Claimant private second;
    Claimant private greedy;

    function setUp() public {
        escrow = new EscrowHarness();
        first = new Claimant(escrow, false);
        second = new Claimant(escrow, false);
        greedy = new Claimant(escrow, true);
    }

    /// What is credited to one account is on that account, and on no other.
    function check_credit_addsUp(address a, address b, uint128 x, uint128 y, address other) public {
        escrow.credit(a, x);
        escrow.credit(b, y);
        uint256 expected = (other == a ? uint256(x) : 0) + (other == b ? uint256(y) : 0);
        assert(escrow.creditOf(other) == expected);
    }

    /// An amount that would overflow is refused, and takes nothing away.
    function check_credit_neverWraps(address a, uint256 x, uint256 y) public {
        escrow.credit(a, x);
        try escrow.credit(a, y) {
            assert(escrow.creditOf(a) >= x && escrow.creditOf(a) - x == y);
        } catch {
            assert(escrow.creditOf(a) == x && y > type(uint256).max - x);
        }
    }

    /// A claim pays exactly what was credited, leaves the others' money alone, and cannot be repeated.
    function check_claim_paysOnce(uint96 x, uint96 y, uint96 spare) public {
        _credited(first, x, y, spare);
        uint256 held = address(escrow).balance;
        try first.claim() {
            assert(x > 0 && address(first).balance == x);
        } catch {
            assert(x == 0);
        }
        assert(address(escrow).balance == held - x && escrow.creditOf(address(first)) == 0);
        assert(escrow.creditOf(address(second)) == y);
        try first.claim() {
            assert(false);
        } catch {
            assert(address(first).balance == x);
        }
    }

    /// Credits and what has been paid out sum to what was credited, whatever order two accounts claim in.
    function check_claim_conservesTheSum(uint96 x, uint96 y, uint96 spare, bool firstGoesFirst) public {
        _credited(first, x, y, spare);
        (Claimant one, Claimant two) = firstGoesFirst ? (first, second) : (second, first);
        _tryClaim(one);
        _assertConserved(x, y, spare);
        _tryClaim(two);
        _assertConserved(x, y, spare);
        assert(address(escrow).balance == spare);
    }

    /// An account that claims again while it is being paid gets its credit once.
    function check_claim_withinAClaim_paysOnce(uint96 x, uint96 y, uint96 spare) public {
        _credited(greedy, x, y, spare);
        _tryClaim(greedy);
        assert(!greedy.wasPaidAgain() && address(greedy).balance == x);
        assert(address(escrow).balance == uint256(y) + spare);
    }

    function _credited(Claimant account, uint96 x, uint96 y, uint96 spare) private {
        vm.deal(address(account), 0);
        vm.deal(address(second), 0);
        vm.deal(address(escrow), uint256(x) + y + spare);
        escrow.credit(address(account), x);
        escrow.credit(address(second), y);
    }

    function _assertConserved(uint96 x, uint96 y, uint96 spare) private view {
        uint256 open = escrow.creditOf(address(first)) + escrow.creditOf(address(second));
        assert(open + address(first).balance + address(second).balance == uint256(x) + y);
        assert(address(escrow).balance == open + spare);
    }

    function _tryClaim(Claimant account) private {
        try account.claim() {} catch {}
    }
}
