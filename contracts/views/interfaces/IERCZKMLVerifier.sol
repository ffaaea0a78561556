// SPDX-License-Identifier: CC0-1.0
pragma solidity 0.8.37;

/// @title The verifier of draft ERC-7992, "Verifiable ML Model Inference (ZKML)"
/// @notice Names and signatures of the draft as of ethereum/ERCs 4c496a2ba187040a99ec1c40b60cc95e07b80f16 (2026-01-16),
/// with both optional helpers. {VerifiedInference} says which part of it is followed.
interface IERCZKMLVerifier {
    event InferenceVerified(
        uint256 indexed modelId, bytes32 indexed inputCommitment, bytes output, address indexed caller
    );

    error InvalidProof();
    error ModelMismatch();
    error InputCommitmentMismatch();
    error OutputMismatch();
    error UnsupportedProofSystem(bytes4 proofSystemId);
    error VerificationRefused_ModelDeprecated(uint256 modelId);

    /// @notice Verifies an inference: reverts unless it is valid. Emits {InferenceVerified}.
    /// @param modelId The model, as its registry knows it.
    /// @param inputCommitment Commitment to the inputs.
    /// @param output ABI-encoded public outputs.
    /// @param proof The proof.
    function verifyInference(uint256 modelId, bytes32 inputCommitment, bytes calldata output, bytes calldata proof)
        external;

    /// @notice The proof system of a model's circuits.
    function proofSystemOf(uint256 modelId) external view returns (bytes4);

    /// @notice Where the models are registered.
    function registry() external view returns (address registryAddress);
}
