// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice Where a job stands. Read it with {IJobs.phaseOf}: phases that time alone brings about are never stored.
/// Queued: escrowed, waiting for its turn among the jobs of its model. Requested: the first committee is to be drawn.
/// AwaitingInput: the requester is to seal the input to it. Committing, Drawing (the next committee, or another one where too
/// few committed), Revealing, Settling: one segment's round. Contested: no output has a quorum, and a proof is to decide.
/// Sampling: the provers are to be drawn. Proving: drawn proofs are due. Challengeable: only a proof can change anything.
/// Finalisable: nothing is owed but {IJobs.finalise}. Expired: only {IJobs.expire} is left.
enum Phase {
    None,
    Queued,
    Requested,
    AwaitingInput,
    Committing,
    Drawing,
    Revealing,
    Settling,
    Contested,
    Sampling,
    Proving,
    Challengeable,
    Finalisable,
    Finalised,
    Expired,
    Failed
}

/// @notice What stands behind a segment's output. Proved: a proof. Agreed: a quorum of stake, of at least two members.
/// Unproved: one member's word. Attested is for evidence still to come.
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
    TooFewActed,
    InputUnavailable,
    BadInput,
    Cancelled,
    MissedCommit,
    MissedReveal,
    MissedProof,
    ContradictedProof,
    WithheldActivation
}

/// @notice What the requester asks for.
/// @param committeeSize Workers per segment, 1 to `MAX_COMMITTEE`.
/// @param quorumBps Share of the drawn stake that settles an output: above 5,000, at most 10,000 (basis points).
/// @param proofPermille Chance that a segment must be proved: 0 none, 1,000 all.
/// @param inputSeconds For drawing the first committee, and again for sealing the input to it.
/// @param commitSeconds, revealSeconds For each of the two halves of a round.
/// @param proveSeconds For the drawn prover alone, and again for every member that voted with it. Twice as long for a
/// contested segment.
/// @param challengeSeconds How long a proof may still overturn what is not proved, after all else is done.
struct Policy {
    uint8 committeeSize;
    uint16 quorumBps;
    uint16 proofPermille;
    uint32 inputSeconds;
    uint32 commitSeconds;
    uint32 revealSeconds;
    uint32 proveSeconds;
    uint32 challengeSeconds;
}

/// @param modelId A registered model.
/// @param inputLink Keccak-256 of the bytes of the input's commitment: what the first proof must open with.
/// @param resultKey X25519 key to which the last committee seals the result.
/// @param salt Chosen by the requester; makes the job's id, so that sending a request twice cannot make two jobs.
/// @param routeCid Digest inside the CIDv0 of the document that says why this policy was chosen; zero if there is none.
struct Request {
    bytes32 modelId;
    bytes32 inputLink;
    bytes32 resultKey;
    bytes32 salt;
    bytes32 routeCid;
    Policy policy;
}

/// @param phase As stored; {IJobs.phaseOf} derives the phase that holds now.
/// @param segment The segment under way.
/// @param proofsDue Drawn proofs still missing.
/// @param redraws How often a committee was replaced because too few of it committed.
/// @param frozenBlock All committees are drawn from the stakes as they stood at the end of this block.
/// @param seedBlock The hash of this block seeds the next draw; zero while none is due.
/// @param deadline When the stored phase lapses, in seconds since the epoch; zero where it does not.
/// @param endsAt When everything lapses that is not finalisable by then; zero while queued.
/// @param closedAt When it was finalised or failed; zero until then.
/// @param attempts The attempt at each segment that counts, 16 bits a segment, the first segment lowest. A round is one
/// attempt at one segment.
struct Job {
    address requester;
    Phase phase;
    uint8 segment;
    uint8 segments;
    uint8 proofsDue;
    uint8 redraws;
    uint48 frozenBlock;
    uint48 seedBlock;
    uint48 deadline;
    uint48 endsAt;
    uint48 closedAt;
    bytes32 modelId;
    bytes32 inputLink;
    bytes32 inputCid;
    bytes32 resultKey;
    bytes32 routeCid;
    uint256 feeWei;
    Policy policy;
    uint256 attempts;
    bytes32 evidenceRoot;
}

