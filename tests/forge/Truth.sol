// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice The model of these tests: every segment turns one number into another. There is one right answer,
/// but the circuit admits, of one number in three, the next one as well.
library Truth {
    /// @notice What a segment gives for a number; below the field's modulus, and never near its end.
    function step(uint256 segment, uint256 value) internal pure returns (uint256) {
        return uint256(keccak256(abi.encode("step", segment, value))) >> 8;
    }

    /// @notice Whether two outputs can be proved: as of real circuits, whose rescaling may be rounded up or down.
    function isDoubtful(uint256 segment, uint256 value) internal pure returns (bool) {
        return step(segment, value) % 3 == 0;
    }

    /// @notice Whether the circuit has a proof that the segment turns the one number into the other.
    function admits(uint256 segment, uint256 opening, uint256 closing) internal pure returns (bool) {
        uint256 right = step(segment, opening);
        return closing == right || (closing == right + 1 && isDoubtful(segment, opening));
    }

    /// @notice The 64 bytes that commit to a number at a boundary between segments.
    function commitment(uint256 value) internal pure returns (bytes memory) {
        return abi.encode(value, keccak256(abi.encode("blinding", value)));
    }

    /// @notice The link at the end of a segment: of the commitment or, behind the last segment, of the number itself.
    function linkOf(uint256 value, bool isResult) internal pure returns (bytes32) {
        return isResult ? keccak256(abi.encodePacked(value)) : keccak256(commitment(value));
    }
}

/// @notice Stands where a generated verifier would. It accepts what the circuit admits, and nothing else: a segment's
/// proof is its opening commitment, its closing one (or the result among the instances), and padding.
contract TruthVerifier {
    uint256 private immutable SEGMENT;
    bool private immutable IS_LAST;

    constructor(uint256 segment, bool isLast) {
        (SEGMENT, IS_LAST) = (segment, isLast);
    }

    function verifyProof(bytes calldata proof, uint256[] calldata instances) external view returns (bool) {
        uint256 opening = uint256(bytes32(proof[0:32]));
        if (keccak256(proof[0:64]) != Truth.linkOf(opening, false)) return false;
        uint256 closing = IS_LAST ? instances[0] : uint256(bytes32(proof[64:96]));
        if (!IS_LAST && keccak256(proof[64:128]) != Truth.linkOf(closing, false)) return false;
        return Truth.admits(SEGMENT, opening, closing);
    }
}
