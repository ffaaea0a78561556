// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {ReentrancyGuard} from "@openzeppelin/contracts/utils/ReentrancyGuard.sol";

/// @title Escrow with pull payments
/// @notice Nobody is ever paid by the way: amounts are credited, and whoever they belong to claims them. So no recipient can
/// block anybody else's settlement.
abstract contract Escrow is ReentrancyGuard {
    mapping(address account => uint256) private _credits;

    event Credited(address indexed account, uint256 amount);
    event Claimed(address indexed account, uint256 amount);

    error NothingToClaim(address account);
    error ClaimFailed(address account, uint256 amount);

    /// @notice Pays the caller all that is credited to it. Emits {Claimed}.
    function claim() external nonReentrant {
        uint256 amount = _credits[msg.sender];
        if (amount == 0) revert NothingToClaim(msg.sender);
        _credits[msg.sender] = 0;
        emit Claimed(msg.sender, amount);
        (bool ok,) = msg.sender.call{value: amount}("");
        if (!ok) revert ClaimFailed(msg.sender, amount);
    }

    /// @notice What the account may claim, in wei.
    function creditOf(address account) external view returns (uint256) {
        return _credits[account];
    }

    function _credit(address account, uint256 amount) internal {
        if (amount == 0) return;
        _credits[account] += amount;
        emit Credited(account, amount);
    }
}
