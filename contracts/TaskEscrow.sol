// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Hold what publishers pay for training until consensus says who earned it.
/// @notice No owner, no upgrade, no constructor: the code stands in the genesis block. The contract trusts one thing, the
/// root of the parent consensus block that every execution payload carries (EIP-4788), and checks a Merkle branch
/// from it to the settlement. Whoever brings the branch may claim for anybody and earns the tip.
contract TaskEscrow {
    struct Task {
        address publisher;
        uint64 deadlineSeconds;
        uint8 status;
        uint256 rewardWei;
        uint256 bondWei;
    }

    struct Settlement {
        bytes32 taskId;
        uint64 height;
        address recipient;
        uint8 outcome;
    }

    /// @notice What the claimer of a settlement earns; the publisher pays it with the posting.
    uint256 public constant TIP = 0.0005 ether;
    uint256 public constant MAXIMUM_SPECIFICATION_BYTES = 16_384;
    /// @notice Gas that a payee may burn; a payee that needs more is credited and withdraws.
    uint256 public constant PAYMENT_GAS = 50_000;

    uint8 public constant NONE = 0;
    uint8 public constant PAID = 1;
    uint8 public constant REFUNDED = 2;
    uint8 public constant STRUCK = 3;
    uint8 public constant OPEN = 4;

    address public constant BEACON_ROOTS = 0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02;
    address public constant BURN = 0x000000000000000000000000000000000000dEaD;

    mapping(bytes32 => Task) private tasks;
    /// @notice Amounts whose payment failed; their owner pulls them with `withdraw`.
    mapping(address => uint256) public withdrawable;
    /// @notice How many tasks were posted; makes task identifiers unique.
    uint256 public counter;

    event TaskPosted(
        bytes32 indexed taskId,
        address indexed publisher,
        uint256 rewardWei,
        uint256 bondWei,
        uint64 deadlineSeconds,
        bytes specification
    );
    event TaskSettled(bytes32 indexed taskId, uint8 outcome, address recipient, uint256 amountWei);

    error ValueMismatch(uint256 expectedWei, uint256 sentWei);
    error SpecificationSize(uint256 sizeBytes);
    error RewardZero();
    error DeadlinePassed(uint64 deadlineSeconds);
    error DeadlineAhead(uint64 deadlineSeconds);
    error TaskNotOpen(bytes32 taskId, uint8 status);
    error OutcomeUnknown(uint8 outcome);
    error RootUnknown(uint64 timestamp);
    error ProofWrong();
    error NothingToWithdraw();
    error WithdrawalFailed();

    /// @notice Post a task; the value is the reward, the publisher's bond and the claimer's tip.
    function post(bytes calldata specification, uint256 rewardWei, uint256 bondWei, uint64 deadlineSeconds)
        external
        payable
        returns (bytes32 taskId)
    {
        if (specification.length == 0 || specification.length > MAXIMUM_SPECIFICATION_BYTES) {
            revert SpecificationSize(specification.length);
        }
        if (rewardWei == 0) revert RewardZero();
        if (deadlineSeconds <= block.timestamp) revert DeadlinePassed(deadlineSeconds);
        uint256 expectedWei = rewardWei + bondWei + TIP;
        if (msg.value != expectedWei) revert ValueMismatch(expectedWei, msg.value);
        taskId = keccak256(abi.encode(block.chainid, address(this), msg.sender, counter++));
        tasks[taskId] = Task(msg.sender, deadlineSeconds, OPEN, rewardWei, bondWei);
        emit TaskPosted(taskId, msg.sender, rewardWei, bondWei, deadlineSeconds, specification);
    }

    /// @notice Settle a task as consensus decided it; anyone may call, the caller earns the tip.
    /// @param index Place of the settlement in the chain's history.
    /// @param branch The 32 siblings from the settlement to the root of the history.
    /// @param blockHash Hash of the consensus block whose history it is.
    /// @param timestamp Time of the execution payload that carries that block's root.
    function settle(
        Settlement calldata settlement,
        uint64 index,
        bytes32[32] calldata branch,
        bytes32 blockHash,
        uint64 timestamp
    ) external {
        Task memory posted = _close(settlement.taskId, settlement.outcome);
        bytes32 historyRoot = _root(_leaf(settlement), index, branch);
        if (keccak256(abi.encodePacked(historyRoot, blockHash)) != _beaconRoot(timestamp)) revert ProofWrong();
        address recipient = settlement.recipient == address(0) ? BURN : settlement.recipient;
        uint256 amountWei = posted.rewardWei;
        if (settlement.outcome == PAID) {
            _pay(recipient, posted.rewardWei);
            _pay(posted.publisher, posted.bondWei);
        } else if (settlement.outcome == STRUCK) {
            amountWei = posted.bondWei;
            _pay(posted.publisher, posted.rewardWei);
            _pay(recipient, posted.bondWei);
        } else {
            amountWei = posted.rewardWei + posted.bondWei;
            recipient = posted.publisher;
            _pay(recipient, amountWei);
        }
        emit TaskSettled(settlement.taskId, settlement.outcome, recipient, amountWei);
        _pay(msg.sender, TIP);
    }

    /// @notice Return everything to the publisher of a task that nobody settled before its deadline; anyone may call.
    function refund(bytes32 taskId) external {
        Task memory posted = _close(taskId, REFUNDED);
        if (block.timestamp <= posted.deadlineSeconds) revert DeadlineAhead(posted.deadlineSeconds);
        uint256 amountWei = posted.rewardWei + posted.bondWei + TIP;
        emit TaskSettled(taskId, REFUNDED, posted.publisher, amountWei);
        _pay(posted.publisher, amountWei);
    }

    /// @notice Pull what could not be paid out.
    function withdraw() external {
        uint256 amountWei = withdrawable[msg.sender];
        if (amountWei == 0) revert NothingToWithdraw();
        withdrawable[msg.sender] = 0;
        (bool sent,) = msg.sender.call{value: amountWei}("");
        if (!sent) revert WithdrawalFailed();
    }

    /// @notice Show a task; status 0 is unknown, 4 open, the others are outcomes.
    function task(bytes32 taskId)
        external
        view
        returns (address publisher, uint256 rewardWei, uint256 bondWei, uint64 deadlineSeconds, uint8 status)
    {
        Task storage posted = tasks[taskId];
        return (posted.publisher, posted.rewardWei, posted.bondWei, posted.deadlineSeconds, posted.status);
    }

    /// The status is written before any payment, so a payee that calls back finds the task closed.
    function _close(bytes32 taskId, uint8 outcome) private returns (Task memory posted) {
        if (outcome == NONE || outcome > STRUCK) revert OutcomeUnknown(outcome);
        posted = tasks[taskId];
        if (posted.status != OPEN) revert TaskNotOpen(taskId, posted.status);
        tasks[taskId].status = outcome;
    }

    function _leaf(Settlement calldata settlement) private view returns (bytes32) {
        return keccak256(
            abi.encode(
                block.chainid,
                address(this),
                settlement.taskId,
                settlement.height,
                settlement.recipient,
                settlement.outcome
            )
        );
    }

    function _root(bytes32 node, uint64 index, bytes32[32] calldata branch) private pure returns (bytes32) {
        if (index >> 32 != 0) revert ProofWrong();
        for (uint256 level = 0; level < 32; ++level) {
            node = (index >> level) & 1 == 1
                ? keccak256(abi.encodePacked(branch[level], node))
                : keccak256(abi.encodePacked(node, branch[level]));
        }
        return node;
    }

    function _beaconRoot(uint64 timestamp) private view returns (bytes32) {
        (bool found, bytes memory root) = BEACON_ROOTS.staticcall(abi.encode(timestamp));
        if (!found || root.length != 32) revert RootUnknown(timestamp);
        return abi.decode(root, (bytes32));
    }

    /// No returned bytes are copied and the gas is bounded: a hostile payee can only fail its own payment.
    function _pay(address payee, uint256 amountWei) private {
        if (amountWei == 0) return;
        bool sent;
        uint256 gasLimit = PAYMENT_GAS;
        assembly ("memory-safe") {
            sent := call(gasLimit, payee, amountWei, 0, 0, 0, 0)
        }
        if (!sent) withdrawable[payee] += amountWei;
    }
}
