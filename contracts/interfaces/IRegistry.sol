// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice How the commitment at a segment's boundary is exposed by its proof.
/// Kzg: a 64-byte KZG commitment at the head of the proof. Poseidon: one public instance. Public: the values themselves.
enum LinkKind {
    None,
    Kzg,
    Poseidon,
    Public
}

/// @notice What a segment *is*: everything here is content, hashed into the model's id; nothing is an address.
/// @param verificationKeyDigest SHA-256 of the segment's verification key, which fixes its weights.
/// @param verifierCodeHash Keccak-256 of the runtime code of the segment's verifier contract.
/// @param inputKind, outputKind How each boundary is exposed.
/// @param inputScale, outputScale Fixed-point fractional bits at each boundary.
/// @param proofBytes The only length that a proof of this segment may have.
/// @param inputShape, outputShape Tensor dimensions at each boundary, batch dimension first.
struct SegmentSpec {
    bytes32 verificationKeyDigest;
    bytes32 verifierCodeHash;
    LinkKind inputKind;
    LinkKind outputKind;
    uint8 inputScale;
    uint8 outputScale;
    uint32 proofBytes;
    uint32[] inputShape;
    uint32[] outputShape;
}

/// @notice What the chain keeps of a registered segment.
struct Segment {
    address verifier;
    LinkKind inputKind;
    LinkKind outputKind;
    uint32 proofBytes;
    bytes32 verifierCodeHash;
    bytes32 verificationKeyDigest;
    uint32 inputElements;
    uint32 outputElements;
}

/// @title Registry of models and of the verifiers of their segments
/// @notice Models are content: nobody owns one, nobody can change one, and anyone may register one.
interface IRegistry {
    /// @notice A model became available. `manifestCid` is the SHA-256 digest inside the manifest's CIDv0.
    event ModelRegistered(
        bytes32 indexed modelId, address indexed registrant, bytes32 manifestHash, bytes32 manifestCid, uint256 segments
    );

    /// @notice Somebody who holds a model's secret key sealed it to more workers. `grantCid` is the digest inside a CIDv0.
    event AccessGranted(bytes32 indexed modelId, address indexed granter, bytes32 grantCid);

    error ModelAlreadyRegistered(bytes32 modelId);
    error UnknownModel(bytes32 modelId);
    error UnknownSegment(bytes32 modelId, uint256 segment);
    error SegmentCountOutOfRange(uint256 count, uint256 maximum);
    error VerifierCountMismatch(uint256 segments, uint256 verifiers);
    error VerifierHasNoCode(uint256 segment, address verifier);
    error VerifierCodeMismatch(uint256 segment, bytes32 expected, bytes32 actual);
    error ScaleMismatch(uint256 boundary, uint8 outputScale, uint8 inputScale);
    error ShapeMismatch(uint256 boundary);
    error LinkKindMismatch(uint256 boundary, LinkKind outputKind, LinkKind inputKind);
    error LinkKindMissing(uint256 segment);
    error LastOutputNotPublic(LinkKind actual);
    error ShapeOutOfRange(uint256 segment);
    error ProofLengthOutOfRange(uint256 segment, uint32 proofBytes);
    error TrialCountOutOfRange(uint256 count, uint256 maximum);
    error UnknownTrial(bytes32 modelId, uint256 trial);

    /// @notice Registers a model and the verifier contract of each of its segments.
    /// Requirements: 1 to `MAX_SEGMENTS` segments; every verifier has code of the hash that its spec names; at every
    /// boundary the two sides have equal scale, shape and link kind (a link compares field elements, not their meaning);
    /// the last output is public; at most `MAX_TRIALS` trials.
    /// Emits {ModelRegistered}.
    /// @param manifestHash Keccak-256 of the manifest's bytes.
    /// @param manifestCid SHA-256 digest inside the manifest's CIDv0.
    /// @param specs One per segment, in order.
    /// @param verifiers One contract per segment, in the same order.
    /// @param trials Hashes of answers that new workers have to find, `keccak256(abi.encode(ANSWER_TAG, answer))`, each for those
    /// who commit to it before it is shown; see {IStaking.passTrial}. Without any, whoever bonds may serve.
    /// @return modelId See {modelIdOf}.
    function registerModel(
        bytes32 manifestHash,
        bytes32 manifestCid,
        SegmentSpec[] calldata specs,
        address[] calldata verifiers,
        bytes32[] calldata trials
    ) external returns (bytes32 modelId);

    /// @notice Announces where the model's secret key lies, sealed to the workers that may serve it. Anyone may announce
    /// anything: a worker checks what it unseals against the public key in the manifest.
    /// Emits {AccessGranted}.
    function grantAccess(bytes32 modelId, bytes32 grantCid) external;

    /// @notice The id of a model: `keccak256(abi.encode(MODEL_TAG, manifestHash, manifestCid, specs, trials))`. It depends on
    /// content alone, so it is the same on every chain, and whoever registers somebody else's model before them does
    /// exactly what they wanted to do.
    function modelIdOf(
        bytes32 manifestHash,
        bytes32 manifestCid,
        SegmentSpec[] calldata specs,
        bytes32[] calldata trials
    ) external pure returns (bytes32);

    /// @notice Whether the model is registered.
    function isRegistered(bytes32 modelId) external view returns (bool);

    /// @notice Number of segments; zero for an unknown model.
    function segmentCount(bytes32 modelId) external view returns (uint256);

    /// @notice One segment. Reverts with {UnknownSegment} where there is none.
    function segmentOf(bytes32 modelId, uint256 index) external view returns (Segment memory);

    /// @notice How many trials a model has; zero for an unknown model.
    function trialCount(bytes32 modelId) external view returns (uint256);

    /// @notice The hash of one trial's answer. Reverts with {UnknownTrial} where there is none.
    function trialOf(bytes32 modelId, uint256 index) external view returns (bytes32);

    /// @notice The manifest's hash and the digest inside its CID. Reverts with {UnknownModel}.
    function manifestOf(bytes32 modelId) external view returns (bytes32 manifestHash, bytes32 manifestCid);
}
