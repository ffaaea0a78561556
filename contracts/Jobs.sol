// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Escrow} from "./Escrow.sol";
import {Staking} from "./Staking.sol";
import {IJobs, Job, Label, Member, Phase, Policy, Reason, Request, Round} from "./interfaces/IJobs.sol";
import {IRegistry} from "./interfaces/IRegistry.sol";
import {IVerifier} from "./interfaces/IVerifier.sol";
import {Evidence} from "./libraries/Evidence.sol";
import {Policies} from "./libraries/Policies.sol";
import {Tally} from "./libraries/Tally.sol";

/// @notice What is fixed when the contracts are deployed, for ever: there is no administrator.
/// @param minimumStakeWei, unbondingSeconds See {IStaking}.
/// @param minimumFeeWei The least fee of a job.
/// @param minimumWindowSeconds The least length of each of a job's windows: what every operator must be able to keep.
/// @param missPenaltyBps Share of its drawn stake that a silent member loses.
/// @param contradictionPenaltyBps Share of its drawn stake that a member loses whose output a proof contradicts.
/// @param proverShareBps Share of a proved segment's fee that goes to the prover; the rest goes to the voters.
struct Parameters {
    uint256 minimumStakeWei;
    uint256 unbondingSeconds;
    uint256 minimumFeeWei;
    uint256 minimumWindowSeconds;
    uint256 missPenaltyBps;
    uint256 contradictionPenaltyBps;
    uint256 proverShareBps;
}

