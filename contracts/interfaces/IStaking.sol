// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice What a proof took of the bond of a member that had revealed another output, while that can still be proved too.
/// @param opening The link that the proof opened with, and that a proof of the member's own output has to open with.
/// @param link What the member revealed.
/// @param challenger Who is to be compensated if there is no such proof; zero if nobody is.
/// @param amount Wei.
/// @param reputation What the member's was.
/// @param releaseAt The first second in which it is too late for an appeal.
struct Hold {
    bytes32 jobId;
    bytes32 modelId;
    uint256 segment;
    uint256 attempt;
    address operator;
    bytes32 opening;
    bytes32 link;
    address challenger;
    uint256 amount;
    uint256 reputation;
    uint256 releaseAt;
}

/// @title Bonds of operators, and the draw of committees by stake
/// @notice An operator's bond is *active* (it counts in draws) or *unbonding* (it no longer counts, but can still be slashed).
/// Amounts are wei, times are seconds.
interface IStaking {
    event EncryptionKeySet(address indexed operator, bytes32 encryptionKey);
    event Bonded(address indexed operator, uint256 amount, uint256 active);
    event UnbondingStarted(address indexed operator, uint256 amount, uint256 active, uint256 releaseAt);
    event Withdrawn(address indexed operator, uint256 amount);
    event Slashed(address indexed operator, uint256 amount, uint256 active, uint256 unbonding);
    event ServingStarted(bytes32 indexed modelId, address indexed operator, uint256 leaf);
    event ServingStopped(bytes32 indexed modelId, address indexed operator, uint256 leaf);
    /// @notice The weight with which an operator counts in a model's draws changed. Replaying these rebuilds every draw.
    event WeightChanged(bytes32 indexed modelId, address indexed operator, uint256 leaf, uint256 weight);

    event TrialCommitted(bytes32 indexed modelId, address indexed operator, uint256 trial, bytes32 commitment);
    event TrialPassed(bytes32 indexed modelId, address indexed operator, uint256 trial);

    event ReputationChanged(bytes32 indexed modelId, address indexed operator, uint256 reputation);
    event EquivocationPenalised(
        bytes32 indexed jobId, uint256 indexed segment, address indexed operator, uint256 attempt, uint256 amount
    );

    /// @notice A proof took this of an operator's bond. It is given back on {appeal}, or else gone with {release}.
    event SlashHeld(bytes32 indexed jobId, uint256 indexed segment, address indexed operator, Hold hold);
    event SlashAppealed(
        bytes32 indexed jobId,
        uint256 indexed segment,
        address indexed operator,
        uint256 attempt,
        uint256 amount,
        uint256 active
    );
    event SlashReleased(
        bytes32 indexed jobId,
        uint256 indexed segment,
        address indexed operator,
        uint256 attempt,
        uint256 forChallenger,
        uint256 forRequester
    );

    error AmountIsZero();
    error InsufficientStake(address operator, uint256 required, uint256 available);
    error NotSlasher(address caller);
    error StillUnbonding(uint256 releaseAt, uint256 now_);
    error NothingToWithdraw(address operator);
    error EncryptionKeyMissing(address operator);
    error EncryptionKeyIsZero();
    error UnknownModel(bytes32 modelId);
    error AlreadyServing(address operator, bytes32 modelId);
    error NotServing(address operator, bytes32 modelId);
    error TooManyModels(address operator, uint256 maximum);
    error AlreadyAdmitted(address operator, bytes32 modelId);
    error TrialAnswered(bytes32 modelId, uint256 trial, uint256 answeredAt);
    error TrialCommitmentMismatch(bytes32 expected, bytes32 actual);
    error WrongAnswer(bytes32 modelId, uint256 trial, bytes32 expected, bytes32 actual);
    error NoEquivocation(bytes32 jobId, uint256 segment, address operator);
    error SignatureMismatch(address expected, address actual);
    error AlreadyPenalised(bytes32 jobId, uint256 segment, address operator);
    error NotHeld(bytes32 jobId, uint256 segment, address operator);
    error AppealOver(uint256 releaseAt, uint256 now_);
    error StillHeld(uint256 releaseAt, uint256 now_);
    error BlockNotOver(uint256 blockNumber, uint256 current);
    error TransferFailed(address recipient, uint256 amount);

    /// @notice Publishes the X25519 key (RFC 7748) to which activations are sealed for the caller.
    /// Emits {EncryptionKeySet}.
    function setEncryptionKey(bytes32 encryptionKey) external;

    /// @notice Adds the value sent to the caller's active bond. Emits {Bonded} and {WeightChanged} per model served.
    function bond() external payable;

    /// @notice Moves `amount` from the active bond to unbonding. A second call before the release adds to the amount and
    /// starts its delay again. Emits {UnbondingStarted} and {WeightChanged} per model served.
    function startUnbonding(uint256 amount) external;

    /// @notice Pays out what has finished unbonding. Emits {Withdrawn}.
    function withdraw() external;

    /// @notice Takes up to `amount` from an operator, active bond first, and burns it. The operator's weight
    /// follows at once in the draws of `modelId`, and in those of other models with the next {refreshWeights}: what a job's
    /// settling costs must not grow with how many models its members serve, or they could make it impossible. The operator's
    /// reputation for the model is halved.
    /// Requirements: the caller is the job contract. Emits {Slashed}, and {WeightChanged} if the model is still served.
    /// @return taken What was there to take.
    function slash(address operator, uint256 amount, bytes32 modelId) external returns (uint256 taken);

    /// @notice Takes up to `held.amount` from an operator whose output a proof contradicts, like {slash}, and holds it for
    /// `APPEAL_SECONDS`: a circuit may admit more than one output. The operator's reputation for the model is gone.
    /// Requirements: the caller is the job contract. Emits {Slashed}, {SlashHeld} with amount, reputation and releaseAt filled
    /// in, and {WeightChanged} if the model is still served.
    /// @return taken What was there to take.
    function hold(Hold memory held) external returns (uint256 taken);

