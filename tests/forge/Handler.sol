// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "../../contracts/Escrow.sol";
import {IJobs, Round} from "../../contracts/interfaces/IJobs.sol";
import {Hold, IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Play} from "./Play.sol";
import {Truth} from "./Truth.sol";
import {World} from "./World.sol";

/// @notice The moves. Each takes one number, out of which it makes all its choices, so that forge can play any
/// sequence of them; a move that the contracts refuse changes nothing.
contract Handler is Play {
    constructor(uint256 world) World(world) {
        vm.roll(1000);
        vm.warp(1_700_000_000);
        for (uint256 i = 0; i < OPERATORS; ++i) {
            _bond(actors[i], (3 + i % 3) * MINIMUM_STAKE + i);
            _toStaking(actors[i], abi.encodeCall(IStaking.setEncryptionKey, (bytes32("key"))));
            for (uint256 j = 0; j < MODELS; ++j) {
                _serve(actors[i], j);
            }
            if (i + 1 < OPERATORS) _commitTrial(actors[i], 0, true);
        }
        _mine(1);
        // The last two have still to pass; one of them committed in time.
        for (uint256 i = 0; i + 2 < OPERATORS; ++i) {
            _passTrial(actors[i]);
        }
        _mine(1);
    }

    // --- jobs, one call at a time, by whoever and whenever ----------------------------------------------------------

    function begin(uint256 seed) public {
        uint256 kind = _pick(seed, "begin", 6);
        if (kind < 2) _request(seed);
        else if (kind == 2) _admit(seed);
        else if (kind == 3) _cancel(seed);
        else if (kind == 4) _drawSome(seed);
        else _provideInput(seed);
    }

    function vote(uint256 seed) public {
        uint256 kind = _pick(seed, "vote", 6);
        if (kind < 2) _commitMember(seed);
        else if (kind < 4) _revealMember(seed);
        else if (kind == 4) _settle(seed);
        else _resealMember(seed);
    }

    function evidence(uint256 seed) public {
        uint256 kind = _pick(seed, "evidence", 3);
        if (kind == 0) _announceMember(seed);
        else if (kind == 1) _proveMember(seed);
        else _challengeMember(seed);
    }

    function end(uint256 seed) public {
        if (_pick(seed, "end", 2) == 0) _finaliseSome(seed);
        else _expire(seed);
    }

    function _admit(uint256 seed) private {
        _toJobs(_actor(seed), abi.encodeCall(IJobs.admit, (models[_pick(seed, "model", MODELS)])), NO_JOB);
    }

    function _cancel(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        address caller = _pick(seed, "stranger", 4) == 0 ? _actor(seed) : _ghosts[index].requester;
        bool ok = _toJobs(caller, abi.encodeCall(IJobs.cancel, (id)), index);
        check(!ok || (caller == _ghosts[index].requester && !_ghosts[index].started), "38 only members");
    }

    function _drawSome(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _draw(index, _actor(seed));
    }

    function _provideInput(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        address caller = _pick(seed, "stranger", 4) == 0 ? _actor(seed) : _ghosts[index].requester;
        bool ok = _toJobs(caller, abi.encodeCall(IJobs.provideInput, (id, bytes32("input"))), index);
        check(!ok || caller == _ghosts[index].requester, "38 only members");
    }

    function _resealMember(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0 || _ghosts[index].segment == 0) return;
        _reseal(index, _someMember(seed, index, _ghosts[index].segment - 1));
    }

    function _commitMember(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        _commit(index, _someMember(seed, index, _ghosts[index].segment), _pick(seed, "option", OPTIONS));
    }

    function _revealMember(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        address operator = _someMember(seed, index, _ghosts[index].segment);
        // Sometimes another output than the one that was committed to.
        if (_pick(seed, "other", 4) != 0) _revealOwn(index, operator);
        else _reveal(index, operator, _link(index, _ghosts[index].segment, _pick(seed, "option", OPTIONS)));
    }

    function _settle(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _toJobs(_actor(seed), abi.encodeCall(IJobs.settle, (id)), index);
    }

    function _announceMember(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        uint256 segment = _pick(seed, "segment", uint256(_ghosts[index].segment) + 1);
        _announce(index, segment, _someMember(seed, index, segment));
    }

    function _proveMember(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        uint256 segment = _pick(seed, "segment", _ghosts[index].segments);
        address caller = _roundNow(index, segment).prover;
        if (_isHonest(caller) || _pick(seed, "stranger", 2) == 0) caller = _operator(seed);
        uint256 lie = _pick(seed, "lie", OUTPUTS);
        _prove(index, segment, caller, _valueOf[_opening(index, segment)], _output(index, segment, lie));
    }

    function _challengeMember(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        uint256 segment = _pick(seed, "segment", _ghosts[index].segments);
        uint256 opening = _valueOf[_opening(index, segment)];
        // Now and then a true proof, but of another opening.
        if (_pick(seed, "splice", 4) == 0) ++opening;
        uint256 closing = Truth.step(segment, opening) + (_pick(seed, "lie", 3) == 0 ? 1 : 0);
        _challenge(index, segment, _someMember(seed, index, segment), opening, closing);
    }

    function _finaliseSome(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _finalise(index, _actor(seed));
    }

    function _expire(uint256 seed) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _toJobs(_actor(seed), abi.encodeCall(IJobs.expire, (id)), index);
    }

    // --- what a proof took ------------------------------------------------------------------------------------------

    /// By anybody: mostly of a hold that is open, and with the right proof, if there is one.
    function appeal(uint256 seed) public {
        if (_holds.length == 0) return;
        uint256 place = _someHold(seed);
        Hold memory held = _holds[place];
        (uint256 opening, uint256 closing) = (_valueOf[held.opening], _valueOf[held.link]);
        uint256 kind = _pick(seed, "appeal", 8);
        if (kind == 0) _forge(held, seed);
        else if (kind == 1) (opening, closing) = (opening + 1, Truth.step(held.segment, opening + 1));
        else if (kind == 2) closing = Truth.step(held.segment, opening) + _pick(seed, "lie", 2);
        // In the last second, or the first one that is too late.
        if (_pick(seed, "last second", 8) == 0) _passBefore(held.releaseAt - _pick(seed, "late", 2));
        _appeal(place, held, _actor(seed), opening, closing);
        if (_pick(seed, "again", 4) == 0) _appeal(place, held, _actor(seed), opening, closing);
    }

    function release(uint256 seed) public {
        if (_holds.length == 0) return;
        uint256 place = _someHold(seed);
        Hold memory held = _holds[place];
        if (_pick(seed, "release", 8) == 0) _forge(held, seed);
        if (_pick(seed, "last second", 8) == 0) _passBefore(held.releaseAt - _pick(seed, "early", 2));
        _release(place, held, _actor(seed));
        if (_pick(seed, "again", 4) == 0) _release(place, held, _actor(seed));
    }

    function _passBefore(uint256 timestamp) private {
        if (timestamp > block.timestamp) _passTo(timestamp, 1);
    }

    function _someHold(uint256 seed) private view returns (uint256) {
        if (_openHolds.length == 0 || _pick(seed, "ended", 4) == 0) return _pick(seed, "hold", _holds.length);
        return _openHolds[_pick(seed, "hold", _openHolds.length)];
    }

    /// Whoever says what a hold is may say something else.
    function _forge(Hold memory held, uint256 seed) private view {
        uint256 kind = _pick(seed, "forge", 7);
        if (kind == 0) held.amount *= 2;
        else if (kind == 1) held.releaseAt += 1 days;
        else if (kind == 2) held.releaseAt = block.timestamp;
        else if (kind == 3) held.challenger = _actor(seed);
        else if (kind == 4) held.operator = _operator(seed);
        else if (kind == 5) held.link = _opening(_indexOf[held.jobId] - 1, 0);
        else held.reputation += 1;
    }

    function claim(uint256 seed) public {
        address account = _actor(seed);
        if (_pick(seed, "compensation", 2) == 0) return _claimCompensation(account);
        (uint256 credit, uint256 before) = (_credits[account], account.balance);
        bool ok = _toJobs(account, abi.encodeCall(Escrow.claim, ()), NO_JOB);
        check(ok == (credit != 0), "08 a credit is paid once");
        if (ok) check(account.balance - before == credit && reenterer.successes() == 0, "08 a credit is paid once");
    }

    // --- time, and what nobody may do -------------------------------------------------------------------------------

    function pass(uint256 seed) public {
        uint256 kind = _pick(seed, "kind", 48);
        (uint256 index, bytes32 id) = _job(seed);
        if (kind == 0) _passTo(block.timestamp + UNBONDING, 1);
        else if (kind == 1) _mine(257);
        else if (kind == 2) _passTo(block.timestamp + 1 days, 100);
        else if (kind < 12 && id != 0) _lapse(index);
        else _mine(1 + _pick(seed, "blocks", 3));
    }

    function misuse(uint256 seed) public {
        if (_pick(seed, "misuse", 2) == 0) _forceEther(seed);
        else _trespass(seed);
    }

    function _forceEther(uint256 seed) private {
        uint256 amount = _pick(seed, "wei", 1 ether);
        if (_pick(seed, "where", 2) == 0) {
            vm.deal(address(jobs), address(jobs).balance + amount);
            _forcedOnJobs += amount;
        } else {
            vm.deal(address(staking), address(staking).balance + amount);
            _forcedOnStaking += amount;
        }
    }

    function _trespass(uint256 seed) private {
        address operator = _operator(seed);
        bytes32 model = models[_pick(seed, "model", MODELS)];
        bytes memory data = abi.encodeCall(IStaking.slash, (operator, 1, model));
        check(!_toStaking(_actor(seed), data), "18 only jobs and words slash");
        Hold memory held;
        (held.operator, held.amount, held.modelId) = (operator, 1, model);
        check(!_toStaking(_actor(seed), abi.encodeCall(IStaking.hold, (held))), "18 only jobs and words slash");
        data = abi.encodeCall(IStaking.commend, (operator, model));
        check(!_toStaking(_actor(seed), data), "22 reputation is earned and lost");
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        // A requester's account that is no operator is in no committee.
        address stranger = actors[OPERATORS];
        check(!_commit(index, stranger, 0), "38 only members");
        check(!_announce(index, 0, stranger), "38 only members");
        _commitElsewhere(seed, index);
        check(!_proveTruth(index, 0, stranger), "38 only members");
    }

    /// What a member meant for another round than the one under way.
    function _commitElsewhere(uint256 seed, uint256 index) private {
        Ghost storage ghost = _ghosts[index];
        uint256 attempt = _attempt(index, ghost.segment);
        uint256 other = attempt == 0 || _pick(seed, "later", 2) == 0 ? attempt + 1 : attempt - 1;
        bytes memory data = abi.encodeCall(IJobs.commit, (ghost.id, ghost.segment, other, bytes32("overtaken")));
        check(!_toJobs(_someMember(seed, index, ghost.segment), data, index), "48 a commitment names its round");
    }

    // --- choices ----------------------------------------------------------------------------------------------------

    /// Mostly a member of the round, seldom whoever.
    function _someMember(uint256 seed, uint256 index, uint256 segment) private view returns (address) {
        Round memory round = _roundNow(index, segment);
        if (round.members.length == 0 || _pick(seed, "stranger", 8) == 0) return _operator(seed);
        return round.members[_pick(seed, "member", round.members.length)].operator;
    }
}
