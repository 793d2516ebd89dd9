// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

/// @title Hold what publishers pay for training, and what publishers and miners stake, until consensus decides.
/// @notice No owner, no upgrade, no constructor: the code stands in the genesis block. The contract trusts one thing, the
/// root of the parent consensus block that every execution payload carries (EIP-4788), and checks a Merkle branch
/// from it to the settlement. Whoever brings the branch may claim for anybody and earns the tip.
/// Money lies in pots: one for each owner of a bond, and one for each task whose bond was struck. Consensus takes from
/// a pot by a SLASHED settlement; the owner gets back what is left, a delay after asking for it.
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
        uint256 amountWei;
    }

    /// What is staked: active until its owner asks for it, then leaving; both can be slashed until they are paid out.
    struct Pot {
        uint256 activeWei;
        uint256 leavingWei;
        uint64 leavesSeconds;
    }

    /// @notice How long a bond stays after its owner asks for it: longer than consensus takes evidence (audit window).
    uint64 public constant BOND_DELAY_SECONDS = 1 days;
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
    uint8 public constant SLASHED = 5;

    address public constant BEACON_ROOTS = 0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02;
    address public constant BURN = 0x000000000000000000000000000000000000dEaD;

    mapping(bytes32 => Task) private tasks;
    mapping(bytes32 => Pot) private pots;
    /// @notice Which SLASHED settlements are paid, by their place in the history: each is paid once.
    mapping(uint64 => bool) public collected;
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

    event BondDeposited(address indexed owner, uint256 amountWei);
    event BondLeaving(address indexed owner, uint256 amountWei);
    event BondWithdrawn(address indexed owner, uint256 amountWei);
    event BondSlashed(bytes32 indexed source, uint64 index, address recipient, uint256 amountWei);

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
    error CollectedBefore(uint64 index);
    error PotTooSmall(bytes32 source, uint256 amountWei);
    error BondStays(uint64 leavesSeconds);

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

    /// @notice Stake coins: commitments on this chain are only as good as what their miner can lose.
    function deposit() external payable {
        if (msg.value == 0) revert ValueMismatch(1, 0);
        pots[potOf(msg.sender)].activeWei += msg.value;
        emit BondDeposited(msg.sender, msg.value);
    }

    /// @notice Ask for a part of one's stake back; it stays slashable, and the delay starts anew for all that leaves.
    function unbond(uint256 amountWei) external {
        Pot storage pot = pots[potOf(msg.sender)];
        if (amountWei == 0 || amountWei > pot.activeWei) revert PotTooSmall(potOf(msg.sender), amountWei);
        pot.activeWei -= amountWei;
        pot.leavingWei += amountWei;
        pot.leavesSeconds = uint64(block.timestamp) + BOND_DELAY_SECONDS;
        emit BondLeaving(msg.sender, amountWei);
    }

    /// @notice Pay out what has waited long enough; anyone may call, the coins go to their owner.
    function release(address owner) external {
        Pot storage pot = pots[potOf(owner)];
        uint256 amountWei = pot.leavingWei;
        if (amountWei == 0) revert NothingToWithdraw();
        if (block.timestamp < pot.leavesSeconds) revert BondStays(pot.leavesSeconds);
        pot.leavingWei = 0;
        emit BondWithdrawn(owner, amountWei);
        _pay(owner, amountWei);
    }

    /// @notice Settle a task, or slash a bond, as consensus decided it; anyone may call, the caller earns the tip.
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
        bytes32 historyRoot = _root(_leaf(settlement), index, branch);
        if (keccak256(abi.encodePacked(historyRoot, blockHash)) != _beaconRoot(timestamp)) revert ProofWrong();
        if (settlement.outcome == SLASHED) {
            _slash(settlement, index);
        } else {
            _settleTask(settlement);
        }
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

    /// @notice Show what an owner has staked, or what is left of a struck task's bond.
    function bond(bytes32 source)
        external
        view
        returns (uint256 activeWei, uint256 leavingWei, uint64 leavesSeconds)
    {
        Pot storage pot = pots[source];
        return (pot.activeWei, pot.leavingWei, pot.leavesSeconds);
    }

    /// @notice Name the pot of an owner; a task's pot has the task's identifier.
    function potOf(address owner) public pure returns (bytes32) {
        return bytes32(uint256(uint160(owner)));
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

    /// A publisher's bond outlives its task: it leaves like any other bond, so that late evidence still finds it.
    function _settleTask(Settlement calldata settlement) private {
        Task memory posted = _close(settlement.taskId, settlement.outcome);
        address recipient = _orBurn(settlement.recipient);
        uint256 amountWei = posted.rewardWei;
        if (settlement.outcome == STRUCK) {
            if (settlement.amountWei > posted.bondWei) revert PotTooSmall(settlement.taskId, settlement.amountWei);
            amountWei = posted.bondWei - settlement.amountWei;
            pots[settlement.taskId].activeWei = settlement.amountWei;
            _pay(posted.publisher, posted.rewardWei);
            _pay(recipient, amountWei);
        } else {
            if (settlement.outcome == REFUNDED) recipient = posted.publisher;
            if (posted.bondWei > 0) {
                Pot storage pot = pots[potOf(posted.publisher)];
                pot.leavingWei += posted.bondWei;
                pot.leavesSeconds = uint64(block.timestamp) + BOND_DELAY_SECONDS;
            }
            _pay(recipient, amountWei);
        }
        emit TaskSettled(settlement.taskId, settlement.outcome, recipient, amountWei);
        _pay(msg.sender, TIP);
    }

    /// Nobody paid a tip for this claim in advance: it comes out of the amount, and is at most half of it.
    function _slash(Settlement calldata settlement, uint64 index) private {
        if (collected[index]) revert CollectedBefore(index);
        collected[index] = true;
        Pot storage pot = pots[settlement.taskId];
        uint256 amountWei = settlement.amountWei;
        if (amountWei > pot.activeWei + pot.leavingWei) revert PotTooSmall(settlement.taskId, amountWei);
        uint256 fromActive = amountWei < pot.activeWei ? amountWei : pot.activeWei;
        pot.activeWei -= fromActive;
        pot.leavingWei -= amountWei - fromActive;
        address recipient = _orBurn(settlement.recipient);
        emit BondSlashed(settlement.taskId, index, recipient, amountWei);
        uint256 tipWei = amountWei / 2 < TIP ? amountWei / 2 : TIP;
        _pay(recipient, amountWei - tipWei);
        _pay(msg.sender, tipWei);
    }

    function _orBurn(address recipient) private pure returns (address) {
        return recipient == address(0) ? BURN : recipient;
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
                settlement.outcome,
                settlement.amountWei
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
