// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {Job, Label, Member, Round} from "../interfaces/IJobs.sol";

/// @title What a finished job rests on
library Evidence {
    bytes32 internal constant EVIDENCE_TAG = keccak256("interlock.evidence.v1");

    /// @notice What stands behind a segment's output.
    function labelOf(Round storage round) internal view returns (Label) {
        if (round.settledLink == 0) return Label.None;
        if (round.proofHash != 0) return Label.Proved;
        uint256 supporters;
        for (uint256 i = 0; i < round.members.length && supporters < 2; ++i) {
            if (round.members[i].link == round.settledLink) ++supporters;
        }
        return supporters < 2 ? Label.Unproved : Label.Agreed;
    }

    /// @notice One root over the outputs of all segments, the stakes behind them and their proofs.
    function root(
        bytes32 jobId,
        Job storage job,
        mapping(uint256 segment => mapping(uint256 attempt => Round)) storage rounds
    ) internal view returns (bytes32 hash) {
        hash = keccak256(
            abi.encode(EVIDENCE_TAG, block.chainid, address(this), jobId, job.modelId, job.inputLink, job.segments)
        );
        for (uint256 i = 0; i < job.segments; ++i) {
            Round storage round = rounds[i][uint16(job.attempts >> (16 * i))];
            hash = keccak256(
                abi.encode(
                    hash,
                    i,
                    labelOf(round),
                    round.settledLink,
                    round.settledWeight,
                    round.totalWeight,
                    round.proofHash,
                    round.proofCid
                )
            );
        }
    }
}