/// @title Jobs
/// @notice See {IJobs}.
contract Jobs is IJobs, Escrow {
    bytes32 public constant JOB_TAG = keccak256("interlock.job.v1");
    bytes32 public constant COMMIT_TAG = keccak256("interlock.commit.v1");
    bytes32 public constant SEED_TAG = keccak256("interlock.seed.v1");
    bytes32 public constant SAMPLE_TAG = keccak256("interlock.sample.v1");
    bytes32 public constant PROVER_TAG = keccak256("interlock.prover.v1");
    uint256 private constant BPS = 10_000;

    IRegistry public immutable registry;
    IVerifier public immutable verifier;
    /// Deployed by this contract, so that no other can ever be its slasher.
    Staking public immutable staking;
    uint256 public immutable minimumFeeWei;
    uint256 public immutable minimumWindowSeconds;
    uint256 public immutable missPenaltyBps;
    uint256 public immutable contradictionPenaltyBps;
    uint256 public immutable proverShareBps;

    mapping(bytes32 jobId => Job) private _jobs;
    mapping(bytes32 jobId => mapping(uint256 segment => Round)) private _rounds;

    constructor(IRegistry registry_, IVerifier verifier_, Parameters memory parameters) {
        // INVARIANT: stake that is on its way out can still be slashed for any job that it was drawn for.
        if (parameters.unbondingSeconds < Policies.LONGEST_JOB_SECONDS) {
            revert UnbondingTooShort(parameters.unbondingSeconds, Policies.LONGEST_JOB_SECONDS);
        }
        if (parameters.minimumWindowSeconds == 0) revert WindowOutOfRange(0, 1, Policies.MAX_WINDOW_SECONDS);
        _requireShare(parameters.missPenaltyBps);
        _requireShare(parameters.contradictionPenaltyBps);
        _requireShare(parameters.proverShareBps);
        registry = registry_;
        verifier = verifier_;
        staking = new Staking(registry_, parameters.minimumStakeWei, parameters.unbondingSeconds);
        minimumFeeWei = parameters.minimumFeeWei;
        minimumWindowSeconds = parameters.minimumWindowSeconds;
        missPenaltyBps = parameters.missPenaltyBps;
        contradictionPenaltyBps = parameters.contradictionPenaltyBps;
        proverShareBps = parameters.proverShareBps;
    }

    /// @inheritdoc IJobs
    function request(Request calldata what) external payable returns (bytes32 jobId) {
        uint256 segments = registry.segmentCount(what.modelId);
        if (segments == 0) revert UnknownModel(what.modelId);
        if (msg.value < minimumFeeWei) revert FeeTooLow(minimumFeeWei, msg.value);
        if (what.inputLink == 0) revert ValueIsZero("inputLink");
        if (what.resultKey == 0) revert ValueIsZero("resultKey");
        Policies.validate(what.policy, segments, minimumWindowSeconds);
        jobId = jobIdOf(msg.sender, what.salt);
        Job storage job = _jobs[jobId];
        if (job.phase != Phase.None) revert JobAlreadyRequested(jobId);

        job.requester = msg.sender;
        job.segments = uint8(segments);
        job.modelId = what.modelId;
        job.inputLink = what.inputLink;
        job.resultKey = what.resultKey;
        job.feeWei = msg.value;
        job.policy = what.policy;
        // INVARIANT: membership is frozen before any seed of this job exists.
        job.frozenBlock = uint48(block.number - 1);
        emit JobRequested(
            jobId, msg.sender, what.modelId, what.inputLink, what.resultKey, msg.value, job.frozenBlock, what.policy
        );
        _enter(job, Phase.Requested, what.policy.inputSeconds);
        _setSeedBlock(jobId, job);
    }

    /// @inheritdoc IJobs
    function draw(bytes32 jobId) external {
        Job storage job = _jobs[jobId];
        Phase phase = _phase(job);
        if (phase != Phase.Requested && phase != Phase.Drawing && phase != Phase.Sampling) {
            revert WrongPhase(jobId, phase);
        }
        // A commit phase that lapsed left no seed block behind: the first call after it fixes one.
        if (job.phase == Phase.Committing) {
            _enter(job, Phase.Drawing, job.policy.revealSeconds);
            return _setSeedBlock(jobId, job);
        }
        if (block.number <= job.seedBlock) revert SeedNotReady(job.seedBlock, block.number);
        bytes32 entropy = blockhash(job.seedBlock);
        if (entropy == 0) return _setSeedBlock(jobId, job);
        job.seedBlock = 0;

        if (phase == Phase.Sampling) return _drawProofs(jobId, job, entropy);
        if (phase == Phase.Requested) {
            _drawCommittee(jobId, job, 0, entropy);
            _enter(job, Phase.AwaitingInput, job.policy.inputSeconds);
        } else {
            _drawCommittee(jobId, job, job.segment + 1, entropy);
            _enter(job, Phase.Revealing, job.policy.revealSeconds);
        }
    }

    /// @inheritdoc IJobs
    function provideInput(bytes32 jobId, bytes32 inputCid) external {
        Job storage job = _requirePhase(jobId, Phase.AwaitingInput);
        if (msg.sender != job.requester) revert NotRequester(jobId, msg.sender);
        if (inputCid == 0) revert ValueIsZero("inputCid");
        job.inputCid = inputCid;
        emit InputProvided(jobId, inputCid);
        _enter(job, Phase.Committing, job.policy.commitSeconds);
    }

    /// @inheritdoc IJobs
    function commit(bytes32 jobId, bytes32 commitment) external {
        Job storage job = _requirePhase(jobId, Phase.Committing);
        if (commitment == 0) revert ValueIsZero("commitment");
        uint256 segment = job.segment;
        Round storage round = _rounds[jobId][segment];
        Member storage member = _memberOf(round, jobId, segment);
        if (member.commitment != 0) revert AlreadyCommitted(jobId, segment, msg.sender);
        member.commitment = commitment;
        emit Committed(jobId, segment, msg.sender, commitment);

        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].commitment == 0) return;
        }
        if (_isLast(job)) {
            _enter(job, Phase.Revealing, job.policy.revealSeconds);
        } else {
            _enter(job, Phase.Drawing, job.policy.revealSeconds);
            _setSeedBlock(jobId, job);
        }
    }

    /// @inheritdoc IJobs
    function reveal(bytes32 jobId, bytes32 link, bytes32 salt, bytes32 activationCid) external {
        Job storage job = _requirePhase(jobId, Phase.Revealing);
        if (link == 0) revert ValueIsZero("link");
        if (activationCid == 0) revert ValueIsZero("activationCid");
        uint256 segment = job.segment;
        Round storage round = _rounds[jobId][segment];
        Member storage member = _memberOf(round, jobId, segment);
        if (member.link != 0) revert AlreadyRevealed(jobId, segment, msg.sender);
        bytes32 actual = commitmentOf(jobId, segment, msg.sender, link, salt);
        if (member.commitment != actual) revert CommitmentMismatch(member.commitment, actual);
        // A last commit phase that lapsed turns into revealing by time alone; from here on it is stored.
        if (job.phase == Phase.Committing) {
            job.phase = Phase.Revealing;
            job.deadline += uint48(job.policy.revealSeconds);
        }
        member.link = link;
        member.activationCid = activationCid;
        emit Revealed(jobId, segment, msg.sender, link, activationCid);

        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].commitment != 0 && round.members[i].link == 0) return;
        }
        _settle(jobId, job, round);
    }

    /// @inheritdoc IJobs
    function settle(bytes32 jobId) external {
        Job storage job = _requirePhase(jobId, Phase.Settling);
        _settle(jobId, job, _rounds[jobId][job.segment]);
    }

    /// @inheritdoc IJobs
    function prove(
        bytes32 jobId,
        uint256 segment,
        bytes calldata proof,
        uint256[] calldata instances,
        bytes32 proofCid
    ) external {
        Job storage job = _requirePhase(jobId, Phase.Proving);
        Round storage round = _rounds[jobId][segment];
        if (round.prover == address(0)) revert ProofNotDue(jobId, segment);
        if (round.proofHash != 0) revert AlreadyProved(jobId, segment);
        _requireProver(jobId, segment, job, round);
        if (proofCid == 0) revert ValueIsZero("proofCid");

        // Interaction: a static call, which can change nothing.
        (bytes32 linkIn, bytes32 linkOut) = verifier.verifySegment(job.modelId, segment, proof, instances);
        // INVARIANT: the interlock. A valid proof counts only between the links that its neighbours stand by.
        bytes32 opening = segment == 0 ? job.inputLink : _rounds[jobId][segment - 1].settledLink;
        if (linkIn != opening) revert OpeningLinkMismatch(segment, opening, linkIn);
        if (linkOut != round.settledLink) revert ClosingLinkMismatch(segment, round.settledLink, linkOut);

        round.proofHash = keccak256(abi.encode(proof, instances));
        round.proofCid = proofCid;
        round.provedBy = msg.sender;
        emit SegmentProved(jobId, segment, msg.sender, linkIn, linkOut, round.proofHash, proofCid);
        if (--job.proofsDue == 0) _enter(job, Phase.Finalisable, 0);
        if (msg.sender != round.prover) {
            _penalise(jobId, segment, round.prover, Reason.MissedProof, missPenaltyBps);
        }
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member storage member = round.members[i];
            if (member.link == 0 || member.link == linkOut) continue;
            _penalise(jobId, segment, member.operator, Reason.ContradictedProof, contradictionPenaltyBps);
        }
    }

    /// @inheritdoc IJobs
    function finalise(bytes32 jobId) external {
        Job storage job = _requirePhase(jobId, Phase.Finalisable);
        _enter(job, Phase.Finalised, 0);
        uint256 segmentFee = job.feeWei / job.segments;
        uint256 paid;
        for (uint256 i = 0; i < job.segments; ++i) {
            paid += _pay(_rounds[jobId][i], segmentFee);
        }
        _credit(job.requester, job.feeWei - paid); // what rounding left over
        job.evidenceRoot = Evidence.root(jobId, job, _rounds[jobId]);
        emit JobFinalised(jobId, _rounds[jobId][job.segments - 1].settledLink, job.evidenceRoot);
    }

    /// @inheritdoc IJobs
    function expire(bytes32 jobId) external {
        _fail(jobId, _requirePhase(jobId, Phase.Expired), Reason.TimedOut);
    }

    /// @inheritdoc IJobs
    function phaseOf(bytes32 jobId) external view returns (Phase) {
        return _phase(_jobs[jobId]);
    }

    /// @inheritdoc IJobs
    function jobOf(bytes32 jobId) external view returns (Job memory) {
        if (_jobs[jobId].phase == Phase.None) revert UnknownJob(jobId);
        return _jobs[jobId];
    }

    /// @inheritdoc IJobs
    function roundOf(bytes32 jobId, uint256 segment) external view returns (Round memory) {
        return _rounds[jobId][segment];
    }

    /// @inheritdoc IJobs
    function labelOf(bytes32 jobId, uint256 segment) external view returns (Label) {
        return Evidence.labelOf(_rounds[jobId][segment]);
    }

    /// @inheritdoc IJobs
    function jobIdOf(address requester, bytes32 salt) public view returns (bytes32) {
        return keccak256(abi.encode(JOB_TAG, block.chainid, address(this), requester, salt));
    }

    /// @inheritdoc IJobs
    function commitmentOf(bytes32 jobId, uint256 segment, address operator, bytes32 link, bytes32 salt)
        public
        view
        returns (bytes32)
    {
        return keccak256(abi.encode(COMMIT_TAG, block.chainid, address(this), jobId, segment, operator, link, salt));
    }

    // --- phases ---------------------------------------------------------------------------------------------------------

    function _phase(Job storage job) private view returns (Phase) {
        Phase stored = job.phase;
        if (job.deadline == 0 || block.timestamp < job.deadline) return stored;
        uint256 late = (block.timestamp - job.deadline) / job.policy.revealSeconds;
        if (stored == Phase.Revealing && late == 0) return Phase.Settling;
        if (stored == Phase.Committing && late == 0) return _isLast(job) ? Phase.Revealing : Phase.Drawing;
        if (stored == Phase.Committing && late == 1 && _isLast(job)) return Phase.Settling;
        return Phase.Expired;
    }

    function _requirePhase(bytes32 jobId, Phase expected) private view returns (Job storage job) {
        job = _jobs[jobId];
        Phase actual = _phase(job);
        if (actual != expected) revert WrongPhase(jobId, actual);
    }

    /// @param window Seconds until the phase lapses; zero if it never does.
    function _enter(Job storage job, Phase phase, uint256 window) private {
        job.phase = phase;
        job.deadline = window == 0 ? 0 : uint48(block.timestamp + window);
    }

    function _setSeedBlock(bytes32 jobId, Job storage job) private {
        job.seedBlock = uint48(block.number);
        emit SeedBlockSet(jobId, job.segment, block.number);
    }

    function _isLast(Job storage job) private view returns (bool) {
        return job.segment + 1 == job.segments;
    }

    // --- draws ----------------------------------------------------------------------------------------------------------

    function _drawCommittee(bytes32 jobId, Job storage job, uint256 segment, bytes32 entropy) private {
        bytes32 seed = keccak256(abi.encode(SEED_TAG, block.chainid, address(this), jobId, segment, entropy));
        uint256 size = job.policy.committeeSize;
        (address[] memory operators, uint256[] memory weights) =
            staking.draw(job.modelId, job.frozenBlock, seed, size, _earlierMembers(jobId, segment, size));
        if (operators.length < size) {
            // Too few workers for disjoint committees: better one that has seen another segment than none.
            (operators, weights) = staking.draw(job.modelId, job.frozenBlock, seed, size, new address[](0));
        }
        if (operators.length < size) revert NotEnoughWorkers(job.modelId, size, operators.length);

        Round storage round = _rounds[jobId][segment];
        uint256 total;
        for (uint256 i = 0; i < size; ++i) {
            round.members.push(Member(operators[i], weights[i], 0, 0, 0));
            total += weights[i];
        }
        round.totalWeight = total;
        emit CommitteeDrawn(jobId, segment, seed, operators, weights);
    }

    function _earlierMembers(bytes32 jobId, uint256 segment, uint256 size)
        private
        view
        returns (address[] memory earlier)
    {
        earlier = new address[](segment * size);
        for (uint256 i = 0; i < segment; ++i) {
            for (uint256 j = 0; j < size; ++j) {
                earlier[i * size + j] = _rounds[jobId][i].members[j].operator;
            }
        }
    }

    /// Which segments must be proved, and by whom, is drawn after the last reveal: nobody knew it while choosing an answer.
    function _drawProofs(bytes32 jobId, Job storage job, bytes32 entropy) private {
        uint256 deadline = block.timestamp + job.policy.proveSeconds;
        uint8 due;
        for (uint256 i = 0; i < job.segments; ++i) {
            bytes32 sample = keccak256(abi.encode(SAMPLE_TAG, block.chainid, address(this), jobId, i, entropy));
            if (uint256(sample) % 1000 >= job.policy.proofPermille) continue;
            Round storage round = _rounds[jobId][i];
            uint256 point = uint256(keccak256(abi.encode(PROVER_TAG, sample)));
            round.prover = Tally.drawSupporter(round.members, round.settledLink, point);
            ++due;
            emit ProverDrawn(jobId, i, round.prover, deadline);
        }
        job.proofsDue = due;
        if (due == 0) _enter(job, Phase.Finalisable, 0);
        else _enter(job, Phase.Proving, 2 * uint256(job.policy.proveSeconds));
    }

    // --- settling -------------------------------------------------------------------------------------------------------

    function _settle(bytes32 jobId, Job storage job, Round storage round) private {
        uint256 segment = job.segment;
        Member[] memory members = round.members;
        (bool hasCommitted, bool hasRevealed) = Tally.participation(members);
        for (uint256 i = 0; i < members.length; ++i) {
            if (members[i].commitment == 0) {
                if (hasCommitted) _penalise(jobId, segment, members[i].operator, Reason.MissedCommit, missPenaltyBps);
            } else if (members[i].link == 0 && hasRevealed) {
                _penalise(jobId, segment, members[i].operator, Reason.MissedReveal, missPenaltyBps);
            }
        }
        (bytes32 link, uint256 weight) = Tally.leading(members);
        if (!Tally.isQuorum(weight, round.totalWeight, job.policy.quorumBps)) {
            return _fail(jobId, job, Reason.NoQuorum);
        }
        round.settledLink = link;
        round.settledWeight = weight;
        emit SegmentSettled(jobId, segment, link, weight, round.totalWeight);

        if (!_isLast(job)) {
            ++job.segment;
            _enter(job, Phase.Committing, job.policy.commitSeconds);
        } else if (job.policy.proofPermille == 0) {
            _enter(job, Phase.Finalisable, 0);
        } else {
            _enter(job, Phase.Sampling, job.policy.inputSeconds);
            _setSeedBlock(jobId, job);
        }
    }

    function _fail(bytes32 jobId, Job storage job, Reason reason) private {
        _enter(job, Phase.Failed, 0);
        _credit(job.requester, job.feeWei);
        emit JobFailed(jobId, reason, job.feeWei);
    }

    /// Burns a share of the stake that the member was drawn with.
    function _penalise(bytes32 jobId, uint256 segment, address operator, Reason reason, uint256 shareBps) private {
        uint256 amount = _weightOf(_rounds[jobId][segment], operator) * shareBps / BPS;
        uint256 taken = staking.slash(operator, amount, _jobs[jobId].modelId);
        emit OperatorPenalised(jobId, segment, operator, reason, taken);
    }

    // --- proving and paying ---------------------------------------------------------------------------------------------

    function _requireProver(bytes32 jobId, uint256 segment, Job storage job, Round storage round) private view {
        if (msg.sender == round.prover) return;
        bool isOpen = block.timestamp + job.policy.proveSeconds >= job.deadline;
        if (!isOpen || _memberOf(round, jobId, segment).link != round.settledLink) {
            revert NotProver(jobId, segment, msg.sender);
        }
    }

    /// Rounded down throughout; the requester gets the rest.
    function _pay(Round storage round, uint256 fee) private returns (uint256 paid) {
        if (round.provedBy != address(0)) {
            paid = fee * proverShareBps / BPS;
            _credit(round.provedBy, paid);
        }
        uint256 forVoters = fee - paid;
        for (uint256 i = 0; i < round.members.length; ++i) {
            Member storage member = round.members[i];
            if (member.link != round.settledLink) continue;
            uint256 share = forVoters * member.weight / round.settledWeight;
            paid += share;
            _credit(member.operator, share);
        }
    }

    function _memberOf(Round storage round, bytes32 jobId, uint256 segment) private view returns (Member storage) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].operator == msg.sender) return round.members[i];
        }
        revert NotMember(jobId, segment, msg.sender);
    }

    function _weightOf(Round storage round, address operator) private view returns (uint256) {
        for (uint256 i = 0; i < round.members.length; ++i) {
            if (round.members[i].operator == operator) return round.members[i].weight;
        }
        return 0;
    }

    function _requireShare(uint256 shareBps) private pure {
        if (shareBps > BPS) revert ShareOutOfRange(shareBps);
    }
}
