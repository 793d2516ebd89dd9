// SPDX-License-Identifier: MIT
pragma solidity 0.8.37;

import {CooperativeTask} from "../CooperativeTask.sol";

interface VmMarket {
    struct Wallet {
        address addr;
        uint256 publicKeyX;
        uint256 publicKeyY;
        uint256 privateKey;
    }

    function assume(bool condition) external pure;
    function createWallet(uint256 privateKey) external returns (Wallet memory);
    function deal(address account, uint256 wei_) external;
    function expectRevert() external;
    function expectRevert(bytes4 selector) external;
    function prank(address sender) external;
    function prevrandao(bytes32 value) external;
    function roll(uint256 height) external;
    function warp(uint256 seconds_) external;
}

/// Six accounts that play a whole task; the keys are the test's own.
abstract contract Market {
    VmMarket internal constant vm = VmMarket(address(uint160(uint256(keccak256("hevm cheat code")))));
    CooperativeTask internal market = new CooperativeTask();
    address[6] internal who;
    bytes[6] internal keys;
    uint96 internal constant MODEL = 5 ether;
    uint96 internal constant VOTE = 1 ether;
    uint96 internal constant STAKE = 3 ether;
    uint96 internal constant BOND = 2 ether;

    function prepare() internal {
        vm.warp(1_000_000);
        vm.roll(100);
        for (uint256 index = 0; index < 6; ++index) {
            VmMarket.Wallet memory wallet = vm.createWallet(index + 11);
            who[index] = wallet.addr;
            keys[index] = abi.encode(wallet.publicKeyX, wallet.publicKeyY);
            vm.deal(wallet.addr, 100 ether);
        }
    }

    function terms(uint8 reading, uint8 payment, uint8 slots) internal view returns (CooperativeTask.Terms memory) {
        return CooperativeTask.Terms(
            uint64(block.timestamp + 10_000), 100, 100, 1000, 100, 50, reading, payment, slots, 3, MODEL, VOTE, STAKE, BOND
        );
    }

    /// Account 0 asks; 1, 2 and 3 verify; 4 and 5 contribute.
    function announce(uint8 reading, uint8 payment, uint8 slots) internal returns (bytes32 taskId) {
        vm.prank(who[0]);
        taskId = market.announce{value: uint256(slots) * (uint256(MODEL) + 3 * uint256(VOTE))}(
            terms(reading, payment, slots), keys[0], "specification"
        );
        for (uint256 index = 1; index < 4; ++index) {
            vm.prank(who[index]);
            market.enrol{value: STAKE}(taskId, keys[index]);
        }
    }

    function offer(bytes32 taskId, uint256 contributor, uint256 salt) internal returns (uint8) {
        vm.prank(who[contributor]);
        return market.announceModel{value: BOND}(
            taskId, abi.encodePacked(salt, bytes4(0)), keccak256(abi.encode(salt)), keys[contributor]
        );
    }

    function drawNext(bytes32 taskId, uint8 place) internal {
        vm.roll(block.number + 1);
        market.draw(taskId, place);
    }

    function commit(bytes32 taskId, uint8 place, address voter, uint32 correct, uint8 refusal) internal {
        bytes32 commitment = keccak256(
            abi.encode(block.chainid, address(market), taskId, place, voter, correct, refusal, bytes32(uint256(7)))
        );
        vm.prank(voter);
        market.commitVote(taskId, place, commitment);
    }

    function reveal(bytes32 taskId, uint8 place, address voter, uint32 correct, uint8 refusal) internal {
        vm.prank(voter);
        market.revealVote(taskId, place, correct, refusal, bytes32(uint256(7)));
    }

    function vote(bytes32 taskId, uint8 place, uint32[3] memory correct, uint8[3] memory refusal) internal {
        for (uint256 index = 0; index < 3; ++index) {
            commit(taskId, place, who[index + 1], correct[index], refusal[index]);
        }
        for (uint256 index = 0; index < 3; ++index) {
            reveal(taskId, place, who[index + 1], correct[index], refusal[index]);
        }
        market.judge(taskId, place);
    }

    function total() internal view returns (uint256 sum) {
        sum = address(market).balance;
        for (uint256 index = 0; index < 6; ++index) {
            sum += who[index].balance;
        }
    }
}

