// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Jobs, Parameters} from "../../contracts/Jobs.sol";
import {Registry} from "../../contracts/Registry.sol";
import {Staking} from "../../contracts/Staking.sol";
import {Verifier} from "../../contracts/Verifier.sol";
import {Policy} from "../../contracts/interfaces/IJobs.sol";
import {LinkKind, SegmentSpec} from "../../contracts/interfaces/IRegistry.sol";
import {VerifierMock} from "../../contracts/mocks/VerifierMock.sol";
import {Cheats} from "./Cheats.sol";

/// @notice An operator whose every receipt of ether is an attempt to be paid again.
contract Reenterer {
    uint256 public attempts;
    uint256 public successes;

    receive() external payable {
        bytes4[3] memory ways =
            [bytes4(keccak256("claim()")), bytes4(keccak256("withdraw()")), bytes4(keccak256("bond()"))];
        // Not bond(): it needs value, and is there only to be refused.
        for (uint256 i = 0; i < ways.length; ++i) {
            (bool ok,) = msg.sender.call(abi.encodePacked(ways[i]));
            ++attempts;
            if (ok) ++successes;
        }
    }
}

/// @notice The contracts, three models of one to three segments whose verifiers accept everything, and the accounts.
abstract contract World is Cheats {
    uint256 internal constant MINIMUM_STAKE = 1 ether;
    uint256 internal constant UNBONDING = 83 hours;
    uint256 internal constant MINIMUM_FEE = 1000;
    uint256 internal constant MINIMUM_WINDOW = 10;
    uint256 internal constant MISS_BPS = 500;
    uint256 internal constant CONTRADICTION_BPS = 5000;
    uint256 internal constant PROVER_BPS = 4000;
    uint256 internal constant MODELS = 3;
    uint256 internal constant OPERATORS = 6;
    /// Operators, then requesters.
    uint256 internal constant ACTORS = 8;
    uint256 internal constant OPTIONS = 3;
    uint32 private constant PROOF_BYTES = 160;

    Registry public registry;
    Verifier public verifier;
    Jobs public jobs;
    Staking public staking;
    Reenterer public reenterer;
    address[ACTORS] public actors;
    bytes32[MODELS] public models;

    constructor() {
        registry = new Registry();
        verifier = new Verifier(registry);
        jobs = new Jobs(
            registry,
            verifier,
            Parameters(MINIMUM_STAKE, UNBONDING, MINIMUM_FEE, MINIMUM_WINDOW, MISS_BPS, CONTRADICTION_BPS, PROVER_BPS)
        );
        staking = jobs.staking();
        reenterer = new Reenterer();
        for (uint256 i = 0; i < ACTORS; ++i) {
            actors[i] = i == 0 ? address(reenterer) : address(uint160(0xA0000 + i));
        }
        for (uint256 i = 0; i < MODELS; ++i) {
            models[i] = _register(i + 1);
        }
    }

    function _register(uint256 segments) internal returns (bytes32) {
        SegmentSpec[] memory specs = new SegmentSpec[](segments);
        address[] memory verifiers = new address[](segments);
        uint32[] memory shape = new uint32[](2);
        (shape[0], shape[1]) = (1, 3);
        for (uint256 i = 0; i < segments; ++i) {
            verifiers[i] = address(new VerifierMock(VerifierMock.Answer.True, i));
            LinkKind closing = i + 1 == segments ? LinkKind.Public : LinkKind.Kzg;
            specs[i] = SegmentSpec(
                bytes32(i + 1), verifiers[i].codehash, LinkKind.Kzg, closing, 7, 7, PROOF_BYTES, shape, shape
            );
        }
        return registry.registerModel(bytes32(segments), "cid", specs, verifiers);
    }

    // --- what members may claim that a segment gives: the truth is option 0, the others are lies --------------------

    /// The 64 bytes of the commitment at a boundary between segments; boundary 0 is the input.
    function _boundary(uint256 boundary, uint256 option) internal pure returns (bytes memory) {
        bytes32 x = keccak256(abi.encode("x", boundary, option));
        return abi.encodePacked(x, keccak256(abi.encode("y", boundary, option)));
    }

    function _result(uint256 option) internal pure returns (uint256[] memory elements) {
        elements = new uint256[](3);
        (elements[0], elements[1], elements[2]) = (7 + option, 8, 9);
    }

    function _link(uint256 segments, uint256 boundary, uint256 option) internal pure returns (bytes32) {
        if (boundary == segments) return keccak256(abi.encodePacked(_result(option)));
        return keccak256(_boundary(boundary, option));
    }

    /// A proof that the mock verifiers accept, and its instances.
    function _proof(uint256 segments, uint256 segment, uint256 opening, uint256 closing)
        internal
        pure
        returns (bytes memory proof, uint256[] memory instances)
    {
        if (segment + 1 == segments) {
            return (abi.encodePacked(_boundary(segment, opening), new bytes(PROOF_BYTES - 64)), _result(closing));
        }
        return (
            abi.encodePacked(
                _boundary(segment, opening), _boundary(segment + 1, closing), new bytes(PROOF_BYTES - 128)
            ),
            new uint256[](0)
        );
    }

    // --- choices: each is a number out of a move's seed -------------------------------------------------------------

    function _pick(uint256 seed, bytes32 what, uint256 below) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode(seed, what))) % below;
    }

    function _operator(uint256 seed) internal view returns (address) {
        return actors[_pick(seed, "operator", OPERATORS)];
    }

    function _actor(uint256 seed) internal view returns (address) {
        return actors[_pick(seed, "actor", ACTORS)];
    }

    function _option(uint256 seed) internal pure returns (uint256) {
        return _pick(seed, "option", OPTIONS);
    }

    function _policy(uint256 seed) internal pure returns (Policy memory) {
        uint8[6] memory sizes = [1, 2, 3, 3, 4, 4];
        uint16[4] memory quorums = [uint16(5001), 6000, 6667, 10_000];
        uint16[3] memory rates = [uint16(0), 500, 1000];
        return Policy({
            committeeSize: sizes[_pick(seed, "size", 6)],
            quorumBps: quorums[_pick(seed, "quorum", 4)],
            proofPermille: rates[_pick(seed, "rate", 3)],
            inputSeconds: uint32(MINIMUM_WINDOW + _pick(seed, "input", 2000)),
            commitSeconds: uint32(MINIMUM_WINDOW + _pick(seed, "commit", 2000)),
            revealSeconds: uint32(MINIMUM_WINDOW + _pick(seed, "reveal", 2000)),
            proveSeconds: uint32(MINIMUM_WINDOW + _pick(seed, "prove", 2000))
        });
    }
}
