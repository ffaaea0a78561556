// SPDX-License-Identifier: CC0-1.0
pragma solidity 0.8.37;

/// @title The validation registry of draft ERC-8004, "Trustless Agents"
/// @notice Signatures of the draft as of ethereum/ERCs 503591a6e80e6e1affdd6403341e25269141f046 (2026-01-25), but for
/// `initialize`. The name is ours: the draft lists functions and names no interface.
/// {ValidationRegistry} says which part of it is followed.
interface IValidationRegistry {
    event ValidationRequest(
        address indexed validatorAddress, uint256 indexed agentId, string requestURI, bytes32 indexed requestHash
    );
    event ValidationResponse(
        address indexed validatorAddress,
        uint256 indexed agentId,
        bytes32 indexed requestHash,
        uint8 response,
        string responseURI,
        bytes32 responseHash,
        string tag
    );

    /// @notice Asks a validator to validate an agent's work. For the agent's owner or operator alone.
    function validationRequest(
        address validatorAddress,
        uint256 agentId,
        string calldata requestURI,
        bytes32 requestHash
    ) external;

    /// @notice Answers a request. For the validator that was asked alone.
    /// @param response 0 to 100.
    function validationResponse(
        bytes32 requestHash,
        uint8 response,
        string calldata responseURI,
        bytes32 responseHash,
        string calldata tag
    ) external;

    /// @notice Where the agents are registered.
    function getIdentityRegistry() external view returns (address identityRegistry);

    /// @notice Where a request stands.
    function getValidationStatus(bytes32 requestHash)
        external
        view
        returns (
            address validatorAddress,
            uint256 agentId,
            uint8 response,
            bytes32 responseHash,
            string memory tag,
            uint256 lastUpdate
        );

    /// @notice Number and average of an agent's responses, of some validators or with some tag.
    function getSummary(uint256 agentId, address[] calldata validatorAddresses, string calldata tag)
        external
        view
        returns (uint64 count, uint8 averageResponse);

    /// @notice All requests about an agent.
    function getAgentValidations(uint256 agentId) external view returns (bytes32[] memory requestHashes);

    /// @notice All requests to a validator.
    function getValidatorRequests(address validatorAddress) external view returns (bytes32[] memory requestHashes);
}