contract CooperativeTaskTest is Market {
    function setUp() public {
        prepare();
    }

    function testFuzz_only_the_exact_value_announces(uint96 value) public {
        vm.assume(value != 2 * (uint256(MODEL) + 3 * VOTE) && value <= 100 ether);
        CooperativeTask.Terms memory chosen = terms(0, 0, 2);
        vm.prank(who[0]);
        vm.expectRevert();
        market.announce{value: value}(chosen, keys[0], "specification");
    }

    function testFuzz_majority_decides_and_all_value_comes_back(uint32[3] memory counts, bool absolute, bool payAll) public {
        for (uint256 index = 0; index < 3; ++index) counts[index] %= 1001;
        bytes32 taskId = announce(absolute ? 1 : 0, payAll ? 1 : 0, 1);
        offer(taskId, 4, 1);
        drawNext(taskId, 0);
        vote(taskId, 0, counts, [0, 0, 0]);
        uint256 approving;
        for (uint256 index = 0; index < 3; ++index) approving += counts[index] >= 10 ? 1 : 0;
        uint8 status = market.modelOf(taskId, 0).status;
        require(status == (approving >= 2 ? market.ACCEPTED() : market.BELOW()), "status");
        uint256 paid = approving >= 2 ? uint256(MODEL) + BOND : BOND;
        require(market.withdrawable(who[4]) == paid, "contributor");
        market.close(taskId);
        for (uint256 index = 1; index < 4; ++index) {
            vm.prank(who[index]);
            market.resign(taskId);
        }
        for (uint256 index = 0; index < 6; ++index) {
            if (market.withdrawable(who[index]) == 0) continue;
            vm.prank(who[index]);
            market.withdraw();
        }
        require(address(market).balance == 0 && total() == 600 ether, "value is conserved");
    }

    function testFuzz_a_liar_is_outvoted_and_unpaid(uint32 lie) public {
        lie %= 1001;
        vm.assume(lie < 945 || lie > 955);
        bytes32 taskId = announce(0, 0, 1);
        offer(taskId, 4, 1);
        drawNext(taskId, 0);
        vote(taskId, 0, [uint32(950), lie, 950], [0, 0, 0]);
        require(market.modelOf(taskId, 0).status == market.ACCEPTED(), "accepted");
        require(market.withdrawable(who[1]) == VOTE && market.withdrawable(who[3]) == VOTE, "honest are paid");
        require(market.withdrawable(who[2]) == 0, "the liar is not");
        require(market.verifierOf(taskId, who[2]).stakeWei == STAKE - VOTE, "and is fined");
    }

    function test_paper_pays_the_liar_too() public {
        bytes32 taskId = announce(0, 1, 1);
        offer(taskId, 4, 1);
        drawNext(taskId, 0);
        vote(taskId, 0, [uint32(950), 0, 950], [0, 0, 0]);
        require(market.withdrawable(who[2]) == VOTE, "the paper pays all who voted");
    }

    function test_gain_is_over_the_accepted_fusion_and_absolute_is_not() public {
        for (uint8 reading = 0; reading < 2; ++reading) {
            bytes32 taskId = announce(reading, 0, 2);
            offer(taskId, 4, 1);
            offer(taskId, 5, 2);
            drawNext(taskId, 0);
            vote(taskId, 0, [uint32(900), 900, 900], [0, 0, 0]);
            drawNext(taskId, 1);
            vote(taskId, 1, [uint32(909), 909, 909], [0, 0, 0]);
            uint8 wanted = reading == 0 ? market.BELOW() : market.ACCEPTED();
            require(market.modelOf(taskId, 1).status == wanted, "BAAS-R3");
        }
    }

    function test_an_unmeasurable_model_costs_the_bond() public {
        bytes32 taskId = announce(0, 0, 1);
        offer(taskId, 4, 1);
        drawNext(taskId, 0);
        vote(taskId, 0, [uint32(0), 0, 990], [3, 3, 0]);
        require(market.modelOf(taskId, 0).status == market.REFUSED(), "refused");
        require(market.withdrawable(who[4]) == 0, "the bond is lost");
        require(market.withdrawable(who[3]) == 0 && market.withdrawable(who[1]) == VOTE, "votes");
    }

    function test_silence_draws_again_and_ends_undecided() public {
        bytes32 taskId = announce(0, 0, 1);
        offer(taskId, 4, 1);
        for (uint256 attempt = 0; attempt < market.ATTEMPTS(); ++attempt) {
            drawNext(taskId, 0);
            vm.expectRevert(CooperativeTask.TooEarly.selector);
            market.judge(taskId, 0);
            vm.warp(block.timestamp + 201);
            market.judge(taskId, 0);
        }
        require(market.modelOf(taskId, 0).status == market.UNDECIDED(), "undecided");
        require(market.withdrawable(who[4]) == BOND, "the contributor is not to blame");
        require(market.withdrawable(who[0]) == 9 * uint256(VOTE), "three silent verifiers, three times");
    }

    function test_one_leaver_does_not_stop_the_vote() public {
        bytes32 taskId = announce(0, 0, 1);
        offer(taskId, 4, 1);
        drawNext(taskId, 0);
        commit(taskId, 0, who[1], 950, 0);
        commit(taskId, 0, who[2], 951, 0);
        vm.prank(who[3]);
        vm.expectRevert(CooperativeTask.VoteOutstanding.selector);
        market.resign(taskId);
        vm.expectRevert(CooperativeTask.TooEarly.selector);
        vm.prank(who[1]);
        market.revealVote(taskId, 0, 950, 0, bytes32(uint256(7)));
        vm.warp(block.timestamp + 101);
        reveal(taskId, 0, who[1], 950, 0);
        reveal(taskId, 0, who[2], 951, 0);
        vm.warp(block.timestamp + 100);
        market.judge(taskId, 0);
        require(market.modelOf(taskId, 0).status == market.ACCEPTED(), "two of three decide");
        vm.prank(who[3]);
        market.resign(taskId);
        require(market.withdrawable(who[3]) == STAKE - VOTE, "the leaver is fined");
    }

    function test_a_draw_needs_a_later_block_and_enough_others() public {
        bytes32 taskId = announce(0, 0, 2);
        offer(taskId, 1, 1);
        vm.expectRevert(CooperativeTask.TooEarly.selector);
        market.draw(taskId, 0);
        vm.roll(block.number + 1);
        vm.expectRevert(CooperativeTask.TooFewVerifiers.selector);
        market.draw(taskId, 0);
        vm.prank(who[5]);
        market.enrol{value: STAKE}(taskId, keys[5]);
        market.draw(taskId, 0);
        address[] memory committee = market.committeeOf(taskId, 0);
        for (uint256 index = 0; index < 3; ++index) {
            require(committee[index] != who[1], "nobody judges its own model");
            for (uint256 other = 0; other < index; ++other) require(committee[index] != committee[other], "twice");
        }
    }

    function test_the_draw_follows_prevrandao() public {
        bool differed;
        bytes32 first;
        for (uint256 index = 0; index < 8; ++index) {
            bytes32 taskId = announce(0, 0, 1);
            vm.prank(who[5]);
            market.enrol{value: STAKE}(taskId, keys[5]);
            offer(taskId, 4, 1);
            vm.prevrandao(bytes32(index));
            drawNext(taskId, 0);
            bytes32 drawn = keccak256(abi.encode(market.committeeOf(taskId, 0)));
            if (index == 0) first = drawn;
            differed = differed || drawn != first;
        }
        require(differed, "eight values, one committee");
    }

    function test_votes_open_once_and_as_committed() public {
        bytes32 taskId = announce(0, 0, 1);
        offer(taskId, 4, 1);
        drawNext(taskId, 0);
        for (uint256 index = 1; index < 4; ++index) commit(taskId, 0, who[index], 900, 0);
        vm.prank(who[1]);
        vm.expectRevert(CooperativeTask.OpeningWrong.selector);
        market.revealVote(taskId, 0, 901, 0, bytes32(uint256(7)));
        reveal(taskId, 0, who[1], 900, 0);
        vm.prank(who[1]);
        vm.expectRevert(CooperativeTask.VotedAlready.selector);
        market.revealVote(taskId, 0, 900, 0, bytes32(uint256(7)));
        vm.prank(who[4]);
        vm.expectRevert(CooperativeTask.NotDrawn.selector);
        market.revealVote(taskId, 0, 900, 0, bytes32(uint256(7)));
    }

    function test_only_contributor_and_committee_hand_keys_over() public {
        bytes32 taskId = announce(0, 0, 1);
        offer(taskId, 4, 1);
        drawNext(taskId, 0);
        vm.prank(who[5]);
        vm.expectRevert(CooperativeTask.NotEntitled.selector);
        market.sealKey(taskId, 0, who[0], "sealed");
        vm.prank(who[4]);
        market.sealKey(taskId, 0, who[1], "sealed");
        vm.prank(who[1]);
        market.sealKey(taskId, 0, who[0], "sealed");
    }

    function test_late_models_and_foreign_keys_are_refused() public {
        bytes32 taskId = announce(0, 0, 2);
        offer(taskId, 4, 1);
        vm.prank(who[5]);
        vm.expectRevert(CooperativeTask.PublicKeyWrong.selector);
        market.announceModel{value: BOND}(taskId, abi.encodePacked(uint256(2), bytes4(0)), 0, keys[4]);
        vm.prank(who[5]);
        vm.expectRevert(CooperativeTask.ModelKnown.selector);
        market.announceModel{value: BOND}(taskId, abi.encodePacked(uint256(1), bytes4(0)), 0, keys[5]);
        vm.warp(block.timestamp + 10_001);
        vm.prank(who[5]);
        vm.expectRevert(CooperativeTask.TaskOver.selector);
        market.announceModel{value: BOND}(taskId, abi.encodePacked(uint256(3), bytes4(0)), 0, keys[5]);
        market.close(taskId);
        require(market.withdrawable(who[4]) == BOND, "bond");
        require(market.withdrawable(who[0]) == 2 * (uint256(MODEL) + 3 * VOTE), "refund");
    }
}

