// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IRegistry, LinkKind, Segment, SegmentSpec} from "./interfaces/IRegistry.sol";

/// @title Registry
/// @notice See {IRegistry}.
contract Registry is IRegistry {
    bytes32 public constant MODEL_TAG = keccak256("interlock.model.v2");
    uint256 public constant MAX_SEGMENTS = 16;
    uint256 public constant MAX_DIMENSIONS = 8;
    uint256 public constant MAX_ELEMENTS = 1 << 20;
    uint32 public constant MAX_PROOF_BYTES = 1 << 16;
    uint256 public constant MAX_TRIALS = 256;

    struct Model {
        bytes32 manifestHash;
        bytes32 manifestCid;
        Segment[] segments;
        bytes32[] trials;
    }

    mapping(bytes32 modelId => Model) private _models;

    /// @inheritdoc IRegistry
    function registerModel(
        bytes32 manifestHash,
        bytes32 manifestCid,
        SegmentSpec[] calldata specs,
        address[] calldata verifiers,
        bytes32[] calldata trials
    ) external returns (bytes32 modelId) {
        if (specs.length == 0 || specs.length > MAX_SEGMENTS) revert SegmentCountOutOfRange(specs.length, MAX_SEGMENTS);
        if (specs.length != verifiers.length) revert VerifierCountMismatch(specs.length, verifiers.length);
        if (trials.length > MAX_TRIALS) revert TrialCountOutOfRange(trials.length, MAX_TRIALS);
        modelId = modelIdOf(manifestHash, manifestCid, specs, trials);
        Model storage model = _models[modelId];
        if (model.segments.length != 0) revert ModelAlreadyRegistered(modelId);

        model.manifestHash = manifestHash;
        model.manifestCid = manifestCid;
        model.trials = trials;
        for (uint256 i = 0; i < specs.length; ++i) {
            _requireVerifier(i, specs[i].verifierCodeHash, verifiers[i]);
            if (i > 0) _requireBoundary(i, specs[i - 1], specs[i]);
            model.segments.push(_segment(i, specs[i], verifiers[i]));
        }
        LinkKind last = specs[specs.length - 1].outputKind;
        if (last != LinkKind.Public) revert LastOutputNotPublic(last);

        emit ModelRegistered(modelId, msg.sender, manifestHash, manifestCid, specs.length);
    }

    /// @inheritdoc IRegistry
    function grantAccess(bytes32 modelId, bytes32 grantCid) external {
        if (_models[modelId].segments.length == 0) revert UnknownModel(modelId);
        emit AccessGranted(modelId, msg.sender, grantCid);
    }

    /// @inheritdoc IRegistry
    function modelIdOf(
        bytes32 manifestHash,
        bytes32 manifestCid,
        SegmentSpec[] calldata specs,
        bytes32[] calldata trials
    ) public pure returns (bytes32) {
        return keccak256(abi.encode(MODEL_TAG, manifestHash, manifestCid, specs, trials));
    }

    /// @inheritdoc IRegistry
    function isRegistered(bytes32 modelId) external view returns (bool) {
        return _models[modelId].segments.length != 0;
    }

    /// @inheritdoc IRegistry
    function segmentCount(bytes32 modelId) external view returns (uint256) {
        return _models[modelId].segments.length;
    }

    /// @inheritdoc IRegistry
    function segmentOf(bytes32 modelId, uint256 index) external view returns (Segment memory) {
        Segment[] storage segments = _models[modelId].segments;
        if (index >= segments.length) revert UnknownSegment(modelId, index);
        return segments[index];
    }

    /// @inheritdoc IRegistry
    function trialCount(bytes32 modelId) external view returns (uint256) {
        return _models[modelId].trials.length;
    }

    /// @inheritdoc IRegistry
    function trialOf(bytes32 modelId, uint256 index) external view returns (bytes32) {
        bytes32[] storage trials = _models[modelId].trials;
        if (index >= trials.length) revert UnknownTrial(modelId, index);
        return trials[index];
    }

    /// @inheritdoc IRegistry
    function manifestOf(bytes32 modelId) external view returns (bytes32 manifestHash, bytes32 manifestCid) {
        Model storage model = _models[modelId];
        if (model.segments.length == 0) revert UnknownModel(modelId);
        return (model.manifestHash, model.manifestCid);
    }

    /// A call to an address without code succeeds, so such an address would accept every proof.
    function _requireVerifier(uint256 index, bytes32 expected, address verifier) private view {
        if (verifier.code.length == 0) revert VerifierHasNoCode(index, verifier);
        if (verifier.codehash != expected) revert VerifierCodeMismatch(index, expected, verifier.codehash);
    }

    function _requireBoundary(uint256 index, SegmentSpec calldata before, SegmentSpec calldata next) private pure {
        if (before.outputScale != next.inputScale) revert ScaleMismatch(index, before.outputScale, next.inputScale);
        if (before.outputKind != next.inputKind) revert LinkKindMismatch(index, before.outputKind, next.inputKind);
        if (keccak256(abi.encode(before.outputShape)) != keccak256(abi.encode(next.inputShape))) {
            revert ShapeMismatch(index);
        }
    }

    function _segment(uint256 index, SegmentSpec calldata spec, address verifier) private pure returns (Segment memory) {
        if (spec.inputKind == LinkKind.None || spec.outputKind == LinkKind.None) revert LinkKindMissing(index);
        if (spec.proofBytes < 128 || spec.proofBytes > MAX_PROOF_BYTES) {
            revert ProofLengthOutOfRange(index, spec.proofBytes);
        }
        return Segment({
            verifier: verifier,
            inputKind: spec.inputKind,
            outputKind: spec.outputKind,
            proofBytes: spec.proofBytes,
            verifierCodeHash: spec.verifierCodeHash,
            verificationKeyDigest: spec.verificationKeyDigest,
            inputElements: _elements(index, spec.inputShape),
            outputElements: _elements(index, spec.outputShape)
        });
    }

    function _elements(uint256 index, uint32[] calldata shape) private pure returns (uint32) {
        if (shape.length == 0 || shape.length > MAX_DIMENSIONS) revert ShapeOutOfRange(index);
        uint256 elements = 1;
        for (uint256 i = 0; i < shape.length; ++i) {
            elements *= shape[i]; // at most 2^20 · 2^32: cannot overflow
            if (elements == 0 || elements > MAX_ELEMENTS) revert ShapeOutOfRange(index);
        }
        return uint32(elements);
    }
}
