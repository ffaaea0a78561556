// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice Tests only. Stands where a generated verifier would, and answers whatever it was made to answer.
contract VerifierMock {
    enum Answer {
        True,
        False,
        Two,
        Nothing,
        TwoWords,
        OneByte,
        Revert,
        BurnGas,
        HugeAnswer
    }

    Answer public immutable answer;
    /// Two mocks that differ here differ in their code hash, as verifiers of different circuits do.
    uint256 public immutable circuit;

    constructor(Answer answer_, uint256 circuit_) {
        (answer, circuit) = (answer_, circuit_);
    }

    function verifyProof(bytes calldata, uint256[] calldata) external view returns (bool) {
        Answer given = answer;
        if (given == Answer.Revert) revert();
        if (given == Answer.BurnGas) {
            while (true) {}
        }
        assembly ("memory-safe") {
            let free := mload(0x40)
            mstore(free, 1)
            mstore(add(free, 32), 1)
            switch given
            case 1 { mstore(free, 0) }
            case 2 { mstore(free, 2) }
            case 3 { return(free, 0) }
            case 4 { return(free, 64) }
            case 5 { return(add(free, 31), 1) }
            case 8 { return(free, 1000000) }
            default {}
            return(free, 32)
        }
    }
}
