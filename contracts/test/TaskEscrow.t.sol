// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {TaskEscrow} from "../TaskEscrow.sol";

interface Vm {
    function etch(address target, bytes calldata code) external;
    function store(address target, bytes32 slot, bytes32 value) external;
    function warp(uint256 timestamp) external;
    function deal(address target, uint256 balance) external;
    function prank(address sender) external;
    function assume(bool condition) external;
    function expectRevert() external;
}

Vm constant vm = Vm(0x7109709ECfa91a80626fF3989D68f67F5b1DD12D);
address constant BEACON_ROOTS = 0x000F3df6D732807Ef1319fB7B8bB8522d0Beac02;
bytes constant BEACON_ROOTS_CODE =
    hex"3373fffffffffffffffffffffffffffffffffffffffe14604d57602036146024575f5ffd5b5f35801560495762001fff810690815414603c575f5ffd5b62001fff01545f5260205ff35b5f5ffd5b62001fff42064281555f359062001fff015500";

/// Take money only when allowed, and try to enter the escrow again whenever paid.
contract Payee {
    TaskEscrow private immutable escrow;
    bool public accepting;
    bytes private reentry;

    constructor(TaskEscrow target) {
        escrow = target;
    }

    function prepare(bool accept, bytes calldata call_) external {
        accepting = accept;
        reentry = call_;
    }

    function pull() external {
        accepting = true;
        escrow.withdraw();
        accepting = false;
    }

    receive() external payable {
        require(accepting, "refused");
        if (reentry.length > 0) {
            (bool entered,) = address(escrow).call(reentry);
            require(!entered, "entered twice");
        }
    }
}

abstract contract Consensus {
    /// Play consensus: a leaf at any place of a history with any siblings, whose root the beacon contract carries.
    function publish(TaskEscrow escrow, TaskEscrow.Settlement memory settlement, uint32 index, uint256 seed)
        internal
        returns (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp)
    {
        bytes32 node = keccak256(
            abi.encode(
                block.chainid,
                address(escrow),
                settlement.taskId,
                settlement.height,
                settlement.recipient,
                settlement.outcome,
                settlement.amountWei
            )
        );
        for (uint256 level = 0; level < 32; ++level) {
            branch[level] = keccak256(abi.encode(seed, level));
            node = (index >> level) & 1 == 1
                ? keccak256(bytes.concat(branch[level], node))
                : keccak256(bytes.concat(node, branch[level]));
        }
        blockHash = keccak256(abi.encode(seed));
        timestamp = uint64(block.timestamp);
        vm.etch(BEACON_ROOTS, BEACON_ROOTS_CODE);
        uint256 slot = timestamp % 8191;
        vm.store(BEACON_ROOTS, bytes32(slot), bytes32(uint256(timestamp)));
        vm.store(BEACON_ROOTS, bytes32(slot + 8191), keccak256(bytes.concat(node, blockHash)));
    }
}

