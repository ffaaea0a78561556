// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "../../contracts/Escrow.sol";
import {IJobs, Job, Member, Phase, Request, Round} from "../../contracts/interfaces/IJobs.sol";
import {IStaking} from "../../contracts/interfaces/IStaking.sol";
import {Ledger} from "./Ledger.sol";

/// @notice The moves. Each takes one number, out of which it makes all its choices, so that forge can play any
/// sequence of them; a move that the contracts refuse is counted, and changes nothing.
contract Handler is Ledger {
    /// Few at a time: time that passes for one job passes for all.
    uint256 private constant MAX_OPEN_JOBS = 2;
    uint256 private constant MAX_JOBS = 6;
    uint256 private constant PAST_TOTALS = 12;

    /// A total weight as it was read once its block was over.
    struct PastTotal {
        uint256 model;
        uint48 blockNumber;
        uint256 total;
    }

    mapping(bytes32 jobId => mapping(uint256 segment => mapping(address operator => uint256 option))) private _votes;
    PastTotal[] private _pastTotals;
    uint256 private _salts;
    bool private _isPrompt;

    constructor() {
        vm.roll(1000);
        vm.warp(1_700_000_000);
        for (uint256 i = 0; i < OPERATORS; ++i) {
            _bond(actors[i], (2 + i) * MINIMUM_STAKE + i);
            _send(actors[i], 0, address(staking), abi.encodeCall(IStaking.setEncryptionKey, (bytes32("key"))), NO_JOB);
            for (uint256 j = 0; j < MODELS; ++j) {
                _serve(actors[i], j);
            }
        }
        _mine(1);
    }

    // --- stake ------------------------------------------------------------------------------------------------------

    function bond(uint256 seed) public {
        _bond(_operator(seed), _pick(seed, "wei", 3 * MINIMUM_STAKE));
    }

    function startUnbonding(uint256 seed) public {
        address operator = _operator(seed);
        uint256 amount = 1 + _pick(seed, "wei", staking.activeOf(operator) + 1);
        bytes memory data = abi.encodeCall(IStaking.startUnbonding, (amount));
        if (_send(operator, 0, address(staking), data, NO_JOB)) {
            releaseAt[operator] = block.timestamp + UNBONDING;
            _fresh(operator);
        }
    }

    function withdraw(uint256 seed) public {
        address operator = _operator(seed);
        (uint256 unbonding,) = staking.unbondingOf(operator);
        uint256 before = operator.balance;
        if (!_send(operator, 0, address(staking), abi.encodeCall(IStaking.withdraw, ()), NO_JOB)) return;
        withdrawn[operator] += operator.balance - before;
        ++reached["withdrawn"];
        _hold(block.timestamp >= releaseAt[operator], "no stake leaves before its time");
        _hold(operator.balance - before == unbonding, "a withdrawal pays what was unbonding");
    }

    function serve(uint256 seed) public {
        _serve(_operator(seed), _pick(seed, "model", MODELS));
    }

    function stopServing(uint256 seed) public {
        uint256 model = _pick(seed, "model", MODELS);
        address operator = _operator(seed);
        bytes memory data = abi.encodeCall(IStaking.stopServing, (models[model]));
        if (_send(operator, 0, address(staking), data, NO_JOB)) stale[model][operator] = false;
    }

    function refreshWeights(uint256 seed) public {
        address operator = _operator(seed);
        _send(_actor(seed), 0, address(staking), abi.encodeCall(IStaking.refreshWeights, (operator)), NO_JOB);
        _fresh(operator);
    }

    // --- jobs, one call at a time, by whoever and whenever ----------------------------------------------------------

    function request(uint256 seed) public {
        uint256 open;
        for (uint256 i = 0; i < _ghosts.length; ++i) {
            if (_ghosts[i].rank < RANK_FINALISED) ++open;
        }
        if (open == MAX_OPEN_JOBS || _ghosts.length == MAX_JOBS) return;
        uint256 model = _pick(seed, "model", MODELS);
        address requester = _actor(seed);
        Request memory what =
            Request(models[model], _link(model + 1, 0, 0), "result key", bytes32(_salts++), _policy(seed));
        uint256 feeWei = MINIMUM_FEE + _pick(seed, "fee", 1 ether);
        bytes32 id = jobs.jobIdOf(requester, what.salt);
        vm.deal(requester, requester.balance + feeWei);
        if (!_send(requester, feeWei, address(jobs), abi.encodeCall(IJobs.request, (what)), NO_JOB)) return;
        feesIn += feeWei;
        _ghosts.push(Ghost(id, requester, model, model + 1, feeWei, uint256(Phase.Requested), 0, 0, 0));
        // The same request again makes no second job, and takes nothing.
        vm.deal(requester, requester.balance + feeWei);
        bool again = _send(requester, feeWei, address(jobs), abi.encodeCall(IJobs.request, (what)), NO_JOB);
        _hold(!again, "a job is made once");
    }

    function draw(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _draw(index, id, _actor(seed));
    }

    function provideInput(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        address caller = _pick(seed, "stranger", 4) == 0 ? _actor(seed) : _ghosts[index].requester;
        _toJobs(caller, abi.encodeCall(IJobs.provideInput, (id, bytes32("input"))), index);
    }

    function commit(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _commit(index, id, _operator(seed), _option(seed));
    }

    function reveal(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        address operator = _operator(seed);
        uint256 segment = jobs.jobOf(id).segment;
        // Sometimes another output than the one that was committed to.
        uint256 option = _pick(seed, "other", 4) == 0 ? _option(seed) : _votes[id][segment][operator];
        bool ok = _reveal(index, id, operator, option);
        _hold(!ok || option == _votes[id][segment][operator], "only the committed output is revealed");
    }

    function settle(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _toJobs(_actor(seed), abi.encodeCall(IJobs.settle, (id)), index);
    }

    function prove(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        uint256 segment = _pick(seed, "segment", _ghosts[index].segments);
        address caller = _pick(seed, "stranger", 2) == 0 ? _operator(seed) : jobs.roundOf(id, segment).prover;
        (uint256 opening, uint256 closing) = _truth(index, segment);
        if (_pick(seed, "wrong", 2) == 0) (opening, closing) = (_option(seed), _pick(seed, "closing", OPTIONS));
        _prove(index, segment, caller, opening, closing);
    }

    function finalise(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _toJobs(_actor(seed), abi.encodeCall(IJobs.finalise, (id)), index);
    }

    function expire(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _toJobs(_actor(seed), abi.encodeCall(IJobs.expire, (id)), index);
    }

    function claim(uint256 seed) public {
        address account = _actor(seed);
        (uint256 credit, uint256 before) = (jobs.creditOf(account), account.balance);
        if (!_send(account, 0, address(jobs), abi.encodeCall(Escrow.claim, ()), NO_JOB)) return;
        claimed += account.balance - before;
        ++reached["claimed"];
        _hold(account.balance - before == credit && jobs.creditOf(account) == 0, "a credit is paid once");
    }

    // --- jobs, a phase at a time: without these, deep states are too rare -------------------------------------------

    /// Everybody does what is next in a job; some members are silent or lie, as the seed says.
    function play(uint256 seed) public {
        (uint256 index, bytes32 id) = _job(seed);
        if (id != 0) _play(index, id, seed);
    }

    /// Perhaps a request, and some phases of a job.
    function playOn(uint256 seed) public {
        if (_pick(seed, "request", 2) == 0) request(seed);
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        for (uint256 i = 0; i < 6; ++i) {
            _play(index, id, uint256(keccak256(abi.encode(seed, i))));
        }
    }

    /// The same with everybody in time.
    function playPromptly(uint256 seed) public {
        _isPrompt = true;
        playOn(seed);
        _isPrompt = false;
    }

    function _play(uint256 index, bytes32 id, uint256 seed) private {
        Phase phase = jobs.phaseOf(id);
        address anybody = _actor(seed);
        if (phase == Phase.Requested || phase == Phase.Drawing || phase == Phase.Sampling) {
            _draw(index, id, anybody);
            _mine(1);
            _draw(index, id, anybody);
        } else if (phase == Phase.AwaitingInput) {
            _toJobs(_ghosts[index].requester, abi.encodeCall(IJobs.provideInput, (id, bytes32("input"))), index);
        } else if (phase == Phase.Committing || phase == Phase.Revealing) {
            _playRound(index, id, phase == Phase.Committing, seed);
        } else if (phase == Phase.Proving) {
            _playProofs(index, id, seed);
        } else {
            _toJobs(anybody, abi.encodeCall(IJobs.settle, (id)), index);
            _toJobs(anybody, abi.encodeCall(IJobs.finalise, (id)), index);
            _toJobs(anybody, abi.encodeCall(IJobs.expire, (id)), index);
        }
    }

    function _playRound(uint256 index, bytes32 id, bool commits, uint256 seed) private {
        uint256 segment = jobs.jobOf(id).segment;
        Member[] memory members = jobs.roundOf(id, segment).members;
        // One round of three with silent members, one with liars; or none would come through three segments.
        uint256 manner = (_isPrompt ? 1 : 0) + _pick(seed, "manner", 3);
        for (uint256 i = 0; i < members.length; ++i) {
            uint256 choice = _pick(seed, bytes32(i), 8);
            if (manner == 0 && choice < 2) continue;
            if (commits) _commit(index, id, members[i].operator, manner == 1 && choice < OPTIONS ? choice : 0);
            else _reveal(index, id, members[i].operator, _votes[id][segment][members[i].operator]);
        }
        if (manner == 0) _lapse(id);
    }

    function _playProofs(uint256 index, bytes32 id, uint256 seed) private {
        bool late = _pick(seed, "late", 2) == 0;
        // To the middle of the time to prove, from which on the others may.
        if (late) {
            Job memory job = jobs.jobOf(id);
            if (block.timestamp + job.policy.proveSeconds < job.deadline) {
                _passTo(job.deadline - job.policy.proveSeconds);
            }
        }
        for (uint256 i = 0; i < _ghosts[index].segments; ++i) {
            Round memory round = jobs.roundOf(id, i);
            if (round.prover == address(0) || round.proofHash != 0) continue;
            (uint256 opening, uint256 closing) = _truth(index, i);
            uint256 other = _pick(seed, bytes32(i), round.members.length);
            address caller = late ? round.members[other].operator : round.prover;
            // An operator that may well be no member, or have lied, or come before the drawn prover's time is over.
            if (_pick(seed, "outsider", 2) == 0) _prove(index, i, _operator(seed), opening, closing);
            // First, as if it were right, a proof of another opening or closing link.
            if (_pick(seed, "wrong", 2) == 0) _prove(index, i, caller, (opening + 1) % OPTIONS, closing);
            else _prove(index, i, caller, opening, (closing + 1) % OPTIONS);
            _prove(index, i, caller, opening, closing);
        }
    }

    // --- time, and what nobody may do -------------------------------------------------------------------------------

    function pass(uint256 seed) public {
        uint256 kind = _pick(seed, "kind", 16);
        (, bytes32 id) = _job(seed);
        if (kind == 0) _passTo(block.timestamp + UNBONDING);
        else if (kind == 1) _mine(257);
        else if (kind == 2 && id != 0) _lapse(id);
        else _mine(1 + _pick(seed, "blocks", 3));
    }

    function forceEther(uint256 seed) public {
        uint256 amount = _pick(seed, "wei", 1 ether);
        if (_pick(seed, "where", 2) == 0) {
            vm.deal(address(jobs), address(jobs).balance + amount);
            forcedOnJobs += amount;
        } else {
            vm.deal(address(staking), address(staking).balance + amount);
            forcedOnStaking += amount;
        }
    }

    function trespass(uint256 seed) public {
        address operator = _operator(seed);
        bytes memory data = abi.encodeCall(IStaking.slash, (operator, 1, models[_pick(seed, "model", MODELS)]));
        _hold(!_send(_actor(seed), 0, address(staking), data, NO_JOB), "only jobs slash");
        (uint256 index, bytes32 id) = _job(seed);
        if (id == 0) return;
        // A requester's account that is no operator is in no committee.
        address stranger = actors[OPERATORS];
        _hold(!_commit(index, id, stranger, 0), "only members take part");
        _hold(!_prove(index, 0, stranger, 0, 0), "only members take part");
    }

    // --- what the invariants read -----------------------------------------------------------------------------------

    function pastTotals() external view returns (PastTotal[] memory) {
        return _pastTotals;
    }

    function voteOf(bytes32 id, uint256 segment, address operator) external view returns (uint256 option) {
        return _votes[id][segment][operator];
    }

    function linkOf(uint256 segments, uint256 boundary, uint256 option) external pure returns (bytes32) {
        return _link(segments, boundary, option);
    }

    // --- the calls themselves ---------------------------------------------------------------------------------------

    function _bond(address operator, uint256 amount) private {
        vm.deal(operator, operator.balance + amount);
        if (!_send(operator, amount, address(staking), abi.encodeCall(IStaking.bond, ()), NO_JOB)) return;
        bonded[operator] += amount;
        _fresh(operator);
    }

    function _serve(address operator, uint256 model) private {
        if (_send(operator, 0, address(staking), abi.encodeCall(IStaking.serve, (models[model])), NO_JOB)) {
            stale[model][operator] = false;
        }
    }

    function _fresh(address operator) private {
        for (uint256 i = 0; i < MODELS; ++i) {
            stale[i][operator] = false;
        }
    }

    function _toJobs(address caller, bytes memory data, uint256 index) private returns (bool) {
        return _send(caller, 0, address(jobs), data, index);
    }

    function _draw(uint256 index, bytes32 id, address caller) private {
        uint256 seedBlock = jobs.jobOf(id).seedBlock;
        if (!_toJobs(caller, abi.encodeCall(IJobs.draw, (id)), index)) return;
        if (seedBlock != 0 && jobs.jobOf(id).seedBlock != 0) ++reached["seed block renewed"];
    }

    function _commit(uint256 index, bytes32 id, address operator, uint256 option) private returns (bool ok) {
        uint256 segment = jobs.jobOf(id).segment;
        bytes32 link = _link(_ghosts[index].segments, segment + 1, option);
        bytes32 commitment = jobs.commitmentOf(id, segment, operator, link, "salt");
        ok = _toJobs(operator, abi.encodeCall(IJobs.commit, (id, commitment)), index);
        if (ok) _votes[id][segment][operator] = option;
    }

    function _reveal(uint256 index, bytes32 id, address operator, uint256 option) private returns (bool) {
        bytes32 link = _link(_ghosts[index].segments, jobs.jobOf(id).segment + 1, option);
        return _toJobs(operator, abi.encodeCall(IJobs.reveal, (id, link, "salt", bytes32("activation"))), index);
    }

    function _prove(uint256 index, uint256 segment, address caller, uint256 opening, uint256 closing)
        private
        returns (bool ok)
    {
        (bytes32 id, uint256 segments) = (_ghosts[index].id, _ghosts[index].segments);
        (bytes memory proof, uint256[] memory instances) = _proof(segments, segment, opening, closing);
        Job memory job = jobs.jobOf(id);
        ok = _toJobs(caller, abi.encodeCall(IJobs.prove, (id, segment, proof, instances, bytes32("proof"))), index);
        if (!ok) return false;
        _seen[id][segment].opening = _link(segments, segment, opening);
        _seen[id][segment].closing = _link(segments, segment + 1, closing);
        Round memory round = jobs.roundOf(id, segment);
        bool isOpen = block.timestamp + job.policy.proveSeconds >= job.deadline;
        ++reached[caller == round.prover ? "proved" : "proved by another"];
        _hold(caller == round.prover || isOpen, "the drawn prover goes first");
        bool isSupporter = _member(round, caller).link == round.settledLink;
        _hold(isSupporter, "only those prove an output that voted for it");
        _hold(round.proofHash == keccak256(abi.encode(proof, instances)), "the proof's hash is the proof's");
    }

    /// The options that the settled links at a segment's two ends stand for.
    function _truth(uint256 index, uint256 segment) private view returns (uint256 opening, uint256 closing) {
        Ghost storage ghost = _ghosts[index];
        for (uint256 i = 0; i < OPTIONS; ++i) {
            if (segment != 0 && jobs.roundOf(ghost.id, segment - 1).settledLink == _link(ghost.segments, segment, i)) {
                opening = i;
            }
            if (jobs.roundOf(ghost.id, segment).settledLink == _link(ghost.segments, segment + 1, i)) closing = i;
        }
    }

    // --- time -------------------------------------------------------------------------------------------------------

    function _mine(uint256 blocks) private {
        uint256 over = block.number;
        _roll(blocks, block.timestamp + 1);
        if (_pastTotals.length == PAST_TOTALS) return;
        uint256 model = over % MODELS;
        _pastTotals.push(PastTotal(model, uint48(over), staking.totalWeightAt(models[model], uint48(over))));
    }

    function _lapse(bytes32 id) private {
        uint256 deadline = jobs.jobOf(id).deadline;
        if (deadline > block.timestamp) _passTo(deadline);
    }

    function _passTo(uint256 timestamp) private {
        _roll(1, timestamp);
    }

    function _roll(uint256 blocks, uint256 timestamp) private {
        vm.roll(block.number + blocks);
        vm.warp(timestamp);
        for (uint256 i = 0; i < _ghosts.length; ++i) {
            _observe(i);
        }
    }

    // --- choices ----------------------------------------------------------------------------------------------------

    function _job(uint256 seed) private view returns (uint256 index, bytes32 id) {
        if (_ghosts.length == 0) return (0, 0);
        index = _pick(seed, "job", _ghosts.length);
        // Mostly one that is still open.
        for (uint256 i = 0; i < _pick(seed, "open", 6) && _ghosts[index].rank >= RANK_FINALISED; ++i) {
            index = (index + 1) % _ghosts.length;
        }
        id = _ghosts[index].id;
    }
}
