// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

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
    /// settling costs must not grow with how many models its members serve, or they could make it impossible.
    /// Requirements: the caller is the job contract. Emits {Slashed}, and {WeightChanged} if the model is still served.
    /// @return taken What was there to take.
    function slash(address operator, uint256 amount, bytes32 modelId) external returns (uint256 taken);

    /// @notice Has an operator's weight follow its active bond in the draws of every model that it serves. Anyone may call
    /// it; bonding and unbonding do so too. Emits {WeightChanged} per model served.
    function refreshWeights(address operator) external;

    /// @notice Enters the caller into the draws of a model.
    /// Requirements: the model is registered; the caller has set an encryption key and bonded at least `minimumStake`.
    /// Emits {ServingStarted} and {WeightChanged}.
    function serve(bytes32 modelId) external;

    /// @notice Takes the caller out of future draws of a model. Emits {ServingStopped} and {WeightChanged}.
    function stopServing(bytes32 modelId) external;

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

    /// @notice The operator at a leaf of a model's tree.
    function operatorAt(bytes32 modelId, uint256 leaf) external view returns (address);

    /// @notice How many leaves a model's tree has.
    function leafCount(bytes32 modelId) external view returns (uint256);

    /// @notice Sum of all weights of a model at the end of a past block.
    function totalWeightAt(bytes32 modelId, uint48 blockNumber) external view returns (uint256);
}