contract TaskEscrowTest is Consensus {
    TaskEscrow private escrow = new TaskEscrow();
    address private constant PUBLISHER = address(0x1001);
    address private constant MINER = address(0x1002);
    address private constant CLAIMER = address(0x1003);

    function setUp() public {
        vm.warp(1_000_000);
        vm.deal(address(this), 0);
    }

    function post(uint96 reward, uint96 bond) private returns (bytes32) {
        uint256 value = uint256(reward) + bond + escrow.TIP();
        vm.deal(PUBLISHER, value);
        vm.prank(PUBLISHER);
        return escrow.post{value: value}("task", reward, bond, uint64(block.timestamp + 100));
    }

    function testFuzz_only_the_exact_value_posts(uint96 reward, uint96 bond, uint96 value) public {
        vm.assume(uint256(value) != uint256(reward) + bond + escrow.TIP());
        vm.deal(PUBLISHER, value);
        vm.prank(PUBLISHER);
        vm.expectRevert();
        escrow.post{value: value}("task", reward, bond, uint64(block.timestamp + 100));
    }

    function testFuzz_identifiers_differ(uint96 reward, uint96 bond) public {
        vm.assume(reward > 0);
        require(post(reward, bond) != post(reward, bond), "one identifier twice");
    }

    function testFuzz_a_settlement_pays_exactly_once(uint96 reward, uint96 bond, uint8 code, uint32 index, uint256 seed)
        public
    {
        vm.assume(reward > 0);
        uint8 outcome = code % 3 + 1;
        bytes32 taskId = post(reward, bond);
        TaskEscrow.Settlement memory settlement = TaskEscrow.Settlement(taskId, uint64(seed), MINER, outcome, 0);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, seed);
        vm.prank(CLAIMER);
        escrow.settle(settlement, index, branch, blockHash, timestamp);
        uint256 toMiner = outcome == 1 ? reward : outcome == 3 ? bond : 0;
        require(MINER.balance == toMiner, "miner");
        uint256 leaving = outcome == 3 ? 0 : bond;
        require(PUBLISHER.balance == uint256(reward) + bond - toMiner - leaving, "publisher");
        require(CLAIMER.balance == escrow.TIP(), "claimer");
        require(address(escrow).balance == leaving, "left over");
        (, uint256 held,) = escrow.bond(escrow.potOf(PUBLISHER));
        require(held == leaving, "bond");
        vm.expectRevert();
        escrow.settle(settlement, index, branch, blockHash, timestamp);
    }

    function testFuzz_a_changed_proof_reverts(uint32 index, uint256 seed, uint8 level, bytes32 change) public {
        vm.assume(change != 0);
        bytes32 taskId = post(1 ether, 0);
        TaskEscrow.Settlement memory settlement = TaskEscrow.Settlement(taskId, 1, MINER, 1, 0);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, seed);
        if (level % 33 == 32) {
            blockHash ^= change;
        } else {
            branch[level % 33] ^= change;
        }
        vm.expectRevert();
        escrow.settle(settlement, index, branch, blockHash, timestamp);
    }

    function testFuzz_a_changed_settlement_reverts(address recipient, uint64 height, uint8 outcome, uint64 index, uint8 amount)
        public
    {
        vm.assume(recipient != MINER || height != 1 || outcome != 1 || index != 5 || amount != 0);
        bytes32 taskId = post(1 ether, 1 ether);
        TaskEscrow.Settlement memory settlement = TaskEscrow.Settlement(taskId, 1, MINER, 1, 0);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, 5, 7);
        vm.expectRevert();
        escrow.settle(TaskEscrow.Settlement(taskId, height, recipient, outcome, amount), index, branch, blockHash, timestamp);
    }

    function testFuzz_a_refund_waits_for_the_deadline(uint32 later) public {
        bytes32 taskId = post(1 ether, 1 ether);
        vm.warp(block.timestamp + 100);
        vm.expectRevert();
        escrow.refund(taskId);
        vm.warp(block.timestamp + 1 + later);
        escrow.refund(taskId);
        require(PUBLISHER.balance == 2 ether + escrow.TIP(), "publisher");
        vm.expectRevert();
        escrow.refund(taskId);
    }

    function testFuzz_a_bond_is_slashed_once_and_what_is_left_goes_back(uint96 stake, uint96 part, uint96 taken, uint32 index)
        public
    {
        vm.assume(stake > 0 && taken > 0 && taken <= stake);
        uint256 leaving = part % stake;
        vm.deal(MINER, stake);
        vm.prank(MINER);
        escrow.deposit{value: stake}();
        if (leaving > 0) {
            vm.prank(MINER);
            escrow.unbond(leaving);
        }
        TaskEscrow.Settlement memory settlement =
            TaskEscrow.Settlement(escrow.potOf(MINER), 1, PUBLISHER, 5, taken);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, 7);
        vm.prank(CLAIMER);
        escrow.settle(settlement, index, branch, blockHash, timestamp);
        require(PUBLISHER.balance + CLAIMER.balance == taken, "taken");
        require(CLAIMER.balance <= escrow.TIP(), "tip");
        vm.expectRevert();
        escrow.settle(settlement, index, branch, blockHash, timestamp);
        (uint256 active, uint256 left,) = escrow.bond(escrow.potOf(MINER));
        require(active + left == uint256(stake) - taken, "left");
        if (active > 0) {
            vm.prank(MINER);
            escrow.unbond(active);
        }
        if (active + left > 0) {
            vm.expectRevert();
            escrow.release(MINER);
            vm.warp(block.timestamp + escrow.BOND_DELAY_SECONDS());
            escrow.release(MINER);
        }
        require(MINER.balance == active + left, "miner");
        require(address(escrow).balance == 0, "left over");
    }

    function testFuzz_nobody_takes_more_than_a_pot_holds(uint96 stake, uint96 more, uint32 index) public {
        vm.assume(stake > 0 && more > 0);
        post(1 ether, 1 ether);
        vm.deal(MINER, stake);
        vm.prank(MINER);
        escrow.deposit{value: stake}();
        TaskEscrow.Settlement memory settlement =
            TaskEscrow.Settlement(escrow.potOf(MINER), 1, PUBLISHER, 5, uint256(stake) + more);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, 7);
        vm.expectRevert();
        escrow.settle(settlement, index, branch, blockHash, timestamp);
    }

    function testFuzz_a_struck_bond_is_shared(uint96 bond, uint96 part, uint32 index) public {
        vm.assume(bond > 0);
        uint256 shared = part % (uint256(bond) + 1);
        bytes32 taskId = post(1, bond);
        TaskEscrow.Settlement memory settlement = TaskEscrow.Settlement(taskId, 1, address(0), 3, shared);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, 7);
        escrow.settle(settlement, index, branch, blockHash, timestamp);
        require(escrow.BURN().balance == uint256(bond) - shared, "burned");
        if (shared > 0) {
            settlement = TaskEscrow.Settlement(taskId, 1, MINER, 5, shared);
            (branch, blockHash, timestamp) = publish(escrow, settlement, index ^ 1, 8);
            vm.prank(CLAIMER);
            escrow.settle(settlement, index ^ 1, branch, blockHash, timestamp);
            require(MINER.balance + CLAIMER.balance == shared, "shared");
        }
        require(address(escrow).balance == 0, "left over");
    }

    function test_a_payee_cannot_enter_twice() public {
        Payee payee = new Payee(escrow);
        bytes32 taskId = post(1 ether, 1 ether);
        post(3 ether, 0);
        TaskEscrow.Settlement memory settlement = TaskEscrow.Settlement(taskId, 1, address(payee), 1, 0);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, 5, 7);
        payee.prepare(true, abi.encodeCall(escrow.settle, (settlement, 5, branch, blockHash, timestamp)));
        escrow.settle(settlement, 5, branch, blockHash, timestamp);
        // The second entry failed inside, or the payment failed and is credited: never more than the reward.
        require(address(payee).balance + escrow.withdrawable(address(payee)) == 1 ether, "payee");
        require(address(escrow).balance >= 3 ether + escrow.TIP(), "others' money");
    }

    receive() external payable {}
}

