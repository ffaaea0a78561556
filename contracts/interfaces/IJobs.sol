// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice Where a job stands. Read it with {IJobs.phaseOf}: phases that time alone brings about are never stored.
/// Requested: escrowed, the first committee is to be drawn. AwaitingInput: the requester is to seal the input to it.
/// Committing, Drawing (the next committee), Revealing, Settling: one segment's round. Sampling: the provers are to be drawn.
/// Proving: drawn proofs are due. Finalisable: nothing is owed but {IJobs.finalise}. Expired: only {IJobs.expire} is left.
enum Phase {
    None,
    Requested,
    AwaitingInput,
    Committing,
    Drawing,
    Revealing,
    Settling,
    Sampling,
    Proving,
    Finalisable,
    Finalised,
    Expired,
    Failed
}

/// @notice What stands behind a segment's output. Attested and Unproved are for evidence and paths still to come.
enum Label {
    None,
    Proved,
    Agreed,
    Attested,
    Unproved
}

/// @notice Why a job failed, or why an operator lost stake.
enum Reason {
    None,
    NoQuorum,
    TimedOut,
    MissedCommit,
    MissedReveal,
    MissedProof,
    ContradictedProof
}

/// @notice What the requester asks for.
/// @param committeeSize Workers per segment, 1 to `MAX_COMMITTEE`.
/// @param quorumBps Share of the drawn stake that settles an output: above 5,000, at most 10,000 (basis points).
/// @param proofPermille Chance that a segment must be proved: 0 none, 1,000 all.
/// @param inputSeconds For drawing the first committee, and again for sealing the input to it.
/// @param commitSeconds, revealSeconds For each of the two halves of a round.
/// @param proveSeconds For the drawn prover alone, and again for every member that voted with it.
struct Policy {
    uint8 committeeSize;
    uint16 quorumBps;
    uint16 proofPermille;
    uint32 inputSeconds;
    uint32 commitSeconds;
    uint32 revealSeconds;
    uint32 proveSeconds;
}

/// @param modelId A registered model.
/// @param inputLink Keccak-256 of the bytes of the input's commitment: what the first proof must open with.
/// @param resultKey X25519 key to which the last committee seals the result.
/// @param salt Chosen by the requester; makes the job's id, so that sending a request twice cannot make two jobs.
struct Request {
    bytes32 modelId;
    bytes32 inputLink;
    bytes32 resultKey;
    bytes32 salt;
    Policy policy;
}

/// @param phase As stored; {IJobs.phaseOf} derives the phase that holds now.
/// @param segment The segment under way.
/// @param proofsDue Drawn proofs still missing.
/// @param frozenBlock All committees are drawn from the stakes as they stood at the end of this block.
/// @param seedBlock The hash of this block seeds the next draw; zero while none is due.
/// @param deadline When the stored phase lapses, in seconds since the epoch; zero where it does not.
struct Job {
    address requester;
    Phase phase;
    uint8 segment;
    uint8 segments;
    uint8 proofsDue;
    uint48 frozenBlock;
    uint48 seedBlock;
    uint48 deadline;
    bytes32 modelId;
    bytes32 inputLink;
    bytes32 inputCid;
    bytes32 resultKey;
    uint256 feeWei;
    Policy policy;
    bytes32 evidenceRoot;
}

/// @notice A committee member's part in a round. `link` and `activationCid` are zero until it reveals.
struct Member {
    address operator;
    uint256 weight;
    bytes32 commitment;
    bytes32 link;
    bytes32 activationCid;
}

/// @param settledLink The output that a quorum agreed on; zero until then.
/// @param prover The member drawn to prove the segment; zero if no proof is due. `provedBy` may be another.
/// @param proofHash `keccak256(abi.encode(proof, instances))`; zero until proved.
struct Round {
    uint256 totalWeight;
    bytes32 settledLink;
    uint256 settledWeight;
    address prover;
    address provedBy;
    bytes32 proofHash;
    bytes32 proofCid;
    Member[] members;
}

/// @title Jobs: escrow, draw, commit, reveal, tally, prove, finalise
/// @notice One job runs one model on one input, segment after segment. Every function is open to whoever fits its
/// requirements; nobody has a special role. CIDs travel as the SHA-256 digest inside a CIDv0; amounts are wei.
interface IJobs {
    event JobRequested(
        bytes32 indexed jobId,
        address indexed requester,
        bytes32 indexed modelId,
        bytes32 inputLink,
        bytes32 resultKey,
        uint256 feeWei,
        uint256 frozenBlock,
        Policy policy
    );
    event SeedBlockSet(bytes32 indexed jobId, uint256 segment, uint256 seedBlock);
    event CommitteeDrawn(
        bytes32 indexed jobId, uint256 indexed segment, bytes32 seed, address[] operators, uint256[] weights
    );
    event InputProvided(bytes32 indexed jobId, bytes32 inputCid);
    event Committed(bytes32 indexed jobId, uint256 indexed segment, address indexed operator, bytes32 commitment);
    event Revealed(
        bytes32 indexed jobId,
        uint256 indexed segment,
        address indexed operator,
        bytes32 link,
        bytes32 activationCid
    );
    event SegmentSettled(
        bytes32 indexed jobId, uint256 indexed segment, bytes32 link, uint256 stakeFor, uint256 stakeTotal
    );
    event ProverDrawn(bytes32 indexed jobId, uint256 indexed segment, address indexed prover, uint256 deadline);
    event SegmentProved(
        bytes32 indexed jobId,
        uint256 indexed segment,
        address indexed prover,
        bytes32 linkIn,
        bytes32 linkOut,
        bytes32 proofHash,
        bytes32 proofCid
    );
    /// @notice A member lost stake, which is burnt: nobody gains by another's fault.
    event OperatorPenalised(
        bytes32 indexed jobId, uint256 indexed segment, address indexed operator, Reason reason, uint256 amount
    );
    event JobFinalised(bytes32 indexed jobId, bytes32 resultLink, bytes32 evidenceRoot);
    event JobFailed(bytes32 indexed jobId, Reason reason, uint256 refund);

