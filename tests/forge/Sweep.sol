// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "../../contracts/Escrow.sol";
import {IJobs, Phase, Round} from "../../contracts/interfaces/IJobs.sol";
import {IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Calls} from "./Calls.sol";

/// @notice The rules that no single call shows: they are checked now and then, and at the end.
abstract contract Sweep is Calls {
    /// Of the model that has trials.
    mapping(address operator => bool) internal _admitted;

    function sweep() public {
        _sweepStakes();
        _sweepCredits();
        for (uint256 i = 0; i < _holds.length; ++i) {
            check(staking.isHeld(_holds[i]) == (_heldState[i] == Held.Open), "50 a hold ends once");
        }
        for (uint256 i = 0; i < MODELS; ++i) {
            _sweepWeights(i);
        }
        _sweepPast();
        _sweepJobs();
    }

    function _sweepStakes() private view {
        for (uint256 i = 0; i < OPERATORS; ++i) {
            address operator = actors[i];
            (uint256 unbonding, uint256 releaseAt) = staking.unbondingOf(operator);
            check(staking.activeOf(operator) + unbonding == _stakes[operator], "03 bonds are accounted for");
            check(unbonding == 0 || releaseAt == _releaseAt[operator], "10 no stake leaves early");
            for (uint256 j = 0; j < MODELS; ++j) {
                uint256 reputation = staking.reputationOf(operator, models[j]);
                check(reputation == _reputations[j][operator], "22 reputation is earned and lost");
            }
        }
    }

    function _sweepCredits() private view {
        for (uint256 i = 0; i < ACTORS; ++i) {
            check(jobs.creditOf(actors[i]) == _credits[actors[i]], "08 a credit is paid once");
            check(staking.creditOf(actors[i]) == _compensations[actors[i]], "08 a credit is paid once");
        }
        check(reenterer.successes() == 0, "08 a credit is paid once");
    }

    /// A draw of everybody shows every weight at the end of the present block.
    function _sweepWeights(uint256 model) private {
        uint48 now_ = uint48(block.number);
        vm.roll(now_ + 1);
        (address[] memory operators, uint256[] memory weights) =
            staking.draw(models[model], now_, 0, OPERATORS, new address[](0));
        uint256 total = staking.totalWeightAt(models[model], now_);
        vm.roll(now_);
        uint256[] memory shown = new uint256[](ACTORS + 1);
        uint256 sum;
        for (uint256 i = 0; i < operators.length; ++i) {
            check(shown[_placeOf[operators[i]]] == 0, "19 weights are admitted bonds");
            shown[_placeOf[operators[i]]] = weights[i];
            sum += weights[i];
        }
        check(sum == total, "19 weights are admitted bonds");
        for (uint256 i = 0; i < OPERATORS; ++i) {
            address operator = actors[i];
            uint256 weight = shown[i + 1];
            uint256 active = staking.activeOf(operator);
            bool counts = staking.isServing(operator, models[model])
                && (model != MODEL_WITH_TRIALS || _admitted[operator]);
            if (!_stale[model][operator]) {
                uint256 due = counts && active >= MINIMUM_STAKE ? active : 0;
                check(weight == due, "19 weights are admitted bonds");
            }
            // After a slash for another model's job, or its end, the weight follows with the next refresh.
            check(weight == 0 || counts, "19 weights are admitted bonds");
            check(weight == _weights[model][operator], "19 weights are admitted bonds");
        }
    }

    function _sweepPast() private view {
        for (uint256 i = 0; i < _pastTotals.length; ++i) {
            PastTotal storage past = _pastTotals[i];
            uint256 total = staking.totalWeightAt(models[past.model], past.blockNumber);
            check(total == past.total, "20 past totals stand");
        }
    }

    function _sweepJobs() private view {
        for (uint256 i = 0; i < _open.length; ++i) {
            _sweepLabels(_open[i]);
        }
        for (uint256 i = 0; i < MODELS; ++i) {
            (uint256 running,) = jobs.loadOf(models[i]);
            check(running == _running[i], "25 running jobs are counted");
        }
        if (_ghosts.length == 0) return;
        uint256 some = _pick(block.timestamp, "some", _ghosts.length);
        if (_ghosts[some].closed) _sweepClosed(some);
    }

    function _sweepLabels(uint256 index) internal view {
        Ghost storage ghost = _ghosts[index];
        for (uint256 i = 0; i < ghost.segments; ++i) {
            Round memory round = _roundNow(index, i);
            check(jobs.labelOf(ghost.id, i) == _label(index, i, round), "42 labels say what is so");
        }
    }

    function _sweepClosed(uint256 index) private view {
        check(_record(_ghosts[index].id) == _ghosts[index].record, "40 closed stays closed");
        _sweepLabels(index);
    }

    // --- the end ----------------------------------------------------------------------------------------------------

    /// Whatever happened: every job can be closed, and then every wei be had by whom it belongs to.
    function windUp() external {
        sweep();
        while (_open.length != 0) _close(_open[_open.length - 1]);
        for (uint256 i = 0; i < _ghosts.length; ++i) {
            _sweepClosed(i);
        }
        for (uint256 i = 0; i < ACTORS; ++i) {
            if (_credits[actors[i]] == 0) continue;
            bool ok = _send(actors[i], 0, address(jobs), abi.encodeCall(Escrow.claim, ()), NO_JOB);
            check(ok, "46 nothing is stuck");
        }
        check(address(jobs).balance == _forcedOnJobs, "46 nothing is stuck");
        _endHolds();
        for (uint256 i = 0; i < OPERATORS; ++i) {
            uint256 active = staking.activeOf(actors[i]);
            if (active == 0) continue;
            bytes memory data = abi.encodeCall(IStaking.startUnbonding, (active));
            check(_send(actors[i], 0, address(staking), data, NO_JOB), "46 nothing is stuck");
        }
        _passTo(block.timestamp + UNBONDING, 1);
        for (uint256 i = 0; i < OPERATORS; ++i) {
            if (_stakes[actors[i]] == 0) continue;
            bytes memory data = abi.encodeCall(IStaking.withdraw, ());
            check(_send(actors[i], 0, address(staking), data, NO_JOB), "46 nothing is stuck");
        }
        check(address(staking).balance == _forcedOnStaking, "46 nothing is stuck");
        for (uint256 i = 0; i < OPERATORS; ++i) {
            if (!_isHonest(actors[i])) continue;
            uint256 due = _bonded[actors[i]] - _votedDown[actors[i]];
            check(_withdrawn[actors[i]] == due, "55 who proves its own is whole");
        }
    }

    /// Of what can be proved, half is given back in the last second, by anybody, and half refused in the next one.
    function _endHolds() private {
        for (uint256 i = 0; i < _holds.length; ++i) {
            uint256 releaseAt = _holds[i].releaseAt;
            if (_heldState[i] != Held.Open || block.timestamp >= releaseAt || !_isProvable(_holds[i])) continue;
            _passTo(releaseAt - i % 2, 1);
            if (_heldState[i] == Held.Open) _appealRightly(i, actors[i % ACTORS]);
        }
        _passTo(block.timestamp + APPEAL_SECONDS, 1);
        while (_openHolds.length != 0) {
            uint256 place = _openHolds[_openHolds.length - 1];
            check(_release(place, _holds[place], actors[place % ACTORS]), "46 nothing is stuck");
        }
        for (uint256 i = 0; i < ACTORS; ++i) {
            _claimCompensation(actors[i]);
        }
    }

    function _close(uint256 index) private {
        Ghost storage ghost = _ghosts[index];
        bool ok;
        if (!ghost.started) {
            ok = _toJobs(ghost.requester, abi.encodeCall(IJobs.cancel, (ghost.id)), index);
        } else {
            if (block.timestamp < ghost.endsAt) _passTo(ghost.endsAt, 1);
            if (ghost.closed) return; // by what the honest did before
            bytes memory data = abi.encodeCall(IJobs.expire, (ghost.id));
            if (jobs.phaseOf(ghost.id) == Phase.Finalisable) data = abi.encodeCall(IJobs.finalise, (ghost.id));
            ok = _toJobs(ghost.requester, data, index);
        }
        check(ok && ghost.closed, "46 nothing is stuck");
    }
}