/// Random actors do random things; whatever they do, the contract owns what it owes.
contract MarketHandler is Market {
    bytes32 public taskId;

    constructor() {
        prepare();
        taskId = announce(0, 0, 4);
    }

    function offerAny(uint8 contributor, uint8 salt) external {
        vm.prank(who[4 + contributor % 2]);
        try market.announceModel{value: BOND}(
            taskId, abi.encodePacked(uint256(salt), bytes4(0)), 0, keys[4 + contributor % 2]
        ) {} catch {}
    }

    function drawAny() external {
        vm.roll(block.number + 1);
        try market.draw(taskId, judged()) {} catch {}
    }

    function commitAny(uint8 voter, uint16 correct, bool refuses) external {
        address chosen = who[1 + voter % 3];
        bytes32 commitment = keccak256(abi.encode(
            block.chainid, address(market), taskId, judged(), chosen,
            refuses ? 0 : uint32(correct % 1001), refuses ? uint8(1) : uint8(0), bytes32(uint256(7))
        ));
        vm.prank(chosen);
        try market.commitVote(taskId, judged(), commitment) {} catch {}
    }

    function revealAny(uint8 voter, uint16 correct, bool refuses) external {
        vm.prank(who[1 + voter % 3]);
        try market.revealVote(
            taskId, judged(), refuses ? 0 : uint32(correct % 1001), refuses ? 1 : 0, bytes32(uint256(7))
        ) {} catch {}
    }

    function voteAll(uint16 correct, uint16 spread) external {
        uint8 place = judged();
        if (market.modelOf(taskId, place).status != market.DRAWN() || market.modelOf(taskId, place).commits != 0) return;
        uint32 high = uint32(correct % 1001);
        uint32 low = high > spread % 40 ? high - spread % 40 : 0;
        if (block.timestamp > market.modelOf(taskId, place).commitUntil) return;
        vote(taskId, place, [high, low, high], [0, 0, 0]);
    }

    function judgeAny() external {
        try market.judge(taskId, judged()) {} catch {}
    }

    function resignAny(uint8 voter) external {
        address chosen = who[1 + voter % 3];
        vm.prank(chosen);
        try market.resign(taskId) {} catch {}
        vm.prank(chosen);
        try market.enrol{value: STAKE}(taskId, keys[1 + voter % 3]) {} catch {}
    }

    function withdrawAny(uint8 account) external {
        vm.prank(who[account % 6]);
        try market.withdraw() {} catch {}
    }

    function wait_(uint16 seconds_) external {
        vm.warp(block.timestamp + seconds_ % 300);
    }

    function closeAny() external {
        try market.close(taskId) {} catch {}
    }

    function judged() public view returns (uint8 place) {
        (,, place,,,) = market.taskOf(taskId);
    }

    function owed() external view returns (uint256 sum, uint256 owned, uint256 everything) {
        uint8 announced;
        uint8 done;
        (, announced, done,,, sum) = market.taskOf(taskId);
        for (uint256 index = 0; index < 6; ++index) {
            sum += market.withdrawable(who[index]) + market.verifierOf(taskId, who[index]).stakeWei;
        }
        for (uint8 place = 0; place < announced; ++place) {
            uint8 status = market.modelOf(taskId, place).status;
            if (status == market.ANNOUNCED() || status == market.DRAWN()) sum += BOND;
        }
        return (sum, address(market).balance, total());
    }
}

contract CooperativeTaskInvariant {
    MarketHandler private handler;

    function setUp() public {
        handler = new MarketHandler();
    }

    function targetContracts() public view returns (address[] memory targets) {
        targets = new address[](1);
        targets[0] = address(handler);
    }

    function invariant_the_contract_owns_what_it_owes() public view {
        (uint256 owed, uint256 owned, uint256 everything) = handler.owed();
        require(owed == owned, "owed");
        require(everything == 600 ether, "conserved");
    }
}
