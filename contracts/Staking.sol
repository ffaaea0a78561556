// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ECDSA} from "@openzeppelin/contracts/utils/cryptography/ECDSA.sol";

import {Escrow} from "./Escrow.sol";
import {IJobs, Member} from "./interfaces/IJobs.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {Hold, IStaking} from "./interfaces/IStaking.sol";
import {IVerifier} from "./interfaces/IVerifier.sol";
import {SumTree} from "./libraries/SumTree.sol";

/// @title Staking
/// @notice See {IStaking}.
contract Staking is IStaking, Escrow {
    using SumTree for SumTree.Tree;

    uint256 public constant MAX_MODELS_PER_OPERATOR = 16;
    bytes32 public constant TRIAL_TAG = keccak256("interlock.trial.v1");
    bytes32 public constant ANSWER_TAG = keccak256("interlock.answer.v1");
    bytes32 public constant RESULT_TYPEHASH =
        keccak256("Result(bytes32 jobId,uint256 segment,uint256 attempt,bytes32 link)");
    bytes32 private constant DOMAIN_TYPEHASH =
        keccak256("EIP712Domain(string name,string version,uint256 chainId,address verifyingContract)");
    uint256 public constant MAX_REPUTATION = 10_000;
    uint256 public constant APPEAL_SECONDS = 1 days;
    uint256 private constant BPS = 10_000;

    /// The only contract that may slash: the one that deployed this one.
    address public immutable slasher;
    IRegistry public immutable registry;
    IVerifier public immutable verifier;
    uint256 public immutable minimumStake;
    uint256 public immutable unbondingSeconds;
    uint256 public immutable equivocationPenaltyBps;
    uint256 public immutable challengerShareBps;
    uint256 public immutable requesterShareBps;

    struct Operator {
        uint208 active;
        uint208 unbonding;
        uint48 releaseAt;
        bytes32 encryptionKey;
        bytes32[] models;
    }

    /// Leaves are numbered from zero; `leafPlusOne` is zero for operators that never served the model.
    /// `admitted` stays, once a trial was passed; the trial's fields are of the one that was committed to last.
    struct Membership {
        uint32 leafPlusOne;
        bool serving;
        bool admitted;
        uint16 trial;
        uint48 committedBlock;
        bytes32 commitment;
    }

    mapping(address operator => Operator) private _operators;
    mapping(bytes32 modelId => SumTree.Tree) private _trees;
    mapping(bytes32 modelId => mapping(uint256 leaf => address)) private _operatorAt;
    mapping(bytes32 modelId => mapping(address operator => Membership)) private _memberships;
    mapping(bytes32 modelId => mapping(uint256 trial => uint256 blockNumber)) private _answeredAt;
    mapping(bytes32 modelId => mapping(address operator => uint256)) private _reputations;
    mapping(bytes32 round => mapping(address operator => bool)) private _hasEquivocated;
    /// By the hash of the hold: who acts on one says what it is.
    mapping(bytes32 hold => bool) private _isHeld;

    /// @param challengerShareBps_, requesterShareBps_ Together at most one half, which the deployer has to see to.
    constructor(
        IRegistry registry_,
        IVerifier verifier_,
        uint256 minimumStake_,
        uint256 unbondingSeconds_,
        uint256 penaltyBps_,
        uint256 challengerShareBps_,
        uint256 requesterShareBps_
    ) {
        slasher = msg.sender;
        registry = registry_;
        verifier = verifier_;
        minimumStake = minimumStake_;
        unbondingSeconds = unbondingSeconds_;
        equivocationPenaltyBps = penaltyBps_;
        challengerShareBps = challengerShareBps_;
        requesterShareBps = requesterShareBps_;
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
        taken = _take(account, amount, modelId);
        _setReputation(account, modelId, _reputations[modelId][account] / 2);
        _burn(taken);
    }

    /// @inheritdoc IStaking
    function hold(Hold memory held) external returns (uint256 taken) {
        if (msg.sender != slasher) revert NotSlasher(msg.sender);
        taken = _take(held.operator, held.amount, held.modelId);
        held.amount = taken;
        held.reputation = _reputations[held.modelId][held.operator];
        held.releaseAt = block.timestamp + APPEAL_SECONDS;
        _setReputation(held.operator, held.modelId, 0);
        _isHeld[keccak256(abi.encode(held))] = true;
        emit SlashHeld(held.jobId, held.segment, held.operator, held);
    }

    /// @inheritdoc IStaking
    function appeal(Hold calldata held, bytes calldata proof, uint256[] calldata instances) external {
        _closeHold(held);
        if (block.timestamp >= held.releaseAt) revert AppealOver(held.releaseAt, block.timestamp);
        // Interaction: a static call, which can change nothing.
        (bytes32 linkIn, bytes32 linkOut) = verifier.verifySegment(held.modelId, held.segment, proof, instances);
        if (linkIn != held.opening) revert IJobs.OpeningLinkMismatch(held.segment, held.opening, linkIn);
        if (linkOut != held.link) revert IJobs.ClosingLinkMismatch(held.segment, held.link, linkOut);

        Operator storage operator = _operators[held.operator];
        operator.active += uint208(held.amount);
        emit SlashAppealed(held.jobId, held.segment, held.operator, held.attempt, held.amount, operator.active);
        uint256 reputation = _reputations[held.modelId][held.operator] + held.reputation;
        _setReputation(held.operator, held.modelId, reputation < MAX_REPUTATION ? reputation : MAX_REPUTATION);
        _followBond(held.operator, operator, held.modelId);
    }

    /// @inheritdoc IStaking
    function release(Hold calldata held) external nonReentrant {
        _closeHold(held);
        if (block.timestamp < held.releaseAt) revert StillHeld(held.releaseAt, block.timestamp);
        uint256 forChallenger;
        uint256 forRequester;
        if (held.challenger != address(0)) {
            // INVARIANT: at least half is burnt, or whoever can bring a fault about could get its own stake out early.
            forChallenger = held.amount * challengerShareBps / BPS;
            forRequester = held.amount * requesterShareBps / BPS;
            _credit(held.challenger, forChallenger);
            _credit(IJobs(slasher).jobOf(held.jobId).requester, forRequester);
        }
        emit SlashReleased(held.jobId, held.segment, held.operator, held.attempt, forChallenger, forRequester);
        _burn(held.amount - forChallenger - forRequester);
    }

    /// @inheritdoc IStaking
    function commend(address operator, bytes32 modelId) external {
        if (msg.sender != slasher) revert NotSlasher(msg.sender);
        uint256 reputation = _reputations[modelId][operator];
        if (reputation < MAX_REPUTATION) _setReputation(operator, modelId, reputation + 1);
    }

    /// @inheritdoc IStaking
    function reportEquivocation(
        bytes32 jobId,
        uint256 segment,
        uint256 attempt,
        address account,
        bytes32[2] calldata links,
        bytes[2] calldata signatures
    ) external {
        if (links[0] == links[1]) revert NoEquivocation(jobId, segment, account);
        Member memory member = _memberOf(jobId, segment, attempt, account);
        for (uint256 i = 0; i < 2; ++i) {
            // What a member revealed bears the signature of its transaction.
            if (i == 1 && signatures[1].length == 0 && member.link == links[1] && links[1] != 0) continue;
            address signer = ECDSA.recover(resultDigestOf(jobId, segment, attempt, links[i]), signatures[i]);
            if (signer != account) revert SignatureMismatch(account, signer);
        }
        bytes32 round = keccak256(abi.encode(jobId, segment, attempt));
        if (_hasEquivocated[round][account]) revert AlreadyPenalised(jobId, segment, account);
        _hasEquivocated[round][account] = true;
        bytes32 modelId = IJobs(slasher).jobOf(jobId).modelId;
        uint256 taken = _take(account, member.weight * equivocationPenaltyBps / BPS, modelId);
        _setReputation(account, modelId, 0);
        emit EquivocationPenalised(jobId, segment, account, attempt, taken);
        _burn(taken);
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
        if (registry.trialCount(modelId) == 0) membership.admitted = true;
        operator.models.push(modelId);
        if (membership.leafPlusOne == 0) {
            uint256 added = _trees[modelId].addLeaf();
            membership.leafPlusOne = uint32(added + 1);
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
    function commitTrial(bytes32 modelId, uint256 trial, bytes32 commitment) external {
        Membership storage membership = _requireCandidate(modelId);
        registry.trialOf(modelId, trial);
        uint256 answeredAt = _answeredAt[modelId][trial];
        if (answeredAt != 0) revert TrialAnswered(modelId, trial, answeredAt);
        membership.trial = uint16(trial);
        membership.committedBlock = uint48(block.number);
        membership.commitment = commitment;
        emit TrialCommitted(modelId, msg.sender, trial, commitment);
    }

    /// @inheritdoc IStaking
    function passTrial(bytes32 modelId, bytes32 answer, bytes32 salt) external {
        Membership storage membership = _requireCandidate(modelId);
        uint256 trial = membership.trial;
        bytes32 actual = trialCommitmentOf(modelId, trial, msg.sender, answer, salt);
        if (membership.commitment != actual) revert TrialCommitmentMismatch(membership.commitment, actual);
        // An answer that was seen before it was committed to is no answer.
        uint256 answeredAt = _answeredAt[modelId][trial];
        if (membership.committedBlock >= block.number) revert BlockNotOver(membership.committedBlock, block.number);
        if (answeredAt != 0 && membership.committedBlock >= answeredAt) revert TrialAnswered(modelId, trial, answeredAt);
        bytes32 expected = registry.trialOf(modelId, trial);
        bytes32 found = keccak256(abi.encode(ANSWER_TAG, answer));
        if (found != expected) revert WrongAnswer(modelId, trial, expected, found);

        if (answeredAt == 0) _answeredAt[modelId][trial] = block.number;
        membership.admitted = true;
        emit TrialPassed(modelId, msg.sender, trial);
        _setWeight(modelId, msg.sender, membership.leafPlusOne - 1, _operators[msg.sender].active);
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
    function isAdmitted(address operator, bytes32 modelId) external view returns (bool) {
        return _memberships[modelId][operator].admitted;
    }

    /// @inheritdoc IStaking
    function isHeld(Hold calldata held) external view returns (bool) {
        return _isHeld[keccak256(abi.encode(held))];
    }

    /// @inheritdoc IStaking
    function trialAnsweredAt(bytes32 modelId, uint256 trial) external view returns (uint256) {
        return _answeredAt[modelId][trial];
    }

    /// @inheritdoc IStaking
    function trialCommitmentOf(bytes32 modelId, uint256 trial, address operator, bytes32 answer, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(
            abi.encode(TRIAL_TAG, block.chainid, address(this), modelId, trial, operator, answer, salt)
        );
    }

    /// @inheritdoc IStaking
    function reputationOf(address operator, bytes32 modelId) external view returns (uint256) {
        return _reputations[modelId][operator];
    }

    /// @inheritdoc IStaking
    function resultDigestOf(bytes32 jobId, uint256 segment, uint256 attempt, bytes32 link)
        public
        view
        returns (bytes32)
    {
        // OpenZeppelin's EIP712 needs an instruction that chains of the Shanghai fork do not have.
        bytes32 domain = keccak256(
            abi.encode(DOMAIN_TYPEHASH, keccak256("Interlock"), keccak256("1"), block.chainid, address(this))
        );
        bytes32 result = keccak256(abi.encode(RESULT_TYPEHASH, jobId, segment, attempt, link));
        return keccak256(abi.encodePacked(hex"1901", domain, result));
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

    /// Takes what there is of an amount out of a bond, active first, and has the weight in one model follow.
    function _take(address account, uint256 amount, bytes32 modelId) private returns (uint256 taken) {
        Operator storage operator = _operators[account];
        uint256 fromActive = amount < operator.active ? amount : operator.active;
        uint256 rest = amount - fromActive;
        uint256 fromUnbonding = rest < operator.unbonding ? rest : operator.unbonding;
        operator.active -= uint208(fromActive);
        operator.unbonding -= uint208(fromUnbonding);
        taken = fromActive + fromUnbonding;
        emit Slashed(account, taken, operator.active, operator.unbonding);
        _followBond(account, operator, modelId);
    }

    function _followBond(address account, Operator storage operator, bytes32 modelId) private {
        Membership storage membership = _memberships[modelId][account];
        if (membership.serving) _setWeight(modelId, account, membership.leafPlusOne - 1, operator.active);
    }

    /// Each hold ends once.
    function _closeHold(Hold calldata held) private {
        bytes32 id = keccak256(abi.encode(held));
        if (!_isHeld[id]) revert NotHeld(held.jobId, held.segment, held.operator);
        delete _isHeld[id];
    }

    function _setReputation(address operator, bytes32 modelId, uint256 reputation) private {
        if (_reputations[modelId][operator] == reputation) return;
        _reputations[modelId][operator] = reputation;
        emit ReputationChanged(modelId, operator, reputation);
    }

    function _memberOf(bytes32 jobId, uint256 segment, uint256 attempt, address account)
        private
        view
        returns (Member memory)
    {
        Member[] memory members = IJobs(slasher).roundAt(jobId, segment, attempt).members;
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].operator == account) return members[i];
        }
        revert IJobs.NotMember(jobId, segment, account);
    }

    function _refreshWeights(address account, Operator storage operator) private {
        bytes32[] storage models = operator.models;
        for (uint256 i = 0; i < models.length; ++i) {
            _setWeight(models[i], account, _memberships[models[i]][account].leafPlusOne - 1, operator.active);
        }
    }

    function _requireCandidate(bytes32 modelId) private view returns (Membership storage membership) {
        membership = _memberships[modelId][msg.sender];
        if (!membership.serving) revert NotServing(msg.sender, modelId);
        if (membership.admitted) revert AlreadyAdmitted(msg.sender, modelId);
    }

    /// A bond below the minimum counts for nothing, so that splitting a stake into dust gains nothing either; nor does one
    /// whose operator has still to pass its trial.
    function _setWeight(bytes32 modelId, address account, uint256 leaf, uint208 active) private {
        uint208 weight = active < minimumStake || !_memberships[modelId][account].admitted ? 0 : active;
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

    function _burn(uint256 amount) private {
        if (amount != 0) _send(address(0), amount);
    }

    function _send(address recipient, uint256 amount) private {
        (bool ok,) = recipient.call{value: amount}("");
        if (!ok) revert TransferFailed(recipient, amount);
    }
}
