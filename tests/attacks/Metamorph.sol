// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice Attacks only. Deploys whatever code it was told to, always at the same address: the creation code is the same
/// each time and fetches the code from here. On chains before Cancun (EIP-6780) code that destroyed itself makes room.
contract Metamorph {
    bytes public code;

    function set(bytes calldata code_) external {
        code = code_;
    }

    function make() external returns (address made) {
        // STATICCALL the creator without data, and RETURN what it returns.
        bytes memory creation = hex"5f5f5f5f335afa503d5f5f3e3d5ff3";
        assembly ("memory-safe") {
            made := create2(0, add(creation, 32), mload(creation), 0)
        }
        require(made != address(0));
    }

    fallback() external {
        bytes memory all = code;
        assembly ("memory-safe") {
            return(add(all, 32), mload(all))
        }
    }
}
