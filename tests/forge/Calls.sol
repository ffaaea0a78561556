// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IJobs, Member, Phase, Round} from "../../contracts/interfaces/IJobs.sol";
import {Appeals} from "./Appeals.sol";
import {Truth} from "./Truth.sol";

/// @notice Calls that members make, what the honest ones owe, and time, which never passes before they did it.
abstract contract Calls is Appeals {
    bytes32 private constant CID = "cid";

    struct PastTotal {
        uint256 model;
        uint48 blockNumber;
        uint256 total;
    }

    PastTotal[] internal _pastTotals;
    uint256 private constant PAST_TOTALS = 8;

    function _toJobs(address caller, bytes memory data, uint256 index) internal returns (bool) {
        return _send(caller, 0, address(jobs), data, index);
    }

    // --- what a member may say --------------------------------------------------------------------------------------

    /// The number that a segment gives for what it opens with; or a lie, or what it gives for something else.
    function _output(uint256 index, uint256 segment, uint256 option) internal view returns (uint256) {
        uint256 opening = _valueOf[_opening(index, segment)];
        if (option == 2) return Truth.step(segment, opening + 1);
        return Truth.step(segment, opening) + option;
    }

    function _link(uint256 index, uint256 segment, uint256 option) internal view returns (bytes32) {
        if (option >= OUTPUTS) return bytes32(option - OUTPUTS + 1);
        return Truth.linkOf(_output(index, segment, option), segment + 1 == _ghosts[index].segments);
    }

    /// The truth; or, where nobody honest can have sent it its input, now and then that there was none.
    function _honestOption(uint256 index, uint256 segment) private view returns (uint256) {
        uint256 choice = _pick(uint256(_ghosts[index].id), bytes32(segment), 12);
        if (choice < OUTPUTS || choice >= OPTIONS) return 0;
        if (segment == 0) return choice;
        Round memory before = _roundNow(index, segment - 1);
        for (uint256 i = 0; i < before.members.length; ++i) {
            Member memory member = before.members[i];
            if (_isHonest(member.operator) && member.link == before.settledLink) return 0;
        }
        return choice;
    }

    function _commit(uint256 index, address operator, uint256 option) internal returns (bool ok) {
        Ghost storage ghost = _ghosts[index];
        (bytes32 id, uint256 segment) = (ghost.id, ghost.segment);
        uint256 attempt = _attempt(index, segment);
        if (_isHonest(operator)) option = _honestOption(index, segment);
        bytes32 link = _link(index, segment, option);
        bytes32 commitment = jobs.commitmentOf(id, segment, attempt, operator, link, "salt");
        ok = _toJobs(operator, abi.encodeCall(IJobs.commit, (id, segment, attempt, commitment)), index);
        if (!ok) return false;
        bytes32 key = _round(id, segment, attempt);
        check(_words[key][operator] == 0, "37 only what was committed");
        check(_member(jobs.roundAt(id, segment, attempt), operator).operator != address(0), "38 only members");
        _words[key][operator] = link;
        if (option < OUTPUTS) _valueOf[link] = _output(index, segment, option);
    }

    /// Reveals what was committed to, or a vote.
    function _reveal(uint256 index, address operator, bytes32 link) internal returns (bool ok) {
        Ghost storage ghost = _ghosts[index];
        bytes32 word = _words[_round(ghost.id, ghost.segment, _attempt(index, ghost.segment))][operator];
        bytes32 cid = _isOutput(link) ? CID : bytes32(0);
        ok = _toJobs(operator, abi.encodeCall(IJobs.reveal, (ghost.id, link, "salt", cid)), index);
        check(!ok || (link == word && link != 0), "37 only what was committed");
    }

    function _revealOwn(uint256 index, address operator) internal returns (bool ok) {
        Ghost storage ghost = _ghosts[index];
        return _reveal(
            index, operator, _words[_round(ghost.id, ghost.segment, _attempt(index, ghost.segment))][operator]
        );
    }

    function _prove(uint256 index, uint256 segment, address caller, uint256 opening, uint256 closing)
        internal
        returns (bool)
    {
        Ghost storage ghost = _ghosts[index];
        (bytes memory proof, uint256[] memory instances) = _proof(ghost.segments, segment, opening, closing);
        return _toJobs(caller, abi.encodeCall(IJobs.prove, (ghost.id, segment, proof, instances, CID)), index);
    }

    function _proveTruth(uint256 index, uint256 segment, address caller) internal returns (bool) {
        uint256 closing = _ownOutput(index, segment, caller);
        return _prove(index, segment, caller, _valueOf[_opening(index, segment)], closing);
    }

    function _announce(uint256 index, uint256 segment, address caller) internal returns (bool) {
        Ghost storage ghost = _ghosts[index];
        (bytes memory proof, uint256[] memory instances) = _proof(
            ghost.segments, segment, _valueOf[_opening(index, segment)], _ownOutput(index, segment, caller)
        );
        bytes32 announcement = jobs.announcementOf(
            ghost.id, segment, _attempt(index, segment), caller, keccak256(abi.encode(proof, instances))
        );
        return _toJobs(caller, abi.encodeCall(IJobs.announce, (ghost.id, segment, announcement)), index);
    }

    /// What it can prove: what it revealed, or else the truth.
    function _ownOutput(uint256 index, uint256 segment, address operator) private view returns (uint256) {
        bool isSecond = _member(_roundNow(index, segment), operator).link == _link(index, segment, 1);
        return _output(index, segment, isSecond && _hasSecond(index, segment) ? 1 : 0);
    }

    /// Whether the first lie can be proved as well.
    function _hasSecond(uint256 index, uint256 segment) internal view returns (bool) {
        return Truth.isDoubtful(segment, _valueOf[_opening(index, segment)]);
    }

    /// INVARIANT: one honest proof overturns any quorum, at any time until the job is decided.
    function _challenge(uint256 index, uint256 segment, address caller, uint256 opening, uint256 closing)
        internal
        returns (bool ok)
    {
        Ghost storage ghost = _ghosts[index];
        (bytes memory proof, uint256[] memory instances) = _proof(ghost.segments, segment, opening, closing);
        bool mustPass = _isAdmitted(index, segment, opening, closing)
            && _mustPass(index, segment, caller, closing, keccak256(abi.encode(proof, instances)));
        ok = _toJobs(caller, abi.encodeCall(IJobs.challenge, (ghost.id, segment, proof, instances, CID)), index);
        check(ok || !mustPass, "44 one honest proof wins");
        if (ok && _now.before == Phase.Contested && _now.overturned == 0) ++reached["contested, then proved"];
    }

    function _isAdmitted(uint256 index, uint256 segment, uint256 opening, uint256 closing) private view returns (bool) {
        return opening == _valueOf[_opening(index, segment)] && Truth.admits(segment, opening, closing);
    }

    function _mustPass(uint256 index, uint256 segment, address caller, uint256 closing, bytes32 proofHash)
        private
        view
        returns (bool)
    {
        Ghost storage ghost = _ghosts[index];
        Phase phase = jobs.phaseOf(ghost.id);
        if (phase < Phase.Committing || phase > Phase.Challengeable || segment > ghost.segment) return false;
        Round memory round = _roundNow(index, segment);
        Member memory member = _member(round, caller);
        if (round.proofHash != 0 || member.link == 0) return false;
        if (member.link != Truth.linkOf(closing, segment + 1 == ghost.segments)) return false;
        bool isContested = phase == Phase.Contested && segment == ghost.segment;
        if (round.settledLink == member.link || (round.settledLink == 0 && !isContested)) return false;
        return _hasAnnounced(index, segment, member, proofHash);
    }

    function _hasAnnounced(uint256 index, uint256 segment, Member memory member, bytes32 proofHash)
        private
        view
        returns (bool)
    {
        bytes32 announcement = jobs.announcementOf(
            _ghosts[index].id, segment, _attempt(index, segment), member.operator, proofHash
        );
        return member.announcement == announcement && member.announcedBlock < block.number;
    }

    // --- the honest, and time ---------------------------------------------------------------------------------------

    function _mine(uint256 blocks) internal {
        uint256 over = block.number;
        _passTo(block.timestamp + blocks, blocks);
        if (_pastTotals.length == PAST_TOTALS) return;
        uint256 model = over % MODELS;
        _pastTotals.push(PastTotal(model, uint48(over), staking.totalWeightAt(models[model], uint48(over))));
    }

    function _lapse(uint256 index) internal {
        uint256 deadline = _ghosts[index].deadline;
        if (deadline > block.timestamp) _passTo(deadline, 1);
    }

    /// Before a job's phase lapses, its honest members did what it asks of them.
    function _passTo(uint256 timestamp, uint256 blocks) internal {
        uint256[] memory open = _open;
        for (uint256 i = 0; i < open.length; ++i) {
            Ghost storage ghost = _ghosts[open[i]];
            if (!ghost.started) continue;
            for (uint256 turn = 0; turn < 12; ++turn) {
                // A drawn prover is late when others may prove in its place.
                uint256 due = ghost.deadline - (ghost.stored == Phase.Proving ? ghost.proveSeconds : 0);
                if (ghost.closed || (timestamp < due && timestamp < ghost.endsAt)) break;
                if (!_doDuties(open[i])) break;
            }
        }
        _appealHonestly(timestamp);
        vm.roll(block.number + blocks);
        vm.warp(timestamp);
        for (uint256 i = 0; i < _open.length; ++i) {
            _checkEnd(_ghosts[_open[i]]);
        }
    }

    function _checkEnd(Ghost storage ghost) private view {
        if (!ghost.started || block.timestamp < ghost.endsAt) return;
        Phase phase = jobs.phaseOf(ghost.id);
        check(phase == Phase.Finalisable || phase == Phase.Expired, "41 nothing is open after its end");
    }

    function _doDuties(uint256 index) private returns (bool acted) {
        Ghost storage ghost = _ghosts[index];
        Phase phase = jobs.phaseOf(ghost.id);
        if (phase == Phase.Proving) return _doProofs(index);
        if (phase != Phase.Committing && phase != Phase.Revealing) return false;
        if (phase == Phase.Committing && ghost.segment != 0) _resealHonestly(index);
        Member[] memory members = _roundNow(index, ghost.segment).members;
        for (uint256 i = 0; i < members.length; ++i) {
            if (!_isHonest(members[i].operator)) continue;
            bool ok = true;
            if (phase == Phase.Committing && members[i].commitment == 0) {
                (ok, acted) = (_commit(index, members[i].operator, 0), true);
            } else if (phase == Phase.Revealing && members[i].commitment != 0 && members[i].link == 0) {
                (ok, acted) = (_revealOwn(index, members[i].operator), true);
            }
            check(ok, "45 who is in time is heard");
        }
    }

    function _doProofs(uint256 index) private returns (bool acted) {
        for (uint256 i = 0; i < _ghosts[index].segments; ++i) {
            Round memory round = _roundNow(index, i);
            if (round.proofHash != 0 || !_isHonest(round.prover)) continue;
            acted = true;
            check(_proveTruth(index, i, round.prover), "45 who is in time is heard");
        }
    }

    function _resealHonestly(uint256 index) private {
        uint256 segment = _ghosts[index].segment;
        Round memory before = _roundNow(index, segment - 1);
        for (uint256 i = 0; i < before.members.length; ++i) {
            Member memory member = before.members[i];
            if (member.link != before.settledLink || !_isHonest(member.operator)) continue;
            if (member.sealedFor >= _attempt(index, segment)) continue;
            check(_reseal(index, member.operator), "45 who is in time is heard");
        }
    }

    function _reseal(uint256 index, address operator) internal returns (bool ok) {
        ok = _toJobs(operator, abi.encodeCall(IJobs.reseal, (_ghosts[index].id, CID)), index);
        if (ok) ++reached["resealed"];
    }
}