/// @notice A committee member's part in a round. `link` and `activationCid` are zero until it reveals; a `link` of 1 or 2 is
/// a vote ({Tally.UNAVAILABLE}, {Tally.BAD_INPUT}).
/// @param announcedBlock When it announced a proof; zero if it has not.
/// @param sealedFor The next segment's attempt whose committee its activation is sealed to.
/// @param announcement See {IJobs.announcementOf}.
struct Member {
    address operator;
    uint48 announcedBlock;
    uint16 sealedFor;
    uint256 weight;
    bytes32 commitment;
    bytes32 link;
    bytes32 activationCid;
    bytes32 announcement;
}

/// @param settledLink The output that a quorum agreed on or a proof decided; zero until then.
/// @param prover The member drawn to prove the segment; zero if no proof is due. `provedBy` may be another.
/// @param overturned Whether a proof replaced what a quorum had agreed on.
/// @param proofHash `keccak256(abi.encode(proof, instances))`; zero until proved.
struct Round {
    uint256 totalWeight;
    bytes32 settledLink;
    uint256 settledWeight;
    address prover;
    address provedBy;
    bool overturned;
    bytes32 proofHash;
    bytes32 proofCid;
    Member[] members;
}

/// @title Jobs: escrow, draw, commit, reveal, tally, prove, challenge, finalise
/// @notice One job runs one model on one input, segment after segment. Every function is open to whoever fits its
/// requirements; nobody has a special role. CIDs travel as the SHA-256 digest inside a CIDv0; amounts are wei.
interface IJobs {
    event JobRequested(
        bytes32 indexed jobId,
        address indexed requester,
        bytes32 indexed modelId,
        bytes32 inputLink,
        bytes32 resultKey,
        bytes32 routeCid,
        uint256 feeWei,
        Policy policy
    );
    /// @notice The job waits: as many jobs of its model run as may.
    event JobQueued(bytes32 indexed jobId, bytes32 indexed modelId, uint256 bucket);
    event JobStarted(bytes32 indexed jobId, uint256 frozenBlock, uint256 endsAt);
    event SeedBlockSet(bytes32 indexed jobId, uint256 segment, uint256 seedBlock);
    event CommitteeDrawn(
        bytes32 indexed jobId,
        uint256 indexed segment,
        uint256 attempt,
        bytes32 seed,
        address[] operators,
        uint256[] weights
    );
    event InputProvided(bytes32 indexed jobId, bytes32 inputCid);
    event Committed(
        bytes32 indexed jobId, uint256 indexed segment, address indexed operator, uint256 attempt, bytes32 commitment
    );
    event Revealed(
        bytes32 indexed jobId,
        uint256 indexed segment,
        address indexed operator,
        uint256 attempt,
        bytes32 link,
        bytes32 activationCid
    );
    /// @notice A supporter sealed its output to the committee that replaced another one.
    event Resealed(bytes32 indexed jobId, uint256 indexed segment, address indexed operator, bytes32 activationCid);
    /// @notice Another attempt at a segment begins: of another committee where too few had acted (to be drawn), of the same
    /// one where the input changed under its hands.
    event SegmentReopened(bytes32 indexed jobId, uint256 indexed segment, uint256 attempt, bool sameCommittee);
    event SegmentSettled(
        bytes32 indexed jobId, uint256 indexed segment, bytes32 link, uint256 stakeFor, uint256 stakeTotal
    );
    event SegmentContested(bytes32 indexed jobId, uint256 indexed segment, uint256 deadline);
    event ProverDrawn(bytes32 indexed jobId, uint256 indexed segment, address indexed prover, uint256 deadline);
    event ProofAnnounced(
        bytes32 indexed jobId, uint256 indexed segment, address indexed operator, bytes32 announcement
    );
    event SegmentProved(
        bytes32 indexed jobId,
        uint256 indexed segment,
        address indexed prover,
        bytes32 linkIn,
        bytes32 linkOut,
        bytes32 proofHash,
        bytes32 proofCid
    );
    /// @notice A proof replaced the output that a quorum had agreed on.
    event SegmentOverturned(
        bytes32 indexed jobId,
        uint256 indexed segment,
        address indexed challenger,
        bytes32 before,
        bytes32 proved,
        uint256 stakeAgainst
    );
    /// @notice A member lost stake: it is burnt, but for what a contradicted output pays to those whom it harmed.
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
    error ValueNotZero(string field);
    error WrongPhase(bytes32 jobId, Phase actual);
    error WrongRound(bytes32 jobId, uint256 segment, uint256 attempt);
    error NothingToAdmit(bytes32 modelId, uint256 running, uint256 queued);
    error NotRequester(bytes32 jobId, address caller);
    error NotMember(bytes32 jobId, uint256 segment, address caller);
    error NotProver(bytes32 jobId, uint256 segment, address caller);
    error NotSupporter(bytes32 jobId, uint256 segment, address caller);
    error AlreadyCommitted(bytes32 jobId, uint256 segment, address operator);
    error AlreadyRevealed(bytes32 jobId, uint256 segment, address operator);
    error AlreadySealed(bytes32 jobId, uint256 segment, address operator);
    error AlreadyProved(bytes32 jobId, uint256 segment);
    error ProofNotDue(bytes32 jobId, uint256 segment);
    error NothingToChallenge(bytes32 jobId, uint256 segment, address caller);
    error ProofNotAnnounced(bytes32 jobId, uint256 segment, address caller, bytes32 expected);
    error AnnouncementTooFresh(uint256 announcedBlock, uint256 current);
    error CommitmentMismatch(bytes32 expected, bytes32 actual);
    error SeedNotReady(uint256 seedBlock, uint256 current);
    error OpeningLinkMismatch(uint256 segment, bytes32 expected, bytes32 actual);
    error ClosingLinkMismatch(uint256 segment, bytes32 expected, bytes32 actual);
    error UnbondingTooShort(uint256 actualSeconds, uint256 longestJobSeconds);
    error ShareOutOfRange(uint256 actualBps);
    error CountIsZero(string field);

