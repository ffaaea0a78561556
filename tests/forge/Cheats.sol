// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @notice The few of forge's cheat codes that are used here; the published forge-std package does not work.
interface Vm {
    struct Log {
        bytes32[] topics;
        bytes data;
        address emitter;
    }

    function prank(address sender) external;
    function deal(address account, uint256 balance) external;
    function warp(uint256 timestamp) external;
    function roll(uint256 blockNumber) external;
    function recordLogs() external;
    function getRecordedLogs() external returns (Log[] memory);
    function record() external;
    function accesses(address target) external returns (bytes32[] memory reads, bytes32[] memory writes);
    function load(address target, bytes32 slot) external view returns (bytes32);
    function store(address target, bytes32 slot, bytes32 value) external;
    function addr(uint256 key) external pure returns (address);
    function sign(uint256 key, bytes32 digest) external pure returns (uint8 v, bytes32 r, bytes32 s);
}

abstract contract Cheats {
    Vm internal constant vm = Vm(address(uint160(uint256(keccak256("hevm cheat code")))));

    /// @param rule Its number in INVARIANTS.md, and its name.
    error Broken(string rule);

    /// The name is a word, not a string: it costs nothing while the rule holds.
    function check(bool holds, bytes32 rule) internal pure {
        if (holds) return;
        uint256 length;
        while (length < 32 && rule[length] != 0) ++length;
        bytes memory text = new bytes(length);
        for (uint256 i = 0; i < length; ++i) text[i] = rule[i];
        revert Broken(string(text));
    }
}
