// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Member} from "../../contracts/interfaces/IJobs.sol";
import {Hold, IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Vm} from "./Cheats.sol";
import {Truth} from "./Truth.sol";
import {Watch} from "./Watch.sol";

/// @notice Books what is held of stakes that a proof took, and how each hold ends.
abstract contract Holds is Watch {
    /// The hold that a call is about, plus one, while it is made.
    uint256 internal _theHold;

    /// It says what was taken, of whom, and of which proof.
    function _bookHold(Vm.Log memory log) internal {
        Hold memory held = abi.decode(log.data, (Hold));
        uint256 index = _now.job;
        Ghost storage ghost = _ghosts[index];
        bool isOfJob = held.jobId == ghost.id && held.modelId == models[ghost.model];
        check(isOfJob && held.attempt == _attempt(index, held.segment), "49 a hold is what a proof took");
        check(held.operator == _now.slashed && held.amount == _now.last, "49 a hold is what a proof took");
        check(held.reputation == _reputations[ghost.model][held.operator], "49 a hold is what a proof took");
        check(held.releaseAt == block.timestamp + APPEAL_SECONDS, "49 a hold is what a proof took");
        Member memory member = _member(_roundNow(index, held.segment), held.operator);
        check(held.link == member.link, "49 a hold is what a proof took");
        check(held.opening == _opening(index, held.segment), "49 a hold is what a proof took");
        bool isChallenge = _now.selector == IJobs.challenge.selector;
        check(held.challenger == (isChallenge ? _now.caller : address(0)), "49 a hold is what a proof took");
        check(_now.proved == held.segment + 1, "49 a hold is what a proof took");
        bytes32 key = _heldKey(held.jobId, held.segment, held.attempt, held.operator);
        check(_holdAt[key] == 0 && staking.isHeld(held), "50 a hold ends once");
        _heldState[_holds.length] = Held.Open;
        _openHolds.push(_holds.length);
        _holds.push(held);
        _holdAt[key] = _holds.length;
        (_allHeld, _now.held) = (_allHeld + held.amount, _now.held + held.amount);
        ++reached["held"];
    }

    function _bookAppeal(Vm.Log memory log) internal {
        check(_now.selector == IStaking.appeal.selector, "50 a hold ends once");
        (uint256 attempt, uint256 amount, uint256 active) = abi.decode(log.data, (uint256, uint256, uint256));
        Hold storage held = _endHold(log, attempt, Held.GivenBack);
        check(block.timestamp < held.releaseAt, "53 a hold has its time");
        address operator = held.operator;
        (uint256 unbonding,) = staking.unbondingOf(operator);
        _stakes[operator] += held.amount;
        _allStakes += held.amount;
        check(amount == held.amount, "51 back goes what was taken");
        check(active == staking.activeOf(operator), "51 back goes what was taken");
        check(active + unbonding == _stakes[operator], "51 back goes what was taken");
        uint256 model = _ghosts[_indexOf[held.jobId] - 1].model;
        _reputations[model][operator] += held.reputation;
        for (uint256 i = 0; i < MODELS; ++i) {
            _stale[i][operator] = i != model;
        }
        ++reached["given back"];
    }

    function _bookRelease(Vm.Log memory log) internal {
        check(_now.selector == IStaking.release.selector, "50 a hold ends once");
        (uint256 attempt, uint256 forChallenger, uint256 forRequester) =
            abi.decode(log.data, (uint256, uint256, uint256));
        Hold storage held = _endHold(log, attempt, Held.Released);
        check(block.timestamp >= held.releaseAt, "53 a hold has its time");
        bool isFree = held.challenger == address(0);
        _now.released += held.amount;
        check(2 * _now.compensated <= held.amount, "54 half of what is held burns");
        check(!isFree || _now.compensated == 0, "54 half of what is held burns");
        check(forChallenger == (isFree ? 0 : held.amount * CHALLENGER_BPS / BPS), "09 who was harmed is compensated");
        check(forRequester == (isFree ? 0 : held.amount * REQUESTER_BPS / BPS), "09 who was harmed is compensated");
        ++reached["released"];
        if (isFree) ++reached["released, and all burnt"];
    }

    function _bookCompensation(Vm.Log memory log) internal {
        check(_now.selector == IStaking.release.selector, "54 half of what is held burns");
        (address account, uint256 amount) = (_account(log.topics[1]), abi.decode(log.data, (uint256)));
        _compensations[account] += amount;
        _allCompensations += amount;
        _now.compensated += amount;
        ++reached["compensated"];
    }

    function _bookCompensationPaid(Vm.Log memory log) internal {
        (address account, uint256 amount) = (_account(log.topics[1]), abi.decode(log.data, (uint256)));
        check(account == _now.caller && amount == _compensations[account] && amount != 0, "08 a credit is paid once");
        _allCompensations -= amount;
        _compensations[account] = 0;
        ++reached["compensation claimed"];
    }

    function _endHold(Vm.Log memory log, uint256 attempt, Held state) private returns (Hold storage held) {
        bytes32 key = _heldKey(log.topics[1], uint256(log.topics[2]), attempt, _account(log.topics[3]));
        uint256 place = _holdAt[key];
        check(place != 0 && place == _theHold && _heldState[place - 1] == Held.Open, "50 a hold ends once");
        held = _holds[--place];
        _heldState[place] = state;
        _allHeld -= held.amount;
        for (uint256 i = 0; i < _openHolds.length; ++i) {
            if (_openHolds[i] != place) continue;
            _openHolds[i] = _openHolds[_openHolds.length - 1];
            _openHolds.pop();
            break;
        }
    }

    /// Whether there is a proof of what the operator had revealed.
    function _isProvable(Hold memory held) internal view returns (bool) {
        return Truth.admits(held.segment, _valueOf[held.opening], _valueOf[held.link]);
    }

    function _heldKey(bytes32 jobId, uint256 segment, uint256 attempt, address operator)
        internal
        pure
        returns (bytes32)
    {
        return keccak256(abi.encode(jobId, segment, attempt, operator));
    }

    function _account(bytes32 topic) internal pure returns (address) {
        return address(uint160(uint256(topic)));
    }
}
