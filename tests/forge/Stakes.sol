// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Member, Round} from "../../contracts/interfaces/IJobs.sol";
import {IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Sweep} from "./Sweep.sol";

/// @notice The moves of operators with their stakes, their trials and their words.
abstract contract Stakes is Sweep {
    struct Trial {
        uint256 number;
        uint256 committedBlock;
        bool isRight;
    }

    mapping(address operator => Trial) private _trials;
    mapping(uint256 trialNumber => uint256 blockNumber) private _answered;

    function stake(uint256 seed) public {
        uint256 kind = _pick(seed, "stake", 3);
        if (kind == 0) _bondSome(seed);
        else if (kind == 1) _startUnbonding(seed);
        else _withdraw(seed);
    }

    function membership(uint256 seed) public {
        uint256 kind = _pick(seed, "membership", 3);
        if (kind == 0) _serveSome(seed);
        else if (kind == 1) _stopServing(seed);
        else _refreshWeights(seed);
    }

    function _bondSome(uint256 seed) private {
        _bond(_operator(seed), _pick(seed, "wei", 3 * MINIMUM_STAKE));
    }

    function _startUnbonding(uint256 seed) private {
        address operator = _operator(seed);
        uint256 amount = 1 + _pick(seed, "wei", staking.activeOf(operator) + 1);
        (uint256 unbonding,) = staking.unbondingOf(operator);
        if (!_toStaking(operator, abi.encodeCall(IStaking.startUnbonding, (amount)))) return;
        _noteUnbonding(operator, unbonding);
        _releaseAt[operator] = block.timestamp + UNBONDING;
        _fresh(operator);
    }

    function _withdraw(uint256 seed) private {
        address operator = _operator(seed);
        (uint256 unbonding,) = staking.unbondingOf(operator);
        uint256 before = operator.balance;
        if (!_toStaking(operator, abi.encodeCall(IStaking.withdraw, ()))) return;
        _noteUnbonding(operator, unbonding);
        check(block.timestamp >= _releaseAt[operator], "10 no stake leaves early");
        check(operator.balance - before == unbonding, "10 no stake leaves early");
        check(reenterer.successes() == 0, "08 a credit is paid once");
        for (uint256 i = 0; i < _open.length; ++i) {
            Ghost storage ghost = _ghosts[_open[i]];
            if (!ghost.started || block.timestamp >= ghost.endsAt) continue;
            uint256 left = _withdrawn[operator] - _withdrawnBefore[ghost.id][operator];
            check(left <= _unbondingBefore[ghost.id][operator], "11 stake outlasts its jobs");
        }
    }

    function _serveSome(uint256 seed) private {
        _serve(_operator(seed), _pick(seed, "model", MODELS));
    }

    function _stopServing(uint256 seed) private {
        uint256 model = _pick(seed, "model", MODELS);
        address operator = _operator(seed);
        // Or soon nobody would serve anything.
        if (_pick(seed, "seldom", 3) != 0) return _serve(operator, model);
        bool ok = _toStaking(operator, abi.encodeCall(IStaking.stopServing, (models[model])));
        if (ok) _stale[model][operator] = false;
    }

    function _refreshWeights(uint256 seed) private {
        address operator = _operator(seed);
        _toStaking(_actor(seed), abi.encodeCall(IStaking.refreshWeights, (operator)));
        _fresh(operator);
    }

    // --- trials -----------------------------------------------------------------------------------------------------

    function trial(uint256 seed) public {
        if (_pick(seed, "trial move", 2) == 0) _commitSome(seed);
        else _passSome(seed);
    }

    function _commitSome(uint256 seed) private {
        address operator = actors[OPERATORS - 1 - _pick(seed, "candidate", 3)];
        _commitTrial(operator, _pick(seed, "trial", TRIALS), _pick(seed, "wrong", 3) != 0);
    }

    function _passSome(uint256 seed) private {
        _passTrial(actors[OPERATORS - 1 - _pick(seed, "candidate", 3)]);
    }

    function _commitTrial(address operator, uint256 number, bool isRight) internal {
        bytes32 model = models[MODEL_WITH_TRIALS];
        bytes32 answer = isRight ? _answer(number) : bytes32("guess");
        bytes32 commitment = staking.trialCommitmentOf(model, number, operator, answer, "salt");
        if (!_toStaking(operator, abi.encodeCall(IStaking.commitTrial, (model, number, commitment)))) return;
        check(!_admitted[operator] && _answered[number] == 0, "21 a trial admits who knew");
        _trials[operator] = Trial(number, block.number, isRight);
    }

    function _passTrial(address operator) internal {
        Trial storage candidacy = _trials[operator];
        bytes32 model = models[MODEL_WITH_TRIALS];
        bytes32 answer = candidacy.isRight ? _answer(candidacy.number) : bytes32("guess");
        uint256 answered = _answered[candidacy.number];
        bool ok = _toStaking(operator, abi.encodeCall(IStaking.passTrial, (model, answer, "salt")));
        if (!ok) return;
        check(candidacy.isRight && candidacy.committedBlock != 0, "21 a trial admits who knew");
        check(candidacy.committedBlock < block.number, "21 a trial admits who knew");
        check(answered == 0 || candidacy.committedBlock < answered, "21 a trial admits who knew");
        check(!_admitted[operator], "21 a trial admits who knew");
        if (answered == 0) _answered[candidacy.number] = block.number;
        else ++reached["trial passed with others"];
        _admitted[operator] = true;
        _stale[MODEL_WITH_TRIALS][operator] = false;
    }

    // --- two words --------------------------------------------------------------------------------------------------

    function reportEquivocation(uint256 seed) public {
        if (_ghosts.length == 0) return;
        uint256 index = _pick(seed, "job", _ghosts.length);
        Ghost storage ghost = _ghosts[index];
        uint256 segment = _pick(seed, "segment", uint256(ghost.segment) + 1);
        uint256 attempt = _pick(seed, "attempt", _attempt(index, segment) + 1);
        Round memory round = jobs.roundAt(ghost.id, segment, attempt);
        if (round.members.length == 0) return;
        Member memory member = round.members[_pick(seed, "member", round.members.length)];
        if (_pick(seed, "stranger", 8) == 0) member = _member(round, _operator(seed));
        _report(seed, index, segment, attempt, member);
    }

    /// Two different words under its name are a member's fault. Nothing else is, and nobody honest ever has two.
    function _report(uint256 seed, uint256 index, uint256 segment, uint256 attempt, Member memory member) private {
        bytes32 id = _ghosts[index].id;
        bytes memory data;
        bool isFault;
        {
            bytes32[2] memory links;
            bytes[2] memory signatures;
            (links, signatures, isFault) = _evidence(seed, id, segment, attempt, member);
            data = abi.encodeCall(
                IStaking.reportEquivocation, (id, segment, attempt, member.operator, links, signatures)
            );
        }
        bytes32 key = _round(id, segment, attempt);
        isFault = isFault && !_equivocated[key][member.operator];
        uint256 had = _stakes[member.operator];
        bool ok = _send(_actor(seed), 0, address(staking), data, index);
        check(ok == isFault, "17 two words, and only they");
        if (!ok) return;
        _equivocated[key][member.operator] = true;
        uint256 due = member.weight * CONTRADICTION_BPS / BPS;
        check(_now.taken == (due < had ? due : had), "04 a slash is its share");
    }

    function _evidence(uint256 seed, bytes32 id, uint256 segment, uint256 attempt, Member memory member)
        private
        view
        returns (bytes32[2] memory links, bytes[2] memory signatures, bool isFault)
    {
        uint256 kind = _pick(seed, "kind", 6);
        if (_isHonest(member.operator) && kind < 2) kind = 2;
        links = [bytes32("one word"), bytes32("another")];
        bool isSigner = member.operator != address(0) && member.operator != address(reenterer);
        address signer = isSigner ? member.operator : actors[OPERATORS];
        signatures[0] = _signature(signer, staking.resultDigestOf(id, segment, attempt, links[0]));
        signatures[1] = _signature(signer, staking.resultDigestOf(id, segment, attempt, links[1]));
        isFault = kind == 0 && isSigner;
        if (kind == 1) {
            (links[1], signatures[1]) = (member.link, "");
            isFault = member.link != 0 && isSigner;
        } else if (kind == 2) {
            // One word, and somebody else's.
            signatures[1] = _signature(actors[OPERATORS], staking.resultDigestOf(id, segment, attempt, links[1]));
        } else if (kind == 3) {
            (links[1], signatures[1]) = (links[0], signatures[0]);
        } else if (kind == 4) {
            signatures[1] = _twin(signatures[1]);
        } else if (kind == 5) {
            signatures[1] = _signature(signer, staking.resultDigestOf(id, segment, attempt + 1, links[1]));
        }
    }

    /// The other signature that the same key makes of the same digest.
    function _twin(bytes memory signature) private pure returns (bytes memory) {
        uint256 order = 0xFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFFEBAAEDCE6AF48A03BBFD25E8CD0364141;
        bytes32 r;
        uint256 s;
        assembly ("memory-safe") {
            r := mload(add(signature, 32))
            s := mload(add(signature, 64))
        }
        return abi.encodePacked(r, order - s, signature[64] == bytes1(uint8(27)) ? uint8(28) : uint8(27));
    }

    // --- the calls themselves ---------------------------------------------------------------------------------------

    function _toStaking(address caller, bytes memory data) internal returns (bool) {
        return _send(caller, 0, address(staking), data, NO_JOB);
    }

    function _bond(address operator, uint256 amount) internal {
        vm.deal(operator, operator.balance + amount);
        if (_send(operator, amount, address(staking), abi.encodeCall(IStaking.bond, ()), NO_JOB)) _fresh(operator);
    }

    function _serve(address operator, uint256 model) internal {
        bool ok = _toStaking(operator, abi.encodeCall(IStaking.serve, (models[model])));
        if (ok) _stale[model][operator] = false;
    }

    function _fresh(address operator) private {
        for (uint256 i = 0; i < MODELS; ++i) {
            _stale[i][operator] = false;
        }
    }

    function _noteUnbonding(address operator, uint256 before) private {
        if (_unbondingBlock[operator] == block.number) return;
        (_unbondingBlock[operator], _unbondingThen[operator]) = (block.number, before);
    }
}
