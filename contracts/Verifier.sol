// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {IRegistry, LinkKind, Segment} from "./interfaces/IRegistry.sol";
import {IHalo2Verifier, IVerifier} from "./interfaces/IVerifier.sol";

/// @title Verifier
/// @notice See {IVerifier}.
contract Verifier is IVerifier {
    /// Order of BN254's scalar field (EIP-196).
    uint256 public constant FIELD_MODULUS =
        21888242871839275222246405745257275088548364400416034343698204186575808495617;
    /// Some malformed proofs burn all the gas that they are given; this is all that they are given.
    uint256 public constant VERIFIER_GAS = 4_000_000;
    uint256 private constant COMMITMENT_BYTES = 64;

    IRegistry public immutable registry;

    constructor(IRegistry registry_) {
        registry = registry_;
    }

    /// @inheritdoc IVerifier
    function verifySegment(bytes32 modelId, uint256 segment, bytes calldata proof, uint256[] calldata instances)
        external
        view
        returns (bytes32 linkIn, bytes32 linkOut)
    {
        Segment memory registered = registry.segmentOf(modelId, segment);
        if (proof.length != registered.proofBytes) {
            revert ProofLengthMismatch(segment, registered.proofBytes, proof.length);
        }
        uint256 inputs = _instanceCount(registered.inputKind, registered.inputElements);
        uint256 outputs = _instanceCount(registered.outputKind, registered.outputElements);
        if (instances.length != inputs + outputs) {
            revert InstanceCountMismatch(segment, inputs + outputs, instances.length);
        }
        for (uint256 i = 0; i < instances.length; ++i) {
            if (instances[i] >= FIELD_MODULUS) revert InstanceNotInField(segment, i, instances[i]);
        }
        if (!_isValid(segment, registered, proof, instances)) revert ProofRejected(modelId, segment);

        // Commitments lead the proof in the order input, output; only a boundary of kind Kzg has one.
        uint256 outputOffset = registered.inputKind == LinkKind.Kzg ? COMMITMENT_BYTES : 0;
        linkIn = registered.inputKind == LinkKind.Kzg
            ? keccak256(proof[0:COMMITMENT_BYTES])
            : keccak256(abi.encodePacked(instances[0:inputs]));
        linkOut = registered.outputKind == LinkKind.Kzg
            ? keccak256(proof[outputOffset:outputOffset + COMMITMENT_BYTES])
            : keccak256(abi.encodePacked(instances[inputs:]));
    }

    function _instanceCount(LinkKind kind, uint256 elements) private pure returns (uint256) {
        if (kind == LinkKind.Public) return elements;
        return kind == LinkKind.Poseidon ? 1 : 0;
    }

    /// The calldata is our own encoding of typed arguments, so that no decoy or trailing byte of the caller's gets through.
    function _isValid(uint256 segment, Segment memory registered, bytes calldata proof, uint256[] calldata instances)
        private
        view
        returns (bool)
    {
        address verifier = registered.verifier;
        if (verifier.codehash != registered.verifierCodeHash) {
            revert VerifierCodeChanged(segment, registered.verifierCodeHash, verifier.codehash);
        }
        bytes memory call = abi.encodeCall(IHalo2Verifier.verifyProof, (proof, instances));
        // EIP-150 forwards at most 63/64 of what is left; without this check a caller could starve an honest proof.
        uint256 available = gasleft() - gasleft() / 64;
        if (available < VERIFIER_GAS) revert VerifierGasTooLow(VERIFIER_GAS, available);
        (bool ok, bytes memory answer) = verifier.staticcall{gas: VERIFIER_GAS}(call);
        return ok && answer.length == 32 && abi.decode(answer, (uint256)) == 1;
    }
}