    error UnknownModel(bytes32 modelId);
    error UnknownJob(bytes32 jobId);
    error JobAlreadyRequested(bytes32 jobId);
    error FeeTooLow(uint256 required, uint256 actual);
    error CommitteeSizeOutOfRange(uint256 actual, uint256 maximum);
    error QuorumOutOfRange(uint256 actualBps);
    error ProofRateOutOfRange(uint256 actualPermille);
    error WindowOutOfRange(uint256 actualSeconds, uint256 minimum, uint256 maximum);
    error ValueIsZero(string field);
    error WrongPhase(bytes32 jobId, Phase actual);
    error NotRequester(bytes32 jobId, address caller);
    error NotMember(bytes32 jobId, uint256 segment, address caller);
    error NotProver(bytes32 jobId, uint256 segment, address caller);
    error AlreadyCommitted(bytes32 jobId, uint256 segment, address operator);
    error AlreadyRevealed(bytes32 jobId, uint256 segment, address operator);
    error AlreadyProved(bytes32 jobId, uint256 segment);
    error ProofNotDue(bytes32 jobId, uint256 segment);
    error CommitmentMismatch(bytes32 expected, bytes32 actual);
    error SeedNotReady(uint256 seedBlock, uint256 current);
    error NotEnoughWorkers(bytes32 modelId, uint256 required, uint256 available);
    error OpeningLinkMismatch(uint256 segment, bytes32 expected, bytes32 actual);
    error ClosingLinkMismatch(uint256 segment, bytes32 expected, bytes32 actual);
    error UnbondingTooShort(uint256 actualSeconds, uint256 longestJobSeconds);
    error ShareOutOfRange(uint256 actualBps);

    /// @notice Escrows the value sent as the fee and opens a job.
    /// Requirements: a registered model, a policy within bounds, a fee of at least `minimumFeeWei`, an unused salt.
    /// Emits {JobRequested} and {SeedBlockSet}.
    function request(Request calldata what) external payable returns (bytes32 jobId);

    /// @notice Makes the draw that is due: the first committee, the next one, or the proofs. The seed is the hash of the
    /// job's seed block, and must be used within 256 blocks; after that, or when a round closed by time, this call only
    /// sets the seed block anew.
    /// Emits {CommitteeDrawn}, or {ProverDrawn} for each proof due, or {SeedBlockSet}.
    function draw(bytes32 jobId) external;

    /// @notice The requester says where the input lies, sealed to the first committee. Emits {InputProvided}.
    function provideInput(bytes32 jobId, bytes32 inputCid) external;

    /// @notice A member commits to its output; see {commitmentOf}. Emits {Committed}; the last one closes the phase.
    function commit(bytes32 jobId, bytes32 commitment) external;

    /// @notice A member opens its commitment and says where its output lies, sealed to the next committee or, at the last
    /// segment, to the requester. Emits {Revealed}; the last one settles the segment.
    function reveal(bytes32 jobId, bytes32 link, bytes32 salt, bytes32 activationCid) external;

    /// @notice Settles a segment whose time to reveal is over, within a further such time. Emits {SegmentSettled}, or
    /// {JobFailed} without a quorum, and {OperatorPenalised} for each member that was silent where another was not.
    function settle(bytes32 jobId) external;

    /// @notice Proves a segment that was drawn for it.
    /// Requirements: the proof verifies; it opens with the link that the segment before it settled on (the job's input for
    /// the first) and closes with the link that this segment settled on (the recorded result for the last); the caller is
    /// the drawn prover or, once its time is over, a member that voted for that output.
    /// Emits {SegmentProved}, and {OperatorPenalised} for members that revealed another output, or a late prover.
    function prove(
        bytes32 jobId,
        uint256 segment,
        bytes calldata proof,
        uint256[] calldata instances,
        bytes32 proofCid
    ) external;

    /// @notice Pays everybody, by credit, and closes the job. Emits {JobFinalised}.
    function finalise(bytes32 jobId) external;

    /// @notice Closes a job that ran out of time: the fee goes back to the requester, and nobody is penalised, since nobody
    /// showed that it could be done. Emits {JobFailed}.
    function expire(bytes32 jobId) external;

    /// @notice The phase that holds now.
    function phaseOf(bytes32 jobId) external view returns (Phase);

    /// @notice The job as stored. Reverts with {UnknownJob}.
    function jobOf(bytes32 jobId) external view returns (Job memory);

    /// @notice One segment's round. Empty until its committee is drawn.
    function roundOf(bytes32 jobId, uint256 segment) external view returns (Round memory);

    /// @notice What stands behind a segment's output.
    function labelOf(bytes32 jobId, uint256 segment) external view returns (Label);

    /// @notice `keccak256(abi.encode(JOB_TAG, chainid, this, requester, salt))`.
    function jobIdOf(address requester, bytes32 salt) external view returns (bytes32);

    /// @notice `keccak256(abi.encode(COMMIT_TAG, chainid, this, jobId, segment, operator, link, salt))`. The operator is
    /// inside, so that a copied commitment cannot be revealed by whoever copied it.
    function commitmentOf(bytes32 jobId, uint256 segment, address operator, bytes32 link, bytes32 salt)
        external
        view
        returns (bytes32);
}
