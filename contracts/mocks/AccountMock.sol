// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice Tests only. An account with code: it calls whatever it is told to, and takes ether in one of several manners.
contract AccountMock {
    enum Manner {
        Accept,
        Refuse,
        Reenter
    }

    Manner public manner;
    bytes public again;
    /// What re-entering was answered with.
    bool public reentered;
    bytes public answer;

    function setManner(Manner manner_, bytes calldata again_) external {
        (manner, again) = (manner_, again_);
    }

    /// @notice Calls `target` as this account, and hands on what it reverts with.
    function execute(address target, bytes calldata data) external payable returns (bytes memory returned) {
        bool ok;
        (ok, returned) = target.call{value: msg.value}(data);
        if (!ok) {
            assembly ("memory-safe") {
                revert(add(returned, 32), mload(returned))
            }
        }
    }

    receive() external payable {
        if (manner == Manner.Refuse) revert("refused");
        if (manner == Manner.Reenter) (reentered, answer) = msg.sender.call(again);
    }
}
