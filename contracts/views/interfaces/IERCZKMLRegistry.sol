// SPDX-License-Identifier: CC0-1.0
pragma solidity 0.8.37;

/// @title The registry of models of draft ERC-7992, "Verifiable ML Model Inference (ZKML)"
/// @notice Names and signatures of the draft as of ethereum/ERCs 4c496a2ba187040a99ec1c40b60cc95e07b80f16 (2026-01-16).
/// Left out: the error `ModelDeprecated(uint256)`, which cannot be declared beside the event of that name.
/// {VerifiedInference} says which part of it is followed.
interface IERCZKMLRegistry {
    /// @param modelHash Of weights and architecture.
    /// @param circuitHash Of the arithmetic circuit.
    /// @param vkHash Of the verifying key.
    /// @param proofSystemId First four bytes of the Keccak-256 of the proof system's name.
    /// @param uri Where more is to be read.
    struct ModelCommitment {
        bytes32 modelHash;
        bytes32 circuitHash;
        bytes32 vkHash;
        bytes4 proofSystemId;
        string uri;
    }

    event ModelRegistered(uint256 indexed modelId, address indexed owner, ModelCommitment commitment);
    event ModelUpdated(uint256 indexed modelId, ModelCommitment oldCommitment, ModelCommitment newCommitment);
    event ModelDeprecated(uint256 indexed modelId);

    error ModelNotFound(uint256 modelId);
    error NotModelOwner(uint256 modelId, address caller);

    /// @notice Registers a model.
    function registerModel(ModelCommitment calldata commitment) external returns (uint256 modelId);

    /// @notice Replaces what a model is. For its owner alone.
    function updateModel(uint256 modelId, ModelCommitment calldata newCommitment) external;

    /// @notice Takes a model out of use. For its owner alone.
    function deprecateModel(uint256 modelId) external;

    /// @notice What a model is, whether it is out of use, and whose it is.
    function getModel(uint256 modelId)
        external
        view
        returns (ModelCommitment memory commitment, bool deprecated, address owner);
}
