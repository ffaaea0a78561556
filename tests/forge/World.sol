// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Jobs} from "../../contracts/Jobs.sol";
import {Registry} from "../../contracts/Registry.sol";
import {Staking} from "../../contracts/Staking.sol";
import {Verifier} from "../../contracts/Verifier.sol";
import {Policy} from "../../contracts/interfaces/IJobs.sol";
import {LinkKind, SegmentSpec} from "../../contracts/interfaces/IRegistry.sol";
import {Parameters} from "../../contracts/jobs/JobRecord.sol";
import {Cheats} from "./Cheats.sol";
import {Truth, TruthVerifier} from "./Truth.sol";

/// @notice An operator whose every receipt of ether is an attempt to be paid again.
contract Reenterer {
    uint256 public attempts;
    uint256 public successes;

    receive() external payable {
        bytes4[2] memory ways = [bytes4(keccak256("claim()")), bytes4(keccak256("withdraw()"))];
        for (uint256 i = 0; i < ways.length; ++i) {
            (bool ok,) = msg.sender.call(abi.encodePacked(ways[i]));
            ++attempts;
            if (ok) ++successes;
        }
    }
}

/// @notice The contracts, three models of one to three segments (the second one with trials), and the accounts.
abstract contract World is Cheats {
    uint256 internal constant MINIMUM_STAKE = 1 ether;
    uint256 internal constant MINIMUM_FEE = 1000;
    uint256 internal constant MINIMUM_WINDOW = 10;
    uint256 internal constant JOB_SECONDS = 7 days;
    uint256 internal constant MODELS = 3;
    uint256 internal constant MODEL_WITH_TRIALS = 1;
    uint256 internal constant TRIALS = 4;
    uint256 internal constant OPERATORS = 7;
    /// Those after the first one, who is a contract: they do what the protocol asks, and never late.
    uint256 internal immutable HONEST;
    /// Operators, then requesters.
    uint256 internal constant ACTORS = 9;
    /// Outputs that a member may claim: the truth, and two lies, the first maybe provable; then the two votes.
    uint256 internal constant OUTPUTS = 3;
    uint256 internal constant OPTIONS = 5;
    uint256 internal constant BPS = 10_000;
    uint256 private constant KEYS = 0xA0000;
    uint32 private constant PROOF_BYTES = 160;

    /// Two worlds, so that forge can play in both at a time: the second one's penalties take all that was drawn.
    uint256 internal immutable WORLD;
    uint256 internal immutable UNBONDING;
    uint256 internal immutable MAX_RUNNING;
    uint256 internal immutable MISS_BPS;
    uint256 internal immutable CONTRADICTION_BPS;
    uint256 internal immutable CHALLENGER_BPS;
    uint256 internal immutable REQUESTER_BPS;
    uint256 internal constant PROVER_BPS = 4000;
    uint256 internal constant FAULT_BPS = 2000;
    uint256 internal constant APPEAL_SECONDS = 1 days;

    Registry public registry;
    Verifier public verifier;
    Jobs public jobs;
    Staking public staking;
    Reenterer public reenterer;
    address[ACTORS] public actors;
    mapping(address actor => uint256 placePlusOne) internal _placeOf;
    bytes32[MODELS] public models;

    constructor(uint256 world) {
        WORLD = world;
        HONEST = world == 0 ? 3 : 2;
        UNBONDING = world == 0 ? JOB_SECONDS : JOB_SECONDS + 1 days;
        MAX_RUNNING = world == 0 ? 2 : 1;
        MISS_BPS = world == 0 ? 500 : 3000;
        CONTRADICTION_BPS = world == 0 ? 5000 : BPS;
        CHALLENGER_BPS = world == 0 ? 3000 : BPS / 2;
        REQUESTER_BPS = world == 0 ? 1000 : 0;
        registry = new Registry();
        verifier = new Verifier(registry);
        jobs = new Jobs(
            registry,
            verifier,
            Parameters({
                minimumStakeWei: MINIMUM_STAKE,
                unbondingSeconds: UNBONDING,
                minimumFeeWei: MINIMUM_FEE,
                minimumWindowSeconds: MINIMUM_WINDOW,
                maxRunningJobs: MAX_RUNNING,
                missPenaltyBps: MISS_BPS,
                contradictionPenaltyBps: CONTRADICTION_BPS,
                proverShareBps: PROVER_BPS,
                faultShareBps: FAULT_BPS,
                challengerShareBps: CHALLENGER_BPS,
                requesterShareBps: REQUESTER_BPS
            })
        );
        staking = jobs.staking();
        reenterer = new Reenterer();
        for (uint256 i = 0; i < ACTORS; ++i) {
            actors[i] = i == 0 ? address(reenterer) : vm.addr(KEYS + i);
            _placeOf[actors[i]] = i + 1;
        }
        for (uint256 i = 0; i < MODELS; ++i) {
            models[i] = _register(i, i + 1);
        }
    }

    function _register(uint256 model, uint256 segments) private returns (bytes32) {
        SegmentSpec[] memory specs = new SegmentSpec[](segments);
        address[] memory verifiers = new address[](segments);
        uint32[] memory shape = new uint32[](1);
        shape[0] = 1;
        for (uint256 i = 0; i < segments; ++i) {
            bool isLast = i + 1 == segments;
            verifiers[i] = address(new TruthVerifier(i, isLast));
            LinkKind closing = isLast ? LinkKind.Public : LinkKind.Kzg;
            specs[i] = SegmentSpec(
                bytes32(i + 1), verifiers[i].codehash, LinkKind.Kzg, closing, 7, 7, PROOF_BYTES, shape, shape
            );
        }
        bytes32[] memory trials = new bytes32[](model == MODEL_WITH_TRIALS ? TRIALS : 0);
        for (uint256 i = 0; i < trials.length; ++i) {
            trials[i] = keccak256(abi.encode(keccak256("interlock.answer.v1"), _answer(i)));
        }
        return registry.registerModel(bytes32(segments), "cid", specs, verifiers, trials);
    }

    function _answer(uint256 trial) internal pure returns (bytes32) {
        return keccak256(abi.encode("answer", trial));
    }

    /// A proof that a segment turns one number into another, true or not, and its instances.
    function _proof(uint256 segments, uint256 segment, uint256 opening, uint256 closing)
        internal
        pure
        returns (bytes memory proof, uint256[] memory instances)
    {
        bytes memory first = Truth.commitment(opening);
        if (segment + 1 == segments) {
            instances = new uint256[](1);
            instances[0] = closing;
            return (abi.encodePacked(first, new bytes(PROOF_BYTES - 64)), instances);
        }
        proof = abi.encodePacked(first, Truth.commitment(closing), new bytes(PROOF_BYTES - 128));
    }

    function _signature(address operator, bytes32 digest) internal view returns (bytes memory) {
        if (operator == address(reenterer)) return new bytes(65);
        (uint8 v, bytes32 r, bytes32 s) = vm.sign(KEYS + _placeOf[operator] - 1, digest);
        return abi.encodePacked(r, s, v);
    }

    function _isHonest(address actor) internal view returns (bool) {
        uint256 place = _placeOf[actor];
        return place > 1 && place <= HONEST + 1;
    }

    // --- choices: each is a number out of a move's seed -------------------------------------------------------------

    function _pick(uint256 seed, bytes32 what, uint256 below) internal view returns (uint256 choice) {
        uint256 world = WORLD;
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, seed)
            mstore(add(free, 32), what)
            mstore(add(free, 64), world)
            choice := mod(keccak256(free, 96), below)
        }
    }

    function _operator(uint256 seed) internal view returns (address) {
        return actors[_pick(seed, "operator", OPERATORS)];
    }

    function _actor(uint256 seed) internal view returns (address) {
        return actors[_pick(seed, "actor", ACTORS)];
    }

    function _policy(uint256 seed) internal view returns (Policy memory) {
        uint8[6] memory sizes = [1, 2, 3, 4, 4, 4];
        uint16[6] memory quorums = [uint16(5001), 5001, 5001, 6000, 6667, 10_000];
        uint16[3] memory rates = [uint16(0), 500, 1000];
        // Most windows are minutes; one job in eight would fill the seven days that it has.
        uint256 longest = _pick(seed, "long", 8) == 0 ? 3501 : 500;
        uint256 least = _pick(seed, "short", 8) == 0 ? MINIMUM_WINDOW : 10 * MINIMUM_WINDOW;
        return Policy({
            committeeSize: sizes[_pick(seed, "size", 6)],
            quorumBps: quorums[_pick(seed, "quorum", 6)],
            proofPermille: rates[_pick(seed, "rate", 3)],
            inputSeconds: uint32(least + _pick(seed, "input", longest)),
            commitSeconds: uint32(least + _pick(seed, "commit", longest)),
            revealSeconds: uint32(least + _pick(seed, "reveal", longest)),
            proveSeconds: uint32(least + _pick(seed, "prove", longest)),
            challengeSeconds: uint32(least + _pick(seed, "challenge", longest))
        });
    }
}
