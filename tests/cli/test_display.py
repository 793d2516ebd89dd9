import io

from rich.console import Console

from learnchain.cli.display import LiveDisplay, PlainDisplay, block_line, sparkline
from learnchain.cli.observation import NetworkObserver, NodeView
from learnchain.cli.rpc import NodeClient
from tests.cli.fake_node import fake_node
from tests.cli.samples import PUBLISHER, WINNER, empty_block, hashed_block, node_answers, status, trained_block


def _look(answers=None):
    with fake_node(answers or node_answers()) as url:
        clients = (NodeClient(url), NodeClient("http://127.0.0.1:1", 1.0))
        return NetworkObserver(clients, ("node-0", "node-1"), (WINNER, PUBLISHER)).look()


def test_a_snapshot_joins_blocks_with_the_winners_training():
    snapshot = _look()
    assert [each["height"] for each in snapshot.blocks] == [1, 2]
    assert [each["training"]["training_share"] for each in snapshot.won_blocks] == [0.97]
    assert snapshot.nodes[0].balance_wei == 5 * 10**18
    assert snapshot.nodes[1].status is None
    assert not snapshot.agree


def test_a_lost_branch_leaves_nothing_behind():
    answers = node_answers()
    with fake_node(answers) as url:
        observer = NetworkObserver((NodeClient(url),), ("node-0",), (WINNER,))
        assert len(observer.look().blocks) == 2
        other = {**trained_block(1), "hash": "ff" * 32}
        answers["learn_status"] = lambda: {**status(1), "head": {**status(1)["head"], "hash": "ff" * 32}}
        answers["learn_blocks"] = lambda *_: [other]
        assert [each["hash"] for each in observer.look().blocks] == ["ff" * 32]


def test_the_live_table_shows_what_a_person_asks_for():
    console = Console(file=io.StringIO(), width=180, force_terminal=True, color_system=None)
    with LiveDisplay(console, "RPC http://127.0.0.1:8545") as display:
        display.note("node-1 ended with code 1")
        display.update(_look())
        console.print(display.draw())
    text = console.file.getvalue()
    wanted = (
        "RPC http",
        "phase training",
        "epoch 3/4",
        "350/360 = 0.9722",
        "97 %",
        "does not answer",
        "escrowed 1.0000",
    )
    assert [each for each in wanted if each not in text] == []
    assert "node-1 ended" in text


def test_plain_lines_name_each_block_once():
    console = Console(file=io.StringIO(), width=200)
    snapshot = _look()
    with PlainDisplay(console) as display:
        display.update(snapshot)
        display.update(snapshot)
    lines = console.file.getvalue().splitlines()
    assert len(lines) == 2
    assert "empty: no commitment" in lines[0]
    assert "350/360 = 0.9722" in lines[1]


def test_sparkline_spans_its_own_extremes():
    assert sparkline([0.0, 1.0]) == "▁█"
    assert sparkline([2.0, 2.0]) == "██"
    assert sparkline([]) == ""


def test_a_node_that_is_silent_has_no_height():
    assert NodeView("node-1", "miner", WINNER, None, 0).height == 0


def test_a_line_says_what_won_the_block():
    hashed = hashed_block(3)
    assert "by hashing, 17 hashes expected" in block_line(hashed)
    told = block_line({**hashed, "training": {"attempts": 5_000, "search_seconds": 1.26}})
    assert "5,000 of 17 hashes expected, 1.3 s" in told
    for line in (block_line(hashed), told):
        assert "hash puzzle" in line
        assert not [word for word in ("epochs", "training", "0/", "digits") if word in line]


def test_a_line_says_that_nobody_commissioned_the_task():
    assert "digits (standing)" in block_line({**trained_block(2), "is_standing": True})
    assert "digits (standing)" in block_line({**empty_block(2), "is_standing": True})
    assert "(standing)" not in block_line(trained_block(2))


def test_the_last_hashed_block_is_printed_once_its_winner_has_told_of_its_search():
    console = Console(file=io.StringIO(), width=200)
    answers = node_answers()
    answers["learn_blocks"] = lambda *_: [empty_block(1), hashed_block(2)]
    answers["learn_status"] = lambda: {**status(), "trainings": {"2": {"attempts": 7, "search_seconds": 0.1}}}
    with PlainDisplay(console) as display:
        display.update(_look(answers))
    assert "7 of 17 hashes" in console.file.getvalue().splitlines()[1]


def test_the_live_table_says_that_a_standing_task_is_trained_and_that_a_puzzle_is_hashed():
    console = Console(file=io.StringIO(), width=180, force_terminal=True, color_system=None)
    answers = node_answers()
    hashing = {**status(), "phase": {"name": "hashing", "ends_in_milliseconds": 2_000}}
    with LiveDisplay(console, "") as display:
        display.update(_look(answers))
        console.print(display.draw())
        answers["learn_status"] = lambda: hashing
        answers["learn_blocks"] = lambda *_: [hashed_block(2)]
        display.update(_look(answers))
        console.print(display.draw())
    text = console.file.getvalue()
    assert "digits (standing: nobody commissioned one)" in text
    assert "hash puzzle  phase hashing" in text
    assert "17 hashes expected" in text