    /// @notice Escrows the value sent as the fee and opens a job. It starts at once if fewer jobs of its model run than may
    /// and none waits; otherwise it is queued by its fee.
    /// Requirements: a registered model, a policy within bounds, a fee of at least `minimumFeeWei`, an unused salt.
    /// Emits {JobRequested}, and {JobQueued} or {JobStarted} and {SeedBlockSet}.
    function request(Request calldata what) external payable returns (bytes32 jobId);

    /// @notice Starts the job of a model that has waited longest of those that offered most, if one more may run. Fees within
    /// a quarter of an octave of each other count as equal. Emits {JobStarted} and {SeedBlockSet}.
    function admit(bytes32 modelId) external returns (bytes32 jobId);

    /// @notice The requester takes a queued job back. Emits {JobFailed}.
    function cancel(bytes32 jobId) external;

    /// @notice Makes the draw that is due: the first committee, the next one, another one where too few committed, or the
    /// proofs. The seed is the hash of the job's seed block, and must be used within 256 blocks; after that, or when a round
    /// closed by time, this call only sets the seed block anew.
    /// Emits {CommitteeDrawn}, or {ProverDrawn} for each proof due, or {SeedBlockSet}; where too few committed
    /// {SegmentReopened}, and {OperatorPenalised} for each member that was silent where another was not. Where fewer workers
    /// had weight than a committee takes when the job started, no draw can ever be made: {JobFailed}.
    function draw(bytes32 jobId) external;

    /// @notice The requester says where the input lies, sealed to the first committee. Emits {InputProvided}.
    function provideInput(bytes32 jobId, bytes32 inputCid) external;

    /// @notice A supporter of the segment before says where its output lies, sealed to a committee that was drawn anew.
    /// Emits {Resealed}.
    function reseal(bytes32 jobId, bytes32 activationCid) external;

    /// @notice A member commits to its output; see {commitmentOf}. It names the round, which must be the one under way: what
    /// was meant for a round that a proof has overtaken must not take the place of what is due now.
    /// Emits {Committed}; the last one closes the phase.
    function commit(bytes32 jobId, uint256 segment, uint256 attempt, bytes32 commitment) external;

    /// @notice A member opens its commitment and says where its output lies, sealed to the next committee or, at the last
    /// segment, to the requester. It may vote instead that its input cannot be had (`link` 1), or that it cannot be worked
    /// on as the job asks (`link` 2); then `activationCid` must be zero. Emits {Revealed}; the last one settles the segment.
    function reveal(bytes32 jobId, bytes32 link, bytes32 salt, bytes32 activationCid) external;

