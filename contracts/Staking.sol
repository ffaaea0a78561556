// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";

import {IRegistry} from "./interfaces/IRegistry.sol";
import {IStaking} from "./interfaces/IStaking.sol";
import {SumTree} from "./libraries/SumTree.sol";

/// @title Staking
/// @notice See {IStaking}.
contract Staking is IStaking, ReentrancyGuard {
    using SumTree for SumTree.Tree;

    uint256 public constant MAX_MODELS_PER_OPERATOR = 16;

    /// The only contract that may slash: the one that deployed this one.
    address public immutable slasher;
    IRegistry public immutable registry;
    uint256 public immutable minimumStake;
    uint256 public immutable unbondingSeconds;

    struct Operator {
        uint208 active;
        uint208 unbonding;
        uint48 releaseAt;
        bytes32 encryptionKey;
        bytes32[] models;
    }

    /// Leaves are numbered from zero; `leafPlusOne` is zero for operators that never served the model.
    struct Membership {
        uint256 leafPlusOne;
        bool serving;
    }

    mapping(address operator => Operator) private _operators;
    mapping(bytes32 modelId => SumTree.Tree) private _trees;
    mapping(bytes32 modelId => mapping(uint256 leaf => address)) private _operatorAt;
    mapping(bytes32 modelId => mapping(address operator => Membership)) private _memberships;

    constructor(IRegistry registry_, uint256 minimumStake_, uint256 unbondingSeconds_) {
        slasher = msg.sender;
        registry = registry_;
        minimumStake = minimumStake_;
        unbondingSeconds = unbondingSeconds_;
    }

    /// @inheritdoc IStaking
    function setEncryptionKey(bytes32 encryptionKey) external {
        if (encryptionKey == 0) revert EncryptionKeyIsZero();
        _operators[msg.sender].encryptionKey = encryptionKey;
        emit EncryptionKeySet(msg.sender, encryptionKey);
    }

    /// @inheritdoc IStaking
    function bond() external payable {
        if (msg.value == 0) revert AmountIsZero();
        Operator storage operator = _operators[msg.sender];
        operator.active += uint208(msg.value);
        emit Bonded(msg.sender, msg.value, operator.active);
        _refreshWeights(msg.sender, operator);
    }

    /// @inheritdoc IStaking
    function startUnbonding(uint256 amount) external {
        if (amount == 0) revert AmountIsZero();
        Operator storage operator = _operators[msg.sender];
        if (amount > operator.active) revert InsufficientStake(msg.sender, amount, operator.active);
        operator.active -= uint208(amount);
        operator.unbonding += uint208(amount);
        operator.releaseAt = uint48(block.timestamp + unbondingSeconds);
        emit UnbondingStarted(msg.sender, amount, operator.active, operator.releaseAt);
        _refreshWeights(msg.sender, operator);
    }

    /// @inheritdoc IStaking
    function withdraw() external nonReentrant {
        Operator storage operator = _operators[msg.sender];
        uint256 amount = operator.unbonding;
        if (amount == 0) revert NothingToWithdraw(msg.sender);
        if (block.timestamp < operator.releaseAt) revert StillUnbonding(operator.releaseAt, block.timestamp);
        operator.unbonding = 0;
        emit Withdrawn(msg.sender, amount);
        _send(msg.sender, amount);
    }

    /// @inheritdoc IStaking
    function slash(address account, uint256 amount, bytes32 modelId) external returns (uint256 taken) {
        if (msg.sender != slasher) revert NotSlasher(msg.sender);
        Operator storage operator = _operators[account];
        uint256 fromActive = amount < operator.active ? amount : operator.active;
        uint256 rest = amount - fromActive;
        uint256 fromUnbonding = rest < operator.unbonding ? rest : operator.unbonding;
        operator.active -= uint208(fromActive);
        operator.unbonding -= uint208(fromUnbonding);
        taken = fromActive + fromUnbonding;
        emit Slashed(account, taken, operator.active, operator.unbonding);
        Membership storage membership = _memberships[modelId][account];
        if (membership.serving) _setWeight(modelId, account, membership.leafPlusOne - 1, operator.active);
        // Nobody gains by it, or whoever can bring a fault about could take stake, or get its own out early.
        if (taken != 0) _send(address(0), taken);
    }

    /// @inheritdoc IStaking
    function refreshWeights(address account) external {
        _refreshWeights(account, _operators[account]);
    }

    /// @inheritdoc IStaking
    function serve(bytes32 modelId) external {
        if (!registry.isRegistered(modelId)) revert UnknownModel(modelId);
        Operator storage operator = _operators[msg.sender];
        if (operator.encryptionKey == 0) revert EncryptionKeyMissing(msg.sender);
        if (operator.active < minimumStake) revert InsufficientStake(msg.sender, minimumStake, operator.active);
        if (operator.models.length == MAX_MODELS_PER_OPERATOR) {
            revert TooManyModels(msg.sender, MAX_MODELS_PER_OPERATOR);
        }
        Membership storage membership = _memberships[modelId][msg.sender];
        if (membership.serving) revert AlreadyServing(msg.sender, modelId);

        membership.serving = true;
        operator.models.push(modelId);
        if (membership.leafPlusOne == 0) {
            uint256 added = _trees[modelId].addLeaf();
            membership.leafPlusOne = added + 1;
            _operatorAt[modelId][added] = msg.sender;
        }
        uint256 leaf = membership.leafPlusOne - 1;
        emit ServingStarted(modelId, msg.sender, leaf);
        _setWeight(modelId, msg.sender, leaf, operator.active);
    }

    /// @inheritdoc IStaking
    function stopServing(bytes32 modelId) external {
        Membership storage membership = _memberships[modelId][msg.sender];
        if (!membership.serving) revert NotServing(msg.sender, modelId);
        membership.serving = false;
        bytes32[] storage models = _operators[msg.sender].models;
        for (uint256 i = 0; i < models.length; ++i) {
            if (models[i] == modelId) {
                models[i] = models[models.length - 1];
                models.pop();
                break;
            }
        }
        uint256 leaf = membership.leafPlusOne - 1;
        emit ServingStopped(modelId, msg.sender, leaf);
        _setWeight(modelId, msg.sender, leaf, 0);
    }

    /// @inheritdoc IStaking
    function draw(bytes32 modelId, uint48 atBlock, bytes32 seed, uint256 count, address[] calldata excluded)
        external
        view
        returns (address[] memory operators, uint256[] memory weights)
    {
        // INVARIANT: a block that is over cannot gain checkpoints, so the draw is the same whenever it is computed.
        if (atBlock >= block.number) revert BlockNotOver(atBlock, block.number);
        uint256[] memory leaves;
        (leaves, weights) = _trees[modelId].draw(atBlock, seed, count, _leavesOf(modelId, excluded));
        operators = new address[](leaves.length);
        for (uint256 i = 0; i < leaves.length; ++i) {
            operators[i] = _operatorAt[modelId][leaves[i]];
        }
    }

    /// @inheritdoc IStaking
    function activeOf(address operator) external view returns (uint256) {
        return _operators[operator].active;
    }

    /// @inheritdoc IStaking
    function unbondingOf(address operator) external view returns (uint256 amount, uint256 releaseAt) {
        return (_operators[operator].unbonding, _operators[operator].releaseAt);
    }

    /// @inheritdoc IStaking
    function encryptionKeyOf(address operator) external view returns (bytes32) {
        return _operators[operator].encryptionKey;
    }

    /// @inheritdoc IStaking
    function isServing(address operator, bytes32 modelId) external view returns (bool) {
        return _memberships[modelId][operator].serving;
    }

    /// @inheritdoc IStaking
    function operatorAt(bytes32 modelId, uint256 leaf) external view returns (address) {
        return _operatorAt[modelId][leaf];
    }

    /// @inheritdoc IStaking
    function leafCount(bytes32 modelId) external view returns (uint256) {
        return _trees[modelId].leaves;
    }

    /// @inheritdoc IStaking
    function totalWeightAt(bytes32 modelId, uint48 blockNumber) external view returns (uint256) {
        return _trees[modelId].totalAt(blockNumber);
    }

    function _refreshWeights(address account, Operator storage operator) private {
        bytes32[] storage models = operator.models;
        for (uint256 i = 0; i < models.length; ++i) {
            _setWeight(models[i], account, _memberships[models[i]][account].leafPlusOne - 1, operator.active);
        }
    }

    /// A bond below the minimum counts for nothing, so that splitting a stake into dust gains nothing either.
    function _setWeight(bytes32 modelId, address account, uint256 leaf, uint208 active) private {
        uint208 weight = active < minimumStake ? 0 : active;
        _trees[modelId].set(leaf, weight);
        emit WeightChanged(modelId, account, leaf, weight);
    }

    /// Leaves of those among the operators that ever served the model.
    function _leavesOf(bytes32 modelId, address[] calldata operators) private view returns (uint256[] memory leaves) {
        leaves = new uint256[](operators.length);
        uint256 known;
        for (uint256 i = 0; i < operators.length; ++i) {
            uint256 leafPlusOne = _memberships[modelId][operators[i]].leafPlusOne;
            if (leafPlusOne != 0) leaves[known++] = leafPlusOne - 1;
        }
        assembly ("memory-safe") {
            mstore(leaves, known)
        }
    }

    function _send(address recipient, uint256 amount) private {
        (bool ok,) = recipient.call{value: amount}("");
        if (!ok) revert TransferFailed(recipient, amount);
    }
}