    /// @notice Gives an operator back, into its active bond, what is held, and its reputation: its output is proved as well.
    /// Anyone may call it. The weight follows in the draws of the hold's model, and with {refreshWeights} in others.
    /// @param held As in {SlashHeld}.
    /// @param proof, instances A proof of the segment between `held.opening` and `held.link`.
    /// Emits {SlashAppealed}, {ReputationChanged}, and {WeightChanged} if the model is still served.
    function appeal(Hold calldata held, bytes calldata proof, uint256[] calldata instances) external;

    /// @notice Credits the challenger and the requester with their shares of what nobody proved in time, and burns the rest:
    /// one half or more, or all where there was no challenger. Anyone may call it. Emits {SlashReleased}.
    function release(Hold calldata held) external;

    /// @notice Whether it is neither given back nor released.
    function isHeld(Hold calldata held) external view returns (bool);

    /// @notice Adds one to an operator's reputation for a model, up to `MAX_REPUTATION`.
    /// Requirements: the caller is the job contract. Emits {ReputationChanged}.
    function commend(address operator, bytes32 modelId) external;

    /// @notice Penalises a member of a round, once, that signed two results for it, or one and revealed another. What it
    /// loses is burnt.
    /// @param links Two different links.
    /// @param signatures Over {resultDigestOf} of each, with `s` in the lower half of the order; the second may be empty if
    /// the member revealed that link.
    /// Emits {EquivocationPenalised} and {Slashed}.
    function reportEquivocation(
        bytes32 jobId,
        uint256 segment,
        uint256 attempt,
        address operator,
        bytes32[2] calldata links,
        bytes[2] calldata signatures
    ) external;

    /// @notice Has an operator's weight follow its active bond in the draws of every model that it serves. Anyone may call
    /// it; bonding and unbonding do so too. Emits {WeightChanged} per model served.
    function refreshWeights(address operator) external;

    /// @notice Enters the caller into the draws of a model: at once if the model has no trials or the caller has passed one
    /// before, else as a candidate without weight until it passes one.
    /// Requirements: the model is registered; the caller has set an encryption key and bonded at least `minimumStake`.
    /// Emits {ServingStarted} and {WeightChanged}.
    function serve(bytes32 modelId) external;

    /// @notice Takes the caller out of future draws of a model. Emits {ServingStopped} and {WeightChanged}.
    function stopServing(bytes32 modelId) external;

    /// @notice A candidate commits to its answer to one of the model's trials that nobody has answered; see
    /// {trialCommitmentOf}. The last one counts. Emits {TrialCommitted}.
    function commitTrial(bytes32 modelId, uint256 trial, bytes32 commitment) external;

    /// @notice A candidate shows its answer, in a later block, and gets its weight. Each answer admits those only that had
    /// committed to it before anybody showed it. Emits {TrialPassed} and {WeightChanged}.
    function passTrial(bytes32 modelId, bytes32 answer, bytes32 salt) external;

    /// @notice Draws up to `count` distinct operators in proportion to the weights at the end of block `atBlock`.
    /// Member i is found with `keccak256(abi.encode(DRAW_TAG, seed, i)) mod remaining weight`; fewer are returned where
    /// fewer have weight.
    /// @param excluded Operators to leave out.
    function draw(bytes32 modelId, uint48 atBlock, bytes32 seed, uint256 count, address[] calldata excluded)
        external
        view
        returns (address[] memory operators, uint256[] memory weights);

    /// @notice Active bond, in wei.
    function activeOf(address operator) external view returns (uint256);

    /// @notice Bond on its way out, and when it may be withdrawn.
    function unbondingOf(address operator) external view returns (uint256 amount, uint256 releaseAt);

    /// @notice The key to which activations are sealed for an operator; zero if it has set none.
    function encryptionKeyOf(address operator) external view returns (bytes32);

    /// @notice Whether the operator serves the model now.
    function isServing(address operator, bytes32 modelId) external view returns (bool);

    /// @notice Whether the operator's bond counts in the model's draws while it serves it.
    function isAdmitted(address operator, bytes32 modelId) external view returns (bool);

    /// @notice The block in which a trial's answer was first shown; zero until then.
    function trialAnsweredAt(bytes32 modelId, uint256 trial) external view returns (uint256);

    /// @notice `keccak256(abi.encode(TRIAL_TAG, chainid, this, modelId, trial, operator, answer, salt))`.
    function trialCommitmentOf(bytes32 modelId, uint256 trial, address operator, bytes32 answer, bytes32 salt)
        external
        view
        returns (bytes32);

    /// @notice The operator at a leaf of a model's tree.
    function operatorAt(bytes32 modelId, uint256 leaf) external view returns (address);

    /// @notice Settled segments of a model in which the operator stood behind the output, since its last contradiction; a
    /// miss halves it. At most `MAX_REPUTATION`.
    function reputationOf(address operator, bytes32 modelId) external view returns (uint256);

    /// @notice EIP-712 digest of `Result(bytes32 jobId,uint256 segment,uint256 attempt,bytes32 link)` in the domain
    /// `("Interlock", "1", chainid, this)`.
    function resultDigestOf(bytes32 jobId, uint256 segment, uint256 attempt, bytes32 link)
        external
        view
        returns (bytes32);

    /// @notice How many leaves a model's tree has.
    function leafCount(bytes32 modelId) external view returns (uint256);

    /// @notice Sum of all weights of a model at the end of a past block.
    function totalWeightAt(bytes32 modelId, uint48 blockNumber) external view returns (uint256);
}