    /// @notice Settles a segment whose time to reveal is over, within a further such time. Emits {SegmentSettled}, or
    /// {SegmentContested} where there is an output but no quorum for one, or {JobFailed}; and {OperatorPenalised} for each
    /// member that was silent where another was not, or that withheld its output from the next committee.
    function settle(bytes32 jobId) external;

    /// @notice A member binds itself to a proof before anybody can see it; see {announcementOf}. The last one counts.
    /// Emits {ProofAnnounced}.
    function announce(bytes32 jobId, uint256 segment, bytes32 announcement) external;

    /// @notice Proves a segment that was drawn for it.
    /// Requirements: the proof verifies; it opens with the link that the segment before it settled on (the job's input for
    /// the first) and closes with the link that this segment settled on (the recorded result for the last); the caller is
    /// the drawn prover or, once its time is over, a member that voted for that output and announced this proof in an
    /// earlier block.
    /// Emits {SegmentProved}, and {OperatorPenalised} for members that revealed another output, or a late prover.
    function prove(
        bytes32 jobId,
        uint256 segment,
        bytes calldata proof,
        uint256[] calldata instances,
        bytes32 proofCid
    ) external;

    /// @notice Decides a contested segment, or overturns a settled one, whatever the stake against it.
    /// Requirements: the job is open, and the segment contested, or settled and not proved; the caller revealed another
    /// output than the settled one, and announced this proof in an earlier block; the proof verifies, opens with the link
    /// that the segment before it settled on, and closes with what the caller revealed.
    /// All that follows on an overturned segment is done again. Whoever revealed a third output loses stake too.
    /// Emits {SegmentProved}, {SegmentSettled} or {SegmentOverturned}, and {OperatorPenalised}.
    function challenge(
        bytes32 jobId,
        uint256 segment,
        bytes calldata proof,
        uint256[] calldata instances,
        bytes32 proofCid
    ) external;

    /// @notice Pays everybody, by credit, and closes the job. Emits {JobFinalised}.
    function finalise(bytes32 jobId) external;

    /// @notice Closes a job that ran out of time. The fee goes back, but for what a requester pays that did not seal its
    /// input in time, or sealed a bad one; a drawn prover that stayed silent pays. Emits {JobFailed}.
    function expire(bytes32 jobId) external;

    /// @notice The phase that holds now.
    function phaseOf(bytes32 jobId) external view returns (Phase);

    /// @notice The job as stored. Reverts with {UnknownJob}.
    function jobOf(bytes32 jobId) external view returns (Job memory);

    /// @notice The attempt at a segment that counts. Empty until its committee is drawn.
    function roundOf(bytes32 jobId, uint256 segment) external view returns (Round memory);

    /// @notice Any attempt at a segment; attempts are numbered from zero.
    function roundAt(bytes32 jobId, uint256 segment, uint256 attempt) external view returns (Round memory);

    /// @notice What stands behind a segment's output.
    function labelOf(bytes32 jobId, uint256 segment) external view returns (Label);

    /// @notice How many jobs of a model run, and how many entries its queue has (cancelled ones included).
    function loadOf(bytes32 modelId) external view returns (uint256 running, uint256 queued);

    /// @notice `keccak256(abi.encode(JOB_TAG, chainid, this, requester, salt))`.
    function jobIdOf(address requester, bytes32 salt) external view returns (bytes32);

    /// @notice `keccak256(abi.encode(COMMIT_TAG, chainid, this, jobId, segment, attempt, operator, link, salt))`. The
    /// operator is inside, so that a copied commitment cannot be revealed by whoever copied it.
    function commitmentOf(
        bytes32 jobId,
        uint256 segment,
        uint256 attempt,
        address operator,
        bytes32 link,
        bytes32 salt
    ) external view returns (bytes32);

    /// @notice `keccak256(abi.encode(PROOF_TAG, chainid, this, jobId, segment, attempt, operator, proofHash))`. Whoever
    /// copies a proof out of a pending transaction has not announced it.
    function announcementOf(bytes32 jobId, uint256 segment, uint256 attempt, address operator, bytes32 proofHash)
        external
        view
        returns (bytes32);
}