/// Do random things to the escrow and keep the books beside it.
contract Actors is Consensus {
    TaskEscrow public immutable escrow;
    Payee public immutable payee;
    bytes32[] private open;
    bytes32[] private closed;
    uint256 public heldWei;

    constructor(TaskEscrow target) {
        escrow = target;
        payee = new Payee(target);
    }

    function post(uint96 reward, uint96 bond, uint32 duration) external {
        uint256 value = uint256(reward) + 1 + bond + escrow.TIP();
        vm.deal(address(this), value);
        open.push(
            escrow.post{value: value}("task", uint256(reward) + 1, bond, uint64(block.timestamp) + 1 + duration % 1000)
        );
        heldWei += value;
    }

    function settle(uint256 pick, uint8 code, bool accept, uint32 index) external {
        if (open.length == 0) return;
        bytes32 taskId = take(pick);
        payee.prepare(accept, abi.encodeCall(escrow.refund, (taskId)));
        TaskEscrow.Settlement memory settlement =
            TaskEscrow.Settlement(taskId, uint64(pick), address(payee), code % 3 + 1, 0);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, pick);
        (, uint256 reward, uint256 bond,,) = escrow.task(taskId);
        uint256 before = escrow.withdrawable(address(payee));
        escrow.settle(settlement, index, branch, blockHash, timestamp);
        heldWei += escrow.withdrawable(address(payee)) - before;
        if (code % 3 != 2) heldWei += bond;
        require(reward > 0, "nothing was posted");
    }

    function deposit(uint96 amount) external {
        vm.deal(address(this), uint256(amount) + 1);
        escrow.deposit{value: uint256(amount) + 1}();
        heldWei += uint256(amount) + 1;
    }

    function unbond(uint256 amount) external {
        (uint256 active,,) = escrow.bond(escrow.potOf(address(this)));
        if (active > 0) escrow.unbond(amount % active + 1);
    }

    function release() external {
        (, uint256 leaving, uint64 at) = escrow.bond(escrow.potOf(address(this)));
        if (leaving == 0 || block.timestamp < at) return;
        escrow.release(address(this));
        heldWei -= leaving;
    }

    /// Take from our own pot, by a true proof; the second time at the same place nothing may move.
    function slash(uint256 amount, uint32 index, uint256 seed) external {
        (uint256 active, uint256 leaving,) = escrow.bond(escrow.potOf(address(this)));
        if (active + leaving == 0) return;
        TaskEscrow.Settlement memory settlement = TaskEscrow.Settlement(
            escrow.potOf(address(this)), uint64(seed), address(0xbeef), 5, amount % (active + leaving) + 1
        );
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, seed);
        bool before = escrow.collected(index);
        try escrow.settle(settlement, index, branch, blockHash, timestamp) {
            require(!before, "paid twice");
            heldWei -= settlement.amountWei;
        } catch {
            require(before, "not paid");
        }
    }

    /// Claim without a proof: another root, another branch, another recipient; nothing may move.
    function forge(uint256 pick, uint8 code, uint32 index, bytes32 change, uint8 way) external {
        if (open.length == 0 || change == 0) return;
        TaskEscrow.Settlement memory settlement =
            TaskEscrow.Settlement(open[pick % open.length], uint64(pick), address(payee), code % 3 + 1, 0);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, pick);
        if (way % 4 == 0) branch[index % 32] ^= change;
        if (way % 4 == 1) blockHash ^= change;
        if (way % 4 == 2) settlement.recipient = address(this);
        if (way % 4 == 3) timestamp += 1;
        uint256 before = address(escrow).balance;
        try escrow.settle(settlement, index, branch, blockHash, timestamp) {
            revert("paid without a proof");
        } catch {}
        require(address(escrow).balance == before, "money moved");
    }

    /// Claim a task again that is closed already, with a true proof of it.
    function repeat(uint256 pick, uint8 code, uint32 index) external {
        if (closed.length == 0) return;
        bytes32 taskId = closed[pick % closed.length];
        TaskEscrow.Settlement memory settlement =
            TaskEscrow.Settlement(taskId, uint64(pick), address(payee), code % 3 + 1, 0);
        (bytes32[32] memory branch, bytes32 blockHash, uint64 timestamp) = publish(escrow, settlement, index, pick);
        try escrow.settle(settlement, index, branch, blockHash, timestamp) {
            revert("paid twice");
        } catch {}
        try escrow.refund(taskId) {
            revert("refunded after it was closed");
        } catch {}
    }

    function refund(uint256 pick) external {
        if (open.length == 0) return;
        bytes32 taskId = open[pick % open.length];
        (,,, uint64 deadline,) = escrow.task(taskId);
        if (block.timestamp <= deadline) return;
        escrow.refund(take(pick));
    }

    function wait(uint32 duration) external {
        vm.warp(block.timestamp + duration % 500);
    }

    function withdraw() external {
        uint256 amount = escrow.withdrawable(address(payee));
        if (amount == 0) return;
        payee.prepare(false, abi.encodeCall(escrow.withdraw, ()));
        payee.pull();
        heldWei -= amount;
    }

    function take(uint256 pick) private returns (bytes32 taskId) {
        uint256 place = pick % open.length;
        taskId = open[place];
        closed.push(taskId);
        open[place] = open[open.length - 1];
        open.pop();
        (, uint256 reward, uint256 bond,,) = escrow.task(taskId);
        heldWei -= reward + bond + escrow.TIP();
    }

    receive() external payable {}
}

contract TaskEscrowInvariants {
    Actors private actors;

    function setUp() public {
        vm.warp(1_000_000);
        actors = new Actors(new TaskEscrow());
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(actors);
    }

    function invariant_the_escrow_holds_exactly_what_it_owes() public view {
        require(address(actors.escrow()).balance == actors.heldWei(), "books and balance differ");
    }
}
