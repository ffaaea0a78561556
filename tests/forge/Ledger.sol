// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Member, Phase, Reason, Round} from "../../contracts/interfaces/IJobs.sol";
import {Hold} from "../../contracts/interfaces/IStaking.sol";
import {Truth} from "./Truth.sol";
import {World} from "./World.sol";

/// @notice What has to be remembered to tell whether the contracts keep their word. It is kept from calls and events,
/// apart from the contracts' own books.
abstract contract Ledger is World {
    /// @param credited All that was credited because of this job.
    /// @param record Hash of the whole record when the job was closed.
    struct Ghost {
        bytes32 id;
        address requester;
        uint8 model;
        uint8 segments;
        uint8 segment;
        uint8 redraws;
        bool started;
        bool closed;
        Phase stored;
        uint48 frozenBlock;
        uint48 deadline;
        uint48 endsAt;
        uint48 proveSeconds;
        uint256 feeWei;
        uint256 input;
        uint256 attempts;
        uint256 credited;
        bytes32 record;
    }

    /// One attempt at one segment, as last seen. `opening` and `closing` are the links of the proof that was accepted.
    struct Seen {
        bytes32 committee;
        bytes32 settledLink;
        bytes32 proofHash;
        bytes32 opening;
        bytes32 closing;
        address prover;
    }

    /// The call under way.
    /// @param before The phase that held when it was made.
    /// @param overturned, proved The segment that it overturned or proved, plus one.
    /// @param taken What it took of bonds: `held` of it is held, the last of it was taken of `slashed`.
    /// @param released, compensated What was no longer held, and what of that was credited.
    struct Call {
        bytes4 selector;
        Phase before;
        uint8 overturned;
        uint8 proved;
        address caller;
        uint256 job;
        uint256 taken;
        uint256 last;
        address slashed;
        uint256 held;
        uint256 released;
        uint256 compensated;
    }

    uint256 internal constant NO_JOB = type(uint256).max;

    Call internal _now;
    Ghost[] internal _ghosts;
    /// Those that are not closed.
    uint256[] internal _open;
    mapping(bytes32 jobId => uint256 indexPlusOne) internal _indexOf;
    mapping(bytes32 jobId => mapping(uint256 segment => mapping(uint256 attempt => Seen))) internal _seen;
    /// What members committed to, and which number a link stands for.
    mapping(bytes32 round => mapping(address operator => bytes32 link)) internal _words;
    mapping(bytes32 link => uint256) internal _valueOf;
    mapping(bytes32 round => mapping(address operator => mapping(Reason => uint256))) internal _penalties;
    mapping(bytes32 round => mapping(address operator => bool)) internal _equivocated;

    enum Held {
        None,
        Open,
        GivenBack,
        Released
    }

    /// As announced, in order; those that are open; and by job, segment, attempt and operator, where they are.
    Hold[] internal _holds;
    uint256[] internal _openHolds;
    mapping(uint256 place => Held) internal _heldState;
    mapping(bytes32 held => uint256 placePlusOne) internal _holdAt;

    mapping(address operator => uint256) internal _stakes;
    mapping(address operator => uint256) internal _bonded;
    /// What an operator lost because others said that they could not have its activation.
    mapping(address operator => uint256) internal _votedDown;
    /// What `Staking` owes; `_credits` is what `Jobs` owes.
    mapping(address account => uint256) internal _compensations;
    mapping(address operator => uint256) internal _withdrawn;
    mapping(address operator => uint256) internal _releaseAt;
    mapping(address account => uint256) internal _credits;
    mapping(bytes32 jobId => mapping(address operator => uint256)) internal _withdrawnBefore;
    mapping(bytes32 jobId => mapping(address operator => uint256)) internal _unbondingBefore;
    /// The block in which an operator's unbonding stake last changed, and what it was before that block.
    mapping(address operator => uint256) internal _unbondingBlock;
    mapping(address operator => uint256) internal _unbondingThen;
    mapping(uint256 model => mapping(address operator => uint256)) internal _reputations;
    /// The weight that was announced last.
    mapping(uint256 model => mapping(address operator => uint256)) internal _weights;
    /// Slashed, or given back, for another model since this one's weights were refreshed.
    mapping(uint256 model => mapping(address operator => bool)) internal _stale;
    mapping(uint256 model => uint256) internal _running;
    uint256 internal _allStakes;
    uint256 internal _allHeld;
    uint256 internal _allCompensations;
    uint256 internal _openFees;
    uint256 internal _allCredits;
    uint256 internal _burntSeen = address(0).balance;
    uint256 internal _forcedOnJobs;
    uint256 internal _forcedOnStaking;
    /// How often each outcome came about.
    mapping(bytes32 outcome => uint256) public reached;
    mapping(Phase => uint256) public overturnedIn;

    function _round(bytes32 id, uint256 segment, uint256 attempt) internal pure returns (bytes32) {
        return keccak256(abi.encode(id, segment, attempt));
    }

    function _attempt(uint256 index, uint256 segment) internal view returns (uint256) {
        return uint16(_ghosts[index].attempts >> (16 * segment));
    }

    function _seenNow(uint256 index, uint256 segment) internal view returns (Seen storage) {
        return _seen[_ghosts[index].id][segment][_attempt(index, segment)];
    }

    function _roundNow(uint256 index, uint256 segment) internal view returns (Round memory) {
        return jobs.roundAt(_ghosts[index].id, segment, _attempt(index, segment));
    }

    /// The link that a segment has to open with; zero while there is none.
    function _opening(uint256 index, uint256 segment) internal view returns (bytes32) {
        if (segment == 0) return Truth.linkOf(_ghosts[index].input, false);
        return _seenNow(index, segment - 1).settledLink;
    }

    function _isOutput(bytes32 link) internal pure returns (bool) {
        return uint256(link) > 2;
    }

    function _member(Round memory round, address operator) internal pure returns (Member memory none) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].operator == operator) return round.members[i];
        }
        return none;
    }

    function _weightFor(Round memory round, bytes32 link) internal pure returns (uint256 sum) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].link == link) sum += round.members[i].weight;
        }
    }

    /// Four buckets to the octave, to the next two bits.
    function _bucket(uint256 fee) internal pure returns (uint256) {
        uint256 octave;
        while (fee >> octave > 1) ++octave;
        uint256 bucket = 4 * octave + ((4 * fee) >> octave) - 4;
        return bucket < 255 ? bucket : 255;
    }
}
