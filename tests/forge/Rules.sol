// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Jobs} from "../../contracts/Jobs.sol";
import {Staking} from "../../contracts/Staking.sol";
import {IJobs, Job, Label, Member, Phase, Round} from "../../contracts/interfaces/IJobs.sol";
import {Cheats} from "./Cheats.sol";
import {Handler} from "./Handler.sol";
import {Ledger} from "./Ledger.sol";

/// @notice Everything that must hold whenever no call is under way; see INVARIANTS.md. Shared by the fuzzed sequences
/// and by the walk that has to reach every outcome.
abstract contract Rules is Cheats {
    uint256 internal constant MINIMUM_STAKE = 1 ether;
    uint256 internal constant MODELS = 3;
    uint256 internal constant OPERATORS = 6;
    uint256 internal constant ACTORS = 8;

    Handler internal handler;
    Jobs internal jobs;
    Staking internal staking;

    function setUp() public virtual {
        handler = new Handler();
        jobs = handler.jobs();
        staking = handler.staking();
    }

    function moneyIsWhereItBelongs() public view {
        jobsHoldOpenFeesAndCredits();
        stakingHoldsEveryBond();
        stakeIsBurntWithdrawnOrThere();
        stakeLeavesInTime();
        slashesTakeWhatIsThere();
        feesAreCreditedOnce();
    }

    /// The last of these changes weights, so it comes last.
    function drawsAreByStake() public {
        weightsAddUp();
        weightsFollowActiveBonds();
        pastTotalsStand();
        committeesAreAsDrawn();
        refreshedWeightsAreActiveBonds();
    }

    function roundsKeepTheirWord() public view {
        settledLinksHoldAQuorum();
        settledStaysSettled();
        closedStaysClosed();
        phasesOnlyAdvance();
        outputsAreTheirMembers();
        proofsCloseTheChain();
        faultsAndOnlyFaultsArePenalised();
    }

    function moves() public pure returns (bytes4[] memory selectors) {
        bytes4[18] memory all = [
            Handler.bond.selector,
            Handler.startUnbonding.selector,
            Handler.withdraw.selector,
            Handler.serve.selector,
            Handler.stopServing.selector,
            Handler.refreshWeights.selector,
            Handler.request.selector,
            Handler.draw.selector,
            Handler.provideInput.selector,
            Handler.commit.selector,
            Handler.reveal.selector,
            Handler.settle.selector,
            Handler.prove.selector,
            Handler.finalise.selector,
            Handler.expire.selector,
            Handler.claim.selector,
            Handler.play.selector,
            Handler.playOn.selector
        ];
        bytes4[4] memory others = [
            Handler.playPromptly.selector, Handler.pass.selector, Handler.forceEther.selector, Handler.trespass.selector
        ];
        selectors = new bytes4[](22);
        for (uint256 i = 0; i < 22; ++i) {
            selectors[i] = i < 18 ? all[i] : others[i - 18];
        }
    }

    // --- money ------------------------------------------------------------------------------------------------------

    function jobsHoldOpenFeesAndCredits() public view {
        uint256 owed = handler.forcedOnJobs();
        for (uint256 i = 0; i < ACTORS; ++i) {
            owed += jobs.creditOf(handler.actors(i));
        }
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            if (!_isClosed(ghost.id)) owed += ghost.feeWei;
        }
        check(address(jobs).balance == owed, "Jobs holds open fees and credits");
        check(owed == handler.feesIn() - handler.claimed() + handler.forcedOnJobs(), "fees are paid in or claimed");
    }

    function stakingHoldsEveryBond() public view {
        uint256 owed = handler.forcedOnStaking();
        for (uint256 i = 0; i < OPERATORS; ++i) {
            owed += _stakeOf(handler.actors(i));
        }
        check(address(staking).balance == owed, "Staking holds active and unbonding bonds");
    }

    function stakeIsBurntWithdrawnOrThere() public view {
        for (uint256 i = 0; i < OPERATORS; ++i) {
            address operator = handler.actors(i);
            uint256 left = handler.bonded(operator) - handler.withdrawn(operator) - handler.slashed(operator);
            check(_stakeOf(operator) == left, "bonded is staked, withdrawn or slashed");
        }
        check(address(0).balance == handler.burntBefore() + handler.burnt(), "what is slashed is burnt");
    }

    function stakeLeavesInTime() public view {
        _unbroken("no stake leaves before its time");
        _unbroken("a withdrawal pays what was unbonding");
        for (uint256 i = 0; i < OPERATORS; ++i) {
            (uint256 unbonding, uint256 releaseAt) = staking.unbondingOf(handler.actors(i));
            check(unbonding == 0 || releaseAt == handler.releaseAt(handler.actors(i)), "a delay starts again");
        }
    }

    function slashesTakeWhatIsThere() public view {
        _unbroken("a slash takes what is there");
        _unbroken("only jobs slash");
        _unbroken("a penalty is its share of the drawn stake");
    }

    function feesAreCreditedOnce() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            check(ghost.credited == (_isClosed(ghost.id) ? ghost.feeWei : 0), "a closed job credits its fee");
            if (jobs.phaseOf(ghost.id) != Phase.Failed) continue;
            check(ghost.creditedToRequester == ghost.feeWei, "a failed job's fee goes back");
        }
        _unbroken("credits come from jobs");
        _unbroken("a credit is paid once");
        check(handler.reenterer().successes() == 0, "nobody is paid while being paid");
    }

    // --- weights and draws ------------------------------------------------------------------------------------------

    /// A draw of everybody shows every weight at the end of the present block.
    function weightsAddUp() public {
        for (uint256 i = 0; i < MODELS; ++i) {
            (address[] memory operators, uint256[] memory weights) = _everybodyNow(handler.models(i));
            uint256 sum;
            for (uint256 j = 0; j < operators.length; ++j) {
                sum += weights[j];
                check(weights[j] >= MINIMUM_STAKE, "no weight is below the minimum");
                for (uint256 k = 0; k < j; ++k) {
                    check(operators[j] != operators[k], "an operator is drawn once");
                }
            }
            check(
                sum == staking.totalWeightAt(handler.models(i), uint48(block.number)),
                "a total is the sum of its leaves"
            );
        }
    }

    function weightsFollowActiveBonds() public {
        for (uint256 i = 0; i < MODELS; ++i) {
            (address[] memory operators, uint256[] memory weights) = _everybodyNow(handler.models(i));
            for (uint256 j = 0; j < OPERATORS; ++j) {
                address operator = handler.actors(j);
                uint256 weight = _weightOf(operators, weights, operator);
                uint256 active = staking.activeOf(operator);
                bool serves = staking.isServing(operator, handler.models(i));
                if (!handler.stale(i, operator)) {
                    check(weight == (serves && active >= MINIMUM_STAKE ? active : 0), "a weight is the active bond");
                } else {
                    check(serves ? weight == 0 || weight >= active : weight == 0, "only slashes leave weights behind");
                }
            }
        }
    }

    function refreshedWeightsAreActiveBonds() public {
        for (uint256 i = 0; i < OPERATORS; ++i) {
            staking.refreshWeights(handler.actors(i));
        }
        for (uint256 i = 0; i < MODELS; ++i) {
            uint256 sum;
            for (uint256 j = 0; j < OPERATORS; ++j) {
                uint256 active = staking.activeOf(handler.actors(j));
                if (active < MINIMUM_STAKE || !staking.isServing(handler.actors(j), handler.models(i))) continue;
                sum += active;
            }
            uint256 total = staking.totalWeightAt(handler.models(i), uint48(block.number));
            check(total == sum, "refreshed weights are the active bonds of those that serve");
        }
    }

    function pastTotalsStand() public view {
        Handler.PastTotal[] memory past = handler.pastTotals();
        for (uint256 i = 0; i < past.length; ++i) {
            uint256 total = staking.totalWeightAt(handler.models(past[i].model), past[i].blockNumber);
            check(total == past[i].total, "a past total never changes");
        }
    }

    function committeesAreAsDrawn() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            Job memory job = jobs.jobOf(ghost.id);
            (address[] memory all, uint256[] memory weights) =
                staking.draw(job.modelId, job.frozenBlock, 0, OPERATORS, new address[](0));
            for (uint256 j = 0; j < ghost.segments; ++j) {
                Member[] memory members = jobs.roundOf(ghost.id, j).members;
                if (members.length == 0) continue;
                check(members.length == job.policy.committeeSize, "a committee has its size");
                for (uint256 k = 0; k < members.length; ++k) {
                    uint256 frozen = _weightOf(all, weights, members[k].operator);
                    check(frozen != 0 && members[k].weight == frozen, "a member has its frozen weight");
                    for (uint256 l = 0; l < k; ++l) {
                        check(members[k].operator != members[l].operator, "members are distinct");
                    }
                    if ((j + 1) * members.length > all.length) continue;
                    check(!_isEarlier(ghost.id, j, members[k].operator), "committees are apart where they can be");
                }
            }
        }
    }

    // --- rounds and phases ------------------------------------------------------------------------------------------

    function settledLinksHoldAQuorum() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            uint256 quorumBps = jobs.jobOf(ghost.id).policy.quorumBps;
            for (uint256 j = 0; j < ghost.segments; ++j) {
                Round memory round = jobs.roundOf(ghost.id, j);
                (uint256 total, uint256 sum) = (0, 0);
                for (uint256 k = 0; k < round.members.length; ++k) {
                    total += round.members[k].weight;
                    if (round.members[k].link == round.settledLink) sum += round.members[k].weight;
                }
                check(round.totalWeight == total, "a round's weight is its members'");
                if (round.settledLink == 0) continue;
                check(sum * 10_000 >= total * quorumBps, "a settled link holds a quorum");
                check(sum == round.settledWeight, "a settled weight is its supporters'");
            }
        }
    }

    function settledStaysSettled() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            for (uint256 j = 0; j < ghost.segments; ++j) {
                bytes32 before = handler.seenAt(ghost.id, j).settledLink;
                check(jobs.roundOf(ghost.id, j).settledLink == before, "a settled link never changes");
            }
        }
        _unbroken("a settled link never changes");
        _unbroken("an accepted proof never changes");
    }

    function closedStaysClosed() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            bool finalised = jobs.phaseOf(ghost.id) == Phase.Finalised;
            check(finalised == (jobs.jobOf(ghost.id).evidenceRoot != 0), "what is finalised has evidence");
        }
        _unbroken("Finalised and Failed are terminal");
        _unbroken("a job is made once");
    }

    function phasesOnlyAdvance() public view {
        _unbroken("phases never go back");
    }

    function outputsAreTheirMembers() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            for (uint256 j = 0; j < ghost.segments; ++j) {
                Member[] memory members = jobs.roundOf(ghost.id, j).members;
                for (uint256 k = 0; k < members.length; ++k) {
                    Member memory member = members[k];
                    if (member.link == 0) continue;
                    uint256 option = handler.voteOf(ghost.id, j, member.operator);
                    check(member.link == handler.linkOf(ghost.segments, j + 1, option), "a member's output is its own");
                    bytes32 commitment = jobs.commitmentOf(ghost.id, j, member.operator, member.link, "salt");
                    check(member.commitment == commitment, "an output was committed to");
                }
            }
        }
        _unbroken("only the committed output is revealed");
        _unbroken("only members take part");
    }

    function proofsCloseTheChain() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            bytes32 opening = handler.linkOf(ghost.segments, 0, 0);
            uint256 due;
            for (uint256 j = 0; j < ghost.segments; ++j) {
                Ledger.Seen memory seen = handler.seenAt(ghost.id, j);
                Round memory round = jobs.roundOf(ghost.id, j);
                bool proved = jobs.labelOf(ghost.id, j) == Label.Proved;
                check(proved == (seen.closing != 0), "Proved takes an accepted proof");
                check(!proved || seen.opening == opening, "a proof opens with its predecessor's link");
                check(!proved || seen.closing == round.settledLink, "a proof closes with its segment's link");
                opening = round.settledLink;
                if (round.prover != address(0) && !proved) ++due;
            }
            Job memory job = jobs.jobOf(ghost.id);
            check(job.proofsDue == due, "every drawn proof is due until it is there");
            check(job.phase != Phase.Finalised || due == 0, "what is finalised has its proofs");
        }
        _unbroken("the drawn prover goes first");
        _unbroken("only those prove an output that voted for it");
        _unbroken("the proof's hash is the proof's");
    }

    function faultsAndOnlyFaultsArePenalised() public view {
        for (uint256 i = 0; i < handler.ghostCount(); ++i) {
            Ledger.Ghost memory ghost = handler.ghostAt(i);
            for (uint256 j = 0; j < ghost.segments; ++j) {
                Round memory round = jobs.roundOf(ghost.id, j);
                if (round.settledLink == 0) continue;
                for (uint256 k = 0; k < round.members.length; ++k) {
                    Member memory member = round.members[k];
                    bool fault = member.link == 0 || (round.proofHash != 0 && member.link != round.settledLink)
                        || (round.proofHash != 0
                            && round.prover == member.operator
                            && round.provedBy != member.operator);
                    uint256 penalties = handler.penalties(ghost.id, j, member.operator);
                    check(penalties == (fault ? 1 : 0), "every fault is penalised, and nothing else");
                }
            }
        }
        _unbroken("only faults are penalised");
        _unbroken("a fault is penalised once");
    }

    // --- reading ----------------------------------------------------------------------------------------------------

    function _unbroken(string memory rule) internal view {
        check(!handler.isBroken(rule), rule);
    }

    function _isClosed(bytes32 id) private view returns (bool) {
        Phase phase = jobs.phaseOf(id);
        return phase == Phase.Finalised || phase == Phase.Failed;
    }

    function _stakeOf(address operator) private view returns (uint256) {
        (uint256 unbonding,) = staking.unbondingOf(operator);
        return staking.activeOf(operator) + unbonding;
    }

    function _everybodyNow(bytes32 model) private returns (address[] memory operators, uint256[] memory weights) {
        uint48 now_ = uint48(block.number);
        vm.roll(now_ + 1);
        (operators, weights) = staking.draw(model, now_, 0, OPERATORS, new address[](0));
        vm.roll(now_);
    }

    function _weightOf(address[] memory operators, uint256[] memory weights, address operator)
        private
        pure
        returns (uint256)
    {
        for (uint256 i = 0; i < operators.length; ++i) {
            if (operators[i] == operator) return weights[i];
        }
        return 0;
    }

    function _isEarlier(bytes32 id, uint256 segment, address operator) private view returns (bool) {
        for (uint256 i = 0; i < segment; ++i) {
            Member[] memory members = jobs.roundOf(id, i).members;
            for (uint256 j = 0; j < members.length; ++j) {
                if (members[j].operator == operator) return true;
            }
        }
        return false;
    }
}
