// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Verifier adapter
/// @notice Checks a segment's proof with the segment's own registered verifier contract and reads, out of the proof that
/// was checked, the two links that it opens and closes with.
interface IVerifier {
    error ProofLengthMismatch(uint256 segment, uint256 expected, uint256 actual);
    error InstanceCountMismatch(uint256 segment, uint256 expected, uint256 actual);
    error InstanceNotInField(uint256 segment, uint256 index, uint256 value);
    error VerifierCodeChanged(uint256 segment, bytes32 expected, bytes32 actual);
    error VerifierGasTooLow(uint256 required, uint256 available);
    error ProofRejected(bytes32 modelId, uint256 segment);

    /// @notice Verifies one segment's proof.
    /// Requirements: proof and instances have the lengths that the registered segment implies; every instance is below the
    /// field modulus; the verifier still has its registered code, and answers exactly `true` within a fixed stipend.
    /// @param modelId The registered model.
    /// @param segment Index of the segment.
    /// @param proof The proof's bytes.
    /// @param instances Public instances, in the order input, output, where a boundary has them.
    /// @return linkIn Keccak-256 of the bytes of the opening commitment.
    /// @return linkOut Keccak-256 of the bytes of the closing commitment.
    function verifySegment(bytes32 modelId, uint256 segment, bytes calldata proof, uint256[] calldata instances)
        external
        view
        returns (bytes32 linkIn, bytes32 linkOut);
}

/// @notice What ezkl generates.
interface IHalo2Verifier {
    function verifyProof(bytes calldata proof, uint256[] calldata instances) external returns (bool);
}
