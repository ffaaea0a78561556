// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IERC165} from "@openzeppelin/contracts/utils/introspection/IERC165.sol";
import {Jobs} from "../Jobs.sol";
import {Job, Label, Phase} from "../interfaces/IJobs.sol";
import {IRegistry, Segment} from "../interfaces/IRegistry.sol";
import {IERCZKMLRegistry} from "./interfaces/IERCZKMLRegistry.sol";
import {IERCZKMLVerifier} from "./interfaces/IERCZKMLVerifier.sol";

/// @title Verified inference: the record of jobs, read as draft ERC-7992 wants it read
/// @notice Follows ERC-7992 as of ethereum/ERCs 4c496a2ba187040a99ec1c40b60cc95e07b80f16 (2026-01-16, status Draft), in
/// part. It stores nothing, has no administrator, and has no call but static ones.
///
/// What the terms of the draft are here:
/// - `modelId`: the model's id in {IRegistry}, as a number.
/// - `inputCommitment`: {inputCommitmentOf} the job. The job's id in it is the nonce that the draft asks for.
/// - `output`: the last segment's public output, 32 bytes an element: the ABI encoding of a `uint256[n]` of fixed
///   length.
/// - `proof`: the 32 bytes of the job's id.
///
/// Where it deviates:
/// - `proof` only *names* proofs: {IJobs.prove} and {IJobs.challenge} had them verified by the registered verifiers
///   when they were recorded. They are not verified again.
/// - Only a finalised job counts, and only if every segment is Proved. The draft knows proofs alone, so a quorum, of
///   whatever stake, is refused: it must not pass for a proof.
/// - Anyone may have one inference verified any number of times. Whoever must act on it only once has to remember the
///   `inputCommitment`.
/// - The errors {JobNotFinalised}, {SegmentNotProved}, {ModelsRegisteredElsewhere} and, for a `proof` that names no
///   job, {IJobs.UnknownJob} are not the draft's. `UnsupportedProofSystem` and `VerificationRefused_ModelDeprecated`
///   never occur.
/// - `registerModel` always reverts: what {IRegistry.registerModel} needs cannot be had from a commitment. The events
///   of models are those of {IRegistry}; this contract emits none.
/// - Nobody owns a model: the owner is address 0, `updateModel` and `deprecateModel` revert for everybody, and no model
///   is ever deprecated. That is the access control that the draft asks for, and its policy on versions: every change
///   of a model makes another id.
/// - `modelHash` is the hash of the manifest, which names weights and architecture; `circuitHash` stands for the
///   circuits by the code of their verifiers.
/// - `proofSystemId` is that of what ezkl generates. {IRegistry} does not check which proof system a verifier is of.
/// - The storage extension is left out: the record has the hash of an output, never its bytes.
/// - The draft prints no ERC-165 ids. These are computed from its functions, the optional ones included; that of the
///   registry is claimed although `registerModel` always reverts, for whoever wants to read models.
contract VerifiedInference is IERCZKMLRegistry, IERCZKMLVerifier, IERC165 {
    bytes32 public constant INPUT_TAG = keccak256("interlock.erc7992.input.v1");
    bytes4 public constant PROOF_SYSTEM = bytes4(keccak256("halo2-kzg-bn254-v1"));
    bytes16 private constant DIGITS = "0123456789abcdef";

    Jobs public immutable jobs;
    /// Of `jobs`, so that the two cannot be of different deployments.
    IRegistry public immutable models;

    error ModelsRegisteredElsewhere(address registry);
    error JobNotFinalised(bytes32 jobId, Phase actual);
    error SegmentNotProved(bytes32 jobId, uint256 segment, Label actual);

    constructor(Jobs jobs_) {
        jobs = jobs_;
        models = jobs_.registry();
    }

    /// @inheritdoc IERCZKMLVerifier
    function verifyInference(uint256 modelId, bytes32 inputCommitment, bytes calldata output, bytes calldata proof)
        external
    {
        _requireModel(modelId);
        if (proof.length != 32) revert InvalidProof();
        bytes32 jobId = bytes32(proof);
        Job memory job = jobs.jobOf(jobId);
        if (job.phase != Phase.Finalised) revert JobNotFinalised(jobId, jobs.phaseOf(jobId));
        if (job.modelId != bytes32(modelId)) revert ModelMismatch();
        if (_inputCommitment(jobId, job.inputLink) != inputCommitment) revert InputCommitmentMismatch();
        // INVARIANT: nothing less than a proof of every segment counts.
        for (uint256 i = 0; i < job.segments; ++i) {
            Label label = jobs.labelOf(jobId, i);
            if (label != Label.Proved) revert SegmentNotProved(jobId, i, label);
        }
        if (keccak256(output) != jobs.roundOf(jobId, job.segments - 1).settledLink) revert OutputMismatch();
        emit InferenceVerified(modelId, inputCommitment, output, msg.sender);
    }

    /// @notice `keccak256(abi.encode(INPUT_TAG, chainid, jobs, jobId, inputLink))`. Reverts with {IJobs.UnknownJob}.
    function inputCommitmentOf(bytes32 jobId) external view returns (bytes32) {
        return _inputCommitment(jobId, jobs.jobOf(jobId).inputLink);
    }

    /// @inheritdoc IERCZKMLRegistry
    function getModel(uint256 modelId)
        external
        view
        returns (ModelCommitment memory commitment, bool deprecated, address owner)
    {
        _requireModel(modelId);
        bytes32 id = bytes32(modelId);
        uint256 count = models.segmentCount(id);
        bytes32[] memory circuits = new bytes32[](count);
        bytes32[] memory keys = new bytes32[](count);
        for (uint256 i = 0; i < count; ++i) {
            Segment memory segment = models.segmentOf(id, i);
            circuits[i] = segment.verifierCodeHash;
            keys[i] = segment.verificationKeyDigest;
        }
        (bytes32 manifestHash, bytes32 manifestCid) = models.manifestOf(id);
        commitment = ModelCommitment({
            modelHash: manifestHash,
            circuitHash: keccak256(abi.encodePacked(circuits)),
            vkHash: keccak256(abi.encodePacked(keys)),
            proofSystemId: PROOF_SYSTEM,
            // The same block as the CIDv0's, as a CIDv1 in base 16 (01 version, 70 dag-pb, 12 SHA-256, 20 its length):
            // base 58 would take long division.
            uri: string.concat("ipfs://f01701220", _hex(manifestCid))
        });
        return (commitment, false, address(0));
    }

    /// @inheritdoc IERCZKMLVerifier
    function proofSystemOf(uint256 modelId) external view returns (bytes4) {
        _requireModel(modelId);
        return PROOF_SYSTEM;
    }

    /// @inheritdoc IERCZKMLVerifier
    function registry() external view returns (address) {
        return address(this);
    }

    /// @notice Always reverts: models are registered with {IRegistry.registerModel}.
    function registerModel(ModelCommitment calldata) external view returns (uint256) {
        revert ModelsRegisteredElsewhere(address(models));
    }

    /// @notice Always reverts: nobody owns a model.
    function updateModel(uint256 modelId, ModelCommitment calldata) external view {
        revert NotModelOwner(modelId, msg.sender);
    }

    /// @notice Always reverts: nobody owns a model.
    function deprecateModel(uint256 modelId) external view {
        revert NotModelOwner(modelId, msg.sender);
    }

    /// @inheritdoc IERC165
    function supportsInterface(bytes4 interfaceId) external pure returns (bool) {
        return interfaceId == type(IERC165).interfaceId || interfaceId == type(IERCZKMLRegistry).interfaceId
            || interfaceId == type(IERCZKMLVerifier).interfaceId;
    }

    function _requireModel(uint256 modelId) private view {
        if (!models.isRegistered(bytes32(modelId))) revert ModelNotFound(modelId);
    }

    function _inputCommitment(bytes32 jobId, bytes32 inputLink) private view returns (bytes32) {
        return keccak256(abi.encode(INPUT_TAG, block.chainid, address(jobs), jobId, inputLink));
    }

    /// The library for this needs an instruction that Shanghai has not (mcopy).
    function _hex(bytes32 value) private pure returns (string memory) {
        bytes memory digits = new bytes(64);
        for (uint256 i = 0; i < 32; ++i) {
            digits[2 * i] = DIGITS[uint8(value[i]) >> 4];
            digits[2 * i + 1] = DIGITS[uint8(value[i]) & 15];
        }
        return string(digits);
    }
}
