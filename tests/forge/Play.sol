// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Member, Phase, Request, Round} from "../../contracts/interfaces/IJobs.sol";
import {Stakes} from "./Stakes.sol";
import {Truth} from "./Truth.sol";

/// @notice Moves that play a phase at a time: without these, deep states are too rare.
abstract contract Play is Stakes {
    /// Few at a time: time that passes for one job passes for all.
    uint256 private constant MAX_OPEN_JOBS = 5;
    /// How a round is played.
    uint256 private constant SILENT = 0;
    uint256 private constant LYING = 1;
    uint256 private constant VOTING = 2;

    uint256 private _salts;

    /// Everybody does what is next in a job; some members are silent or lie, as the seed says.
    function play(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _play(index, seed);
    }

    /// Perhaps a request, and some phases of a job.
    function playOn(uint256 seed) public {
        if (_pick(seed, "request", 2) == 0) _request(seed);
        _playPhases(seed, 5);
    }

    /// From wherever a job is, far.
    function playThrough(uint256 seed) public {
        if (_open.length < 2) _request(seed);
        _playPhases(seed, 16);
    }

    function _playPhases(uint256 seed, uint256 count) private {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        for (uint256 i = 0; i < count && !_ghosts[index].closed; ++i) {
            _play(index, uint256(keccak256(abi.encode(seed, i))));
        }
    }

    /// Whoever revealed what can be proved where something else was settled, or nothing could be, proves it.
    function overturn(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _overturn(index, seed);
    }

    function _overturn(uint256 index, uint256 seed) internal {
        Ghost storage ghost = _ghosts[index];
        if (!ghost.started || ghost.closed) return;
        for (uint256 i = 0; i <= ghost.segment; ++i) {
            uint256 segment = (i + seed % 16) % (uint256(ghost.segment) + 1);
            Round memory round = _roundNow(index, segment);
            if (round.proofHash != 0) continue;
            for (uint256 j = 0; j < round.members.length; ++j) {
                Member memory member = round.members[(j + seed % 8) % round.members.length];
                if (member.link == round.settledLink) continue;
                bool isSecond = member.link == _link(index, segment, 1) && _hasSecond(index, segment);
                if (!isSecond && member.link != _link(index, segment, 0)) continue;
                return _overturnAs(index, segment, member.operator, isSecond ? 1 : 0, seed);
            }
        }
    }

    function _overturnAs(uint256 index, uint256 segment, address challenger, uint256 option, uint256 seed) private {
        uint256 opening = _valueOf[_opening(index, segment)];
        uint256 closing = _output(index, segment, option);
        // Before it announced the proof, and in the block of that: refused.
        if (_pick(seed, "early", 4) == 0) _challenge(index, segment, challenger, opening, closing);
        _announce(index, segment, challenger);
        if (_pick(seed, "soon", 4) == 0) _challenge(index, segment, challenger, opening, closing);
        _mine(1);
        if (_ghosts[index].stored == Phase.Revealing && _pick(seed, "unsettled", 2) == 0) _lapse(index);
        if (_ghosts[index].closed) return;
        // A copier of the transaction, who may be a member that revealed the same; and a lie.
        if (_pick(seed, "copy", 4) == 0) _challenge(index, segment, _operator(seed), opening, closing);
        if (_pick(seed, "lie", 4) == 0) _challenge(index, segment, challenger, opening, closing + 1);
        if (!_ghosts[index].closed) _challenge(index, segment, challenger, opening, closing);
    }

    function _play(uint256 index, uint256 seed) private {
        Ghost storage ghost = _ghosts[index];
        bytes32 id = ghost.id;
        Phase phase = jobs.phaseOf(id);
        // Of some jobs the challengers wait for the last moment.
        bool waits = _pick(uint256(id), "patience", 3) == 0 && phase != Phase.Challengeable;
        if (!waits && _pick(seed, "overturn", phase < Phase.Proving ? 4 : 2) == 0) _overturn(index, seed);
        if (ghost.closed) return;
        phase = jobs.phaseOf(id);
        address anybody = _actor(seed);
        if (phase == Phase.Queued) {
            bool hasRoom = _running[ghost.model] < MAX_RUNNING;
            bool ok = _toJobs(anybody, abi.encodeCall(IJobs.admit, (models[ghost.model])), NO_JOB);
            check(ok == hasRoom, "26 queue by fee, then by age");
        } else if (phase == Phase.Requested || phase == Phase.Drawing || phase == Phase.Sampling) {
            _draw(index, anybody);
            _mine(_pick(seed, "late", 32) == 0 ? 257 : 1);
            if (!ghost.closed) _draw(index, anybody);
        } else if (phase == Phase.AwaitingInput) {
            if (_pick(seed, "withhold", 16) == 0) _lapse(index);
            else _toJobs(ghost.requester, abi.encodeCall(IJobs.provideInput, (id, bytes32("input"))), index);
        } else if (phase == Phase.Committing || phase == Phase.Revealing) {
            _playRound(index, phase == Phase.Committing, seed);
        } else if (phase == Phase.Proving) {
            _playProofs(index, seed);
        } else if (phase == Phase.Contested || phase == Phase.Challengeable) {
            if (_pick(seed, "challenge", 2) == 0) _overturn(index, seed);
            else _lapse(index);
        } else {
            _toJobs(anybody, abi.encodeCall(IJobs.settle, (id)), index);
            _finalise(index, anybody);
            _toJobs(anybody, abi.encodeCall(IJobs.expire, (id)), index);
        }
    }

    function _playRound(uint256 index, bool commits, uint256 seed) private {
        Ghost storage ghost = _ghosts[index];
        Member[] memory members = _roundNow(index, ghost.segment).members;
        // Of the committees of one segment some lie, some vote, and some are silent; half of them do as they ought to.
        uint256 manner = _pick(uint256(ghost.id), bytes32(uint256(ghost.segment)), 8);
        uint256 lie = 1 + _pick(seed, "common lie", OUTPUTS - 1);
        if (manner == VOTING) lie = OUTPUTS + _pick(seed, "common vote", OPTIONS - OUTPUTS);
        if (commits && ghost.segment != 0) _resealSome(index, seed);
        bool lies = manner >= LYING && manner <= 4;
        for (uint256 i = 0; i < members.length; ++i) {
            uint256 choice = _pick(seed, bytes32(i), 8);
            if (manner == SILENT && choice < 7) continue;
            if (choice == 7 && _pick(seed, "meanwhile", 8) == 0) _overturn(index, seed);
            if (!commits && _pick(seed, bytes32(i + 32), 8) == 0) continue;
            if (!commits) _revealOwn(index, members[i].operator);
            else _commit(index, members[i].operator, !lies || choice == 0 ? 0 : choice == 1 ? choice : lie);
        }
        if (manner == SILENT && !ghost.closed) _lapse(index);
        else if (!commits && _pick(seed, "nobody settles", 4) == 0) _lapseRevealing(index, seed);
    }

    function _lapseRevealing(uint256 index, uint256 seed) private {
        if (_ghosts[index].closed || _ghosts[index].stored != Phase.Revealing) return;
        _lapse(index);
        if (!_ghosts[index].closed) _overturn(index, seed);
    }

    function _resealSome(uint256 index, uint256 seed) private {
        uint256 segment = _ghosts[index].segment;
        if (_attempt(index, segment) == 0) return;
        Round memory before = _roundNow(index, segment - 1);
        _reseal(index, before.members[_pick(seed, "sender", before.members.length)].operator);
    }

    function _playProofs(uint256 index, uint256 seed) private {
        Ghost storage ghost = _ghosts[index];
        bool late = _pick(seed, "late", 2) == 0;
        if (late) _announceAll(index, seed);
        for (uint256 i = 0; i < ghost.segments && !ghost.closed; ++i) {
            Round memory round = _roundNow(index, i);
            if (round.prover == address(0) || round.proofHash != 0) continue;
            address caller = late && _pick(seed, "belated", 4) != 0 ? _deputy(round, seed) : round.prover;
            // An operator that may well be no member, or have lied, or come before the drawn prover's time is over.
            if (_pick(seed, "outsider", 2) == 0) _proveTruth(index, i, _operator(seed));
            uint256 opening = _valueOf[_opening(index, i)];
            // First, as if it were right, a proof of another opening or closing link.
            if (_pick(seed, "wrong", 4) == 0) _prove(index, i, caller, opening + 1, Truth.step(i, opening + 1));
            else if (_pick(seed, "lie", 4) == 0) _prove(index, i, caller, opening, _output(index, i, 1));
            _proveTruth(index, i, caller);
        }
        if (_pick(seed, "lapse", 8) == 0) _lapse(index);
    }

    /// Supporters announce their proofs; then it is the middle of the time to prove, from which on they may.
    function _announceAll(uint256 index, uint256 seed) private {
        Ghost storage ghost = _ghosts[index];
        for (uint256 i = 0; i < ghost.segments; ++i) {
            Round memory round = _roundNow(index, i);
            if (round.prover == address(0) || round.proofHash != 0) continue;
            _announce(index, i, _deputy(round, seed));
            if (_pick(seed, "belated", 2) == 0) _announce(index, i, round.prover);
        }
        uint256 open = ghost.deadline - ghost.proveSeconds;
        if (block.timestamp < open) _passTo(open, 1);
        else _mine(1);
    }

    /// Another member that stands behind the output, if there is one.
    function _deputy(Round memory round, uint256 seed) private view returns (address deputy) {
        uint256 first = _pick(seed, "deputy", round.members.length);
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member memory member = round.members[(first + i) % round.members.length];
            deputy = member.operator;
            if (member.link == round.settledLink && deputy != round.prover) break;
        }
    }

    // --- calls that jobs begin and end with -------------------------------------------------------------------------

    function _request(uint256 seed) internal {
        if (_open.length == MAX_OPEN_JOBS) return;
        uint256 model = _pick(seed, "long", 3) == 0 ? MODELS - 1 : _pick(seed, "model", MODELS);
        // Where somebody waits already, others queue up.
        for (uint256 i = 0; i < _open.length; ++i) {
            if (!_ghosts[_open[i]].started && _pick(seed, "queue up", 2) == 0) model = _ghosts[_open[i]].model;
        }
        uint256 input = uint256(keccak256(abi.encode("input", _pick(seed, "input", 12)))) >> 8;
        Request memory what = Request({
            modelId: models[model],
            inputLink: Truth.linkOf(input, false),
            resultKey: "result key",
            salt: bytes32(_salts++),
            routeCid: bytes32(_pick(seed, "route", 2)),
            policy: _policy(seed)
        });
        _valueOf[what.inputLink] = input;
        uint256 feeWei = (MINIMUM_FEE << _pick(seed, "octaves", 3)) + _pick(seed, "wei", 300);
        if (_pick(seed, "rich", 2) == 0) feeWei = _pick(seed, "fee", 1 ether) + MINIMUM_FEE;
        _requestFor(_actor(seed), model, input, feeWei, what);
    }

    function _requestFor(address requester, uint256 model, uint256 input, uint256 feeWei, Request memory what) private {
        bytes memory data = abi.encodeCall(IJobs.request, (what));
        uint256 index = _ghosts.length;
        Ghost storage ghost = _ghosts.push();
        (ghost.id, ghost.requester, ghost.model) = (jobs.jobIdOf(requester, what.salt), requester, uint8(model));
        (ghost.segments, ghost.feeWei, ghost.input) = (uint8(model + 1), feeWei, input);
        ghost.proveSeconds = what.policy.proveSeconds;
        _indexOf[ghost.id] = index + 1;
        _open.push(index);
        _openFees += feeWei;
        vm.deal(requester, requester.balance + feeWei);
        check(_send(requester, feeWei, address(jobs), data, index), "27 a job is made once");
        if (!ghost.started) ++reached["queued"];
        else if (feeWei % 8 == 0) _hasten(index, 10 minutes + feeWei % 2 hours);
        // Whatever has room starts at once, unless somebody waits; cancelled ones may still be in the queue.
        check(ghost.started || _mayWait(model, index), "26 queue by fee, then by age");
        // The same request again makes no second job, and takes nothing.
        vm.deal(requester, requester.balance + feeWei);
        check(!_send(requester, feeWei, address(jobs), data, NO_JOB), "27 a job is made once");
    }

    /// As if the job had begun days ago: no job that these tests could play would last that long.
    function _hasten(uint256 index, uint256 left) private {
        Ghost storage ghost = _ghosts[index];
        vm.record();
        jobs.jobOf(ghost.id);
        (bytes32[] memory slots,) = vm.accesses(address(jobs));
        uint48 endsAt = uint48(block.timestamp + left);
        for (uint256 i = 0; i < slots.length; ++i) {
            uint256 word = uint256(vm.load(address(jobs), slots[i]));
            if (uint48(word >> 96) != ghost.endsAt) continue;
            word = word & ~(uint256(type(uint48).max) << 96) | (uint256(endsAt) << 96);
            vm.store(address(jobs), slots[i], bytes32(word));
            break;
        }
        ghost.endsAt = endsAt;
        assert(jobs.jobOf(ghost.id).endsAt == endsAt);
    }

    function _mayWait(uint256 model, uint256 index) private view returns (bool) {
        (, uint256 queued) = jobs.loadOf(models[model]);
        return _running[model] == MAX_RUNNING || (queued > 1 && index != 0);
    }

    function _draw(uint256 index, address caller) internal {
        bytes32 id = _ghosts[index].id;
        uint256 seedBlock = jobs.jobOf(id).seedBlock;
        if (!_toJobs(caller, abi.encodeCall(IJobs.draw, (id)), index)) return;
        uint256 renewed = jobs.jobOf(id).seedBlock;
        check(renewed == 0 || renewed == block.number, "28 seeds come after the freeze");
        check(renewed != 0 || seedBlock < block.number, "28 seeds come after the freeze");
        if (seedBlock != 0 && renewed != 0) ++reached["seed block renewed"];
    }

    /// Those that stand behind an output share its segment's fee by weight, behind its prover; the rest goes back.
    function _finalise(uint256 index, address caller) internal {
        Ghost storage ghost = _ghosts[index];
        uint256[] memory due = new uint256[](ACTORS);
        for (uint256 i = 0; i < ACTORS; ++i) {
            due[i] = _credits[actors[i]];
        }
        if (!_toJobs(caller, abi.encodeCall(IJobs.finalise, (ghost.id)), index)) return;
        uint256 left = ghost.feeWei;
        for (uint256 i = 0; i < ghost.segments; ++i) {
            left -= _addShares(due, _roundNow(index, i), ghost.feeWei / ghost.segments, ghost.model);
        }
        due[_placeOf[ghost.requester] - 1] += left;
        for (uint256 i = 0; i < ACTORS; ++i) {
            check(due[i] == _credits[actors[i]], "07 who did their part is paid");
        }
    }

    function _addShares(uint256[] memory due, Round memory round, uint256 fee, uint256 model)
        private
        returns (uint256 paid)
    {
        if (round.provedBy != address(0)) {
            paid = fee * PROVER_BPS / BPS;
            due[_placeOf[round.provedBy] - 1] += paid;
        }
        uint256 rest = fee - paid;
        uint256 weight = _weightFor(round, round.settledLink);
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member memory member = round.members[i];
            if (member.link != round.settledLink) continue;
            due[_placeOf[member.operator] - 1] += rest * member.weight / weight;
            paid += rest * member.weight / weight;
            ++_reputations[model][member.operator];
        }
    }

    /// Mostly a job that is still open.
    function _job(uint256 seed) internal view returns (uint256 index, bytes32 id) {
        if (_ghosts.length == 0) return (0, 0);
        if (_open.length == 0 || _pick(seed, "closed", 16) == 0) index = _pick(seed, "job", _ghosts.length);
        else index = _open[_pick(seed, "job", _open.length)];
        id = _ghosts[index].id;
    }
}
