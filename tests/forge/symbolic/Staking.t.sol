// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Cheats} from "../Cheats.sol";
import {Staking} from "../../../contracts/Staking.sol";
import {Job} from "../../../contracts/interfaces/IJobs.sol";
import {IRegistry} from "../../../contracts/interfaces/IRegistry.sol";
import {Hold} from "../../../contracts/interfaces/IStaking.sol";
import {IVerifier} from "../../../contracts/interfaces/IVerifier.sol";

/// @notice Stands for the registry and for the verifier: every model is known, none has trials, and a proof is the two
/// links that it is between.
contract Obliging {
    function isRegistered(bytes32) external pure returns (bool) {
        return true;
    }

    function trialCount(bytes32) external pure returns (uint256) {
        return 0;
    }

    function verifySegment(bytes32, uint256, bytes calldata, uint256[] calldata instances)
        external
        pure
        returns (bytes32 linkIn, bytes32 linkOut)
    {
        return (bytes32(instances[0]), bytes32(instances[1]));
    }
}

/// @notice Holds for all amounts and times. This contract stands for the jobs: it deploys the stakes, and may slash.
/// Shares of what is released are left to the sequences (rules 09 and 54): no solver decides them in a minute.
contract StakingSymbolic is Cheats {
    address private constant OPERATOR = address(0xA11CE);
    address private constant OTHER = address(0xB0B);
    address private constant CHALLENGER = address(0xC4A11);
    address private constant REQUESTER = address(0x4E9);
    bytes32 private constant MODEL = "model";
    uint256 private constant MINIMUM = 1 ether;
    uint256 private constant UNBONDING = 8 days;
    uint256 private constant START = 1_700_000_000;

    Staking private staking;

    function setUp() public {
        vm.warp(START);
        vm.roll(1000);
        address obliging = address(new Obliging());
        staking = new Staking(IRegistry(obliging), IVerifier(obliging), MINIMUM, UNBONDING, 5000, 3000, 1000);
    }

    /// What the stakes ask of the jobs when they release.
    function jobOf(bytes32) external pure returns (Job memory job) {
        job.requester = REQUESTER;
    }

    /// Two bonds add up, each to its own.
    function check_bond_addsUp(uint96 x, uint96 y, uint96 z) public {
        _bond(OPERATOR, x);
        _bond(OTHER, y);
        _bond(OPERATOR, z);
        assert(staking.activeOf(OPERATOR) == uint256(x) + z && staking.activeOf(OTHER) == y);
        assert(address(staking).balance == uint256(x) + y + z);
    }

    /// Only what is active can start to unbond; nothing else moves.
    function check_startUnbonding_movesWithin(uint96 x, uint96 y, uint256 amount) public {
        _bond(OPERATOR, x);
        _bond(OTHER, y);
        bool ok = _unbond(OPERATOR, amount);
        assert(ok == (amount != 0 && amount <= x));
        (uint256 unbonding,) = staking.unbondingOf(OPERATOR);
        assert(unbonding == (ok ? amount : 0) && staking.activeOf(OPERATOR) == x - unbonding);
        assert(staking.activeOf(OTHER) == y && address(staking).balance == uint256(x) + y);
    }

    /// Nothing is out a second before its delay is over, and then exactly what was unbonding is, once.
    function check_withdraw_neitherEarlyNorTwice(uint96 x, uint96 y, uint96 amount, uint32 later) public {
        _bond(OPERATOR, x);
        _bond(OTHER, y);
        if (!_unbond(OPERATOR, amount)) return;
        vm.warp(START + later);
        vm.deal(OPERATOR, 0);
        bool ok = _withdraw(OPERATOR);
        assert(ok == (later >= UNBONDING));
        assert(OPERATOR.balance == (ok ? amount : 0));
        assert(address(staking).balance == uint256(x) + y - OPERATOR.balance);
        assert(!ok || !_withdraw(OPERATOR));
    }

    /// A second start of the delay holds for all of it.
    function check_startUnbonding_again_startsTheDelayAgain(uint96 x, uint96 first, uint96 second, uint32 a, uint32 b)
        public
    {
        _bond(OPERATOR, x);
        if (!_unbond(OPERATOR, first)) return;
        vm.warp(START + a);
        if (!_unbond(OPERATOR, second)) return;
        vm.warp(START + uint256(a) + b);
        assert(_withdraw(OPERATOR) == (b >= UNBONDING));
    }

    /// A slash takes what it may, of one bond alone, and burns it.
    function check_slash_takesAtMostTheStake(uint96 x, uint96 unbonding, uint96 y, uint256 amount) public {
        uint256 stake = _stake(x, unbonding, y);
        uint256 burntBefore = address(0).balance;
        uint256 taken = staking.slash(OPERATOR, amount, MODEL);
        assert(taken == (amount < stake ? amount : stake));
        assert(address(0).balance - burntBefore == taken);
        _assertSum(stake - taken, y, 0);
    }

    /// So does a hold; but what it takes stays.
    function check_hold_takesAtMostTheStake(uint96 x, uint96 unbonding, uint96 y, uint256 amount) public {
        uint256 stake = _stake(x, unbonding, y);
        Hold memory held = _hold(amount, CHALLENGER);
        assert(held.amount == (amount < stake ? amount : stake) && staking.isHeld(held));
        _assertSum(stake - held.amount, y, held.amount);
    }

    /// A release is not early; where nobody challenged, all of it is burnt.
    function check_release_noChallenger_burnsAll(uint96 x, uint96 unbonding, uint96 y, uint256 amount, uint32 later)
        public
    {
        uint256 stake = _stake(x, unbonding, y);
        Hold memory held = _hold(amount, address(0));
        uint256 burntBefore = address(0).balance;
        vm.warp(START + later);
        bool ok = _release(held);
        assert(ok == (later >= 1 days) && staking.isHeld(held) != ok);
        assert(address(0).balance - burntBefore == (ok ? held.amount : 0));
        assert(staking.creditOf(address(0)) == 0 && staking.creditOf(REQUESTER) == 0);
        _assertSum(stake - held.amount, y, ok ? 0 : held.amount);
    }

    /// An appeal is in time, and with the links that are held, or refused; it gives back all of it, and nothing else.
    function check_appeal_givesBackWhatWasTaken(
        uint96 x,
        uint96 unbonding,
        uint96 y,
        uint256 amount,
        uint32 later,
        bytes32[2] memory links
    ) public {
        uint256 stake = _stake(x, unbonding, y);
        Hold memory held = _hold(amount, CHALLENGER);
        vm.warp(START + later);
        bool ok = _appeal(held, links[0], links[1]);
        assert(ok == (later < 1 days && links[0] == held.opening && links[1] == held.link));
        assert(staking.isHeld(held) != ok);
        _assertSum(ok ? stake : stake - held.amount, y, ok ? 0 : held.amount);
    }

    /// What was given back or released once is neither again.
    function check_hold_endsOnce(uint96 x, uint96 y, uint256 amount, uint32 later, bool released) public {
        _bond(OPERATOR, x);
        _bond(OTHER, y);
        Hold memory held = _hold(amount, address(0));
        if (released) vm.warp(START + 1 days);
        bool ok = released ? _release(held) : _appeal(held, held.opening, held.link);
        assert(ok);
        vm.warp(START + 1 days + later);
        assert(!_release(held));
        vm.warp(START);
        assert(!_appeal(held, held.opening, held.link));
        _assertSum(released ? x - held.amount : x, y, 0);
    }

    /// Who says of a hold what is not so moves nothing. (Of an empty bond the hash is a constant, which halmos does not
    /// compare with the hash of what is said.)
    function check_hold_forged_isNone(uint96 x, uint256 amount, uint256 said, address operator, address challenger)
        public
    {
        if (x == 0) return;
        _bond(OPERATOR, x);
        Hold memory held = _hold(amount, CHALLENGER);
        Hold memory forged = _held(said, challenger, held.releaseAt);
        forged.operator = operator;
        bool isSame = said == held.amount && operator == OPERATOR && challenger == CHALLENGER;
        assert(_appeal(forged, held.opening, held.link) == isSame);
    }

    /// Nobody but the jobs takes stake.
    function check_slash_byOthers_isRefused(address caller, uint96 x, uint256 amount) public {
        if (caller == address(this)) return;
        _bond(OPERATOR, x);
        vm.prank(caller);
        try staking.slash(OPERATOR, amount, MODEL) {
            assert(false);
        } catch {}
        vm.prank(caller);
        try staking.hold(_held(amount, CHALLENGER, 0)) {
            assert(false);
        } catch {}
        assert(staking.activeOf(OPERATOR) == x && address(staking).balance == x);
    }

    /// The weight in the draws of the model follows what is taken and what is given back.
    function check_weight_followsTheBond(uint96 x, uint96 amount) public {
        if (x < MINIMUM) return;
        _bond(OPERATOR, x);
        vm.prank(OPERATOR);
        staking.setEncryptionKey("key");
        vm.prank(OPERATOR);
        staking.serve(MODEL);
        Hold memory held = _hold(amount, CHALLENGER);
        vm.roll(1001);
        uint256 left = x - held.amount;
        assert(staking.totalWeightAt(MODEL, 1000) == (left < MINIMUM ? 0 : left));
        assert(_appeal(held, held.opening, held.link));
        vm.roll(1002);
        assert(staking.totalWeightAt(MODEL, 1001) == x);
        assert(staking.totalWeightAt(MODEL, 1000) == (left < MINIMUM ? 0 : left));
    }

    // --- calls ------------------------------------------------------------------------------------------------------

    /// One operator with an active and an unbonding part, and another one.
    function _stake(uint96 x, uint96 unbonding, uint96 y) private returns (uint256 stake) {
        _bond(OPERATOR, uint256(x) + unbonding);
        _unbond(OPERATOR, unbonding);
        _bond(OTHER, y);
        return uint256(x) + unbonding;
    }

    /// @param owed What `Staking` has besides bonds.
    function _assertSum(uint256 stake, uint256 other, uint256 owed) private view {
        (uint256 unbonding,) = staking.unbondingOf(OPERATOR);
        assert(staking.activeOf(OPERATOR) + unbonding == stake);
        assert(staking.activeOf(OTHER) == other);
        assert(address(staking).balance == stake + other + owed);
    }

    function _bond(address operator, uint256 amount) private {
        if (amount == 0) return;
        vm.deal(operator, amount);
        vm.prank(operator);
        staking.bond{value: amount}();
    }

    function _unbond(address operator, uint256 amount) private returns (bool) {
        vm.prank(operator);
        try staking.startUnbonding(amount) {
            return true;
        } catch {
            return false;
        }
    }

    function _withdraw(address operator) private returns (bool) {
        vm.prank(operator);
        try staking.withdraw() {
            return true;
        } catch {
            return false;
        }
    }

    function _held(uint256 amount, address challenger, uint256 releaseAt) private pure returns (Hold memory) {
        return Hold({
            jobId: "job",
            modelId: MODEL,
            segment: 1,
            attempt: 0,
            operator: OPERATOR,
            opening: "opening",
            link: "link",
            challenger: challenger,
            amount: amount,
            reputation: 0,
            releaseAt: releaseAt
        });
    }

    /// As it is announced, with what was there to take.
    function _hold(uint256 amount, address challenger) private returns (Hold memory held) {
        held = _held(amount, challenger, 0);
        held.amount = staking.hold(held);
        held.releaseAt = START + 1 days;
    }

    function _release(Hold memory held) private returns (bool) {
        try staking.release(held) {
            return true;
        } catch {
            return false;
        }
    }

    function _appeal(Hold memory held, bytes32 opening, bytes32 link) private returns (bool) {
        uint256[] memory instances = new uint256[](2);
        (instances[0], instances[1]) = (uint256(opening), uint256(link));
        try staking.appeal(held, "", instances) {
            return true;
        } catch {
            return false;
        }
    }
}
