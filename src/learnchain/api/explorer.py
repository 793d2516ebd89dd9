"""Build HTML from parts that escape themselves: whatever a stranger wrote into the chain stays text.

The explorer's pages: blocks, tasks, the open round, accounts and transactions, as this node knows them now.

Every page is read from the store when it is asked for, so it follows reorganisations by itself; a block that the head's
branch left is still found by its hash and says so.
"""

import html
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from aiohttp import web

from learnchain.api.chain_feed import Caller
from learnchain.api.inspection import Inspection
from learnchain.api.json_rpc import is_hash, read_hash, read_height
from learnchain.api.views import LearnInterface
from learnchain.encoding.codec import WEI_PER_ETHER
from learnchain.rejection import Rejected, Unavailable

POLICY = "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
"""Nothing is loaded but our own style sheet, nothing runs, nobody frames the page."""

HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
    "Cross-Origin-Resource-Policy": "same-origin",
}

ROOT = "/explorer"

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:72rem;margin:0 auto;padding:1rem;color:#1c2430;
background:#fff}nav a{margin-right:1rem}h1{font-size:1.4rem}h2{font-size:1.1rem;margin-top:2rem}
table{border-collapse:collapse;width:100%}th,td{text-align:left;padding:.25rem .75rem .25rem 0;border-bottom:1px solid
#d9dee6;vertical-align:top;overflow-wrap:anywhere}th{font-weight:600;white-space:nowrap}
code{font:13px ui-monospace,monospace}.bad{color:#a1160a;font-weight:600}.good{color:#0b6b2e}input{width:60%}
@media(prefers-color-scheme:dark){body{color:#e3e7ee;background:#12161c}a{color:#8ab4f8}th,td{border-color:#2c3440}}
"""

SHORT = 18


@dataclass(frozen=True, slots=True)
class Markup:
    """Hold text that is HTML already; everything else is escaped."""

    text: str


def escape(value: Any) -> str:
    """Return a value as HTML text; only `Markup` passes unchanged."""
    return value.text if isinstance(value, Markup) else html.escape(str(value), quote=True)


def link(path: str, label: Any) -> Markup:
    """Return a link to another page of the explorer; `path` is made of our own words, hex and numbers."""
    target = f"{ROOT}{path}" if path.startswith("?") else f"{ROOT}/{path}"
    return Markup(f'<a href="{html.escape(target, quote=True)}">{escape(label)}</a>')


def code(value: Any) -> Markup:
    """Return a value in the type of hashes."""
    return Markup(f"<code>{escape(value)}</code>")


def mark(good: bool, value: Any) -> Markup:
    """Return a value that is good or bad news."""
    return Markup(f'<span class="{"good" if good else "bad"}">{escape(value)}</span>')


def pairs(rows: Iterable[tuple[str, Any]]) -> Markup:
    """Return a table of names and values."""
    lines = "".join(f"<tr><th>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows)
    return Markup(f"<table>{lines}</table>")


def table(titles: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """Return a table with a head; an empty one says so."""
    lines = ["".join(f"<td>{escape(cell)}</td>" for cell in row) for row in rows]
    if not lines:
        return Markup("<p>none</p>")
    head = "".join(f"<th>{escape(title)}</th>" for title in titles)
    return Markup(f"<table><tr>{head}</tr>{''.join(f'<tr>{line}</tr>' for line in lines)}</table>")


def section(title: str, content: Markup) -> Markup:
    """Return a part of a page under its title."""
    return Markup(f"<h2>{escape(title)}</h2>{content.text}")


def page(title: str, parts: Iterable[Markup]) -> str:
    """Return a whole page with the way back and the search field."""
    search = (
        f'<form action="{ROOT}/find"><input name="q" aria-label="height, hash or address"> <button>Find</button></form>'
    )
    navigation = (
        f'<nav><a href="{ROOT}">Blocks</a><a href="{ROOT}/tasks">Tasks</a><a href="{ROOT}/round">Round</a>'
        f'<a href="{ROOT}/disputes">Disputes</a></nav>'
    )
    body = "".join(part.text for part in parts)
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    style = f'<link rel="stylesheet" href="{ROOT}/style.css">'
    return (
        f'<!doctype html><html lang="en"><head>{head}{style}</head>'
        f"<body>{navigation}{search}<h1>{escape(title)}</h1>{body}</body></html>\n"
    )


logger = logging.getLogger(__name__)
PAGE_BLOCKS = 25
_ADDRESS_LENGTH = 42
Page = Callable[[web.Request], Awaitable[str]]


class Explorer:
    """Answer GET requests under `/explorer`; nothing here changes anything."""

    def __init__(self, learn: LearnInterface, inspection: Inspection, caller: Caller) -> None:
        self._learn = learn
        self._inspection = inspection
        self._caller = caller

    def routes(self) -> list[web.RouteDef]:
        """Return the pages by their paths."""
        pages: dict[str, Page] = {
            "": self._blocks,
            "/block/{which}": self._block,
            "/tasks": self._tasks,
            "/task/{which}": self._task,
            "/round": self._round,
            "/disputes": self._disputes,
            "/account/{which}": self._account,
            "/transaction/{which}": self._transaction,
        }
        answers = [web.get(ROOT + path, _build_handler(each)) for path, each in pages.items()]
        return [*answers, web.get(f"{ROOT}/find", _find), web.get(f"{ROOT}/style.css", _style)]

    async def _blocks(self, request: web.Request) -> str:
        head = (await self._learn.status())["head"]
        upper = min(head["height"], read_height(request.query.get("upto", head["height"])))
        lower = max(1, upper - PAGE_BLOCKS + 1)
        blocks = await self._learn.blocks(lower, upper) if upper >= 1 else []
        rows = [_block_row(each) for each in reversed(blocks)]
        network = await self._learn.network()
        facts = pairs(
            [
                ("consensus", network["consensus"]),
                ("chain", network["chain_id"]),
                ("head", link(f"block/{head['hash']}", head["height"]) if head["height"] else 0),
                ("weight", head["weight"]),
            ]
        )
        older = [link(f"?upto={lower - 1}", "older blocks")] if lower > 1 else []
        return page("Blocks", [facts, table(("height", "task", "result", "winner", "seconds"), rows), *older])

    async def _block(self, request: web.Request) -> str:
        which = request.match_info["which"]
        wanted: Any = which if is_hash(which) else read_height(which)
        view, trace = await self._learn.block(wanted), await self._inspection.trace(wanted)
        candidates = await self._inspection.candidates(wanted)
        decisions = await self._learn.decisions(view["height"])
        parts = [
            pairs(_block_facts(view, await self._is_on_branch(view))),
            section("Candidates", table(("miner", "outcome", "count", "reason"), map(_candidate_row, candidates))),
            section(
                "Paid by the next payload",
                table(
                    ("to", "amount", "for"),
                    [
                        (_account(each["recipient"]), f"{each['amount_gwei']} gwei", each["kind"])
                        for each in view["payouts"]
                    ],
                ),
            ),
            section("Disputes", table(("what", "of height", "segment", "about", "by"), _list_carried_rows(view))),
            section("Signed", table(("step", "signer", "signature", "hash"), map(_message_row, trace["messages"]))),
            section("What this node did", table(("step", "about", "facts"), map(_decision_row, decisions))),
        ]
        return page(f"Block {view['height']}", parts)

    async def _tasks(self, _request: web.Request) -> str:
        tasks = await self._learn.tasks()
        titles = ("task", "reward", "publisher", "score")
        settled = [
            (_task_link(each["task"], each["task"]), each["outcome"], link(f"block/{each['height']}", each["height"]))
            for each in reversed(tasks["settled"][-100:])
        ]
        return page(
            "Tasks",
            [
                section("Selected", table(titles, [_task_row(tasks["selected"])])),
                section("Waiting", table(titles, map(_task_row, [*tasks["queued_tasks"], *tasks["posted_tasks"]]))),
                section("Settled", table(("task", "outcome", "block"), settled)),
            ],
        )

    async def _task(self, request: web.Request) -> str:
        task = await self._inspection.task(request.match_info["which"])
        rows = [(name, code(value)) for name, value in task.items() if name != "specification"]
        return page(f"Task {task.get('name', '')}", [pairs(rows)])

    async def _round(self, _request: web.Request) -> str:
        status, current = await self._learn.status(), await self._learn.round()
        candidates = await self._inspection.candidates()
        phase = status["phase"]
        facts = pairs(
            [
                ("height", status["deciding"]["height"]),
                ("task", _task_link(status["deciding"]["id"], status["deciding"]["name"])),
                ("phase", f"{phase['name']}, ends in {phase['ends_in_milliseconds'] / 1000:.1f} s"),
                ("key of the training data", "released" if current["key_released"] else "not released yet"),
                ("test set", "released" if current["released"] else "closed"),
                ("peers", status["peers"]),
            ]
        )
        shown = table(("miner", "outcome", "count", "reason"), map(_candidate_row, candidates))
        return page("The open round", [facts, section("Commitments", shown)])

    async def _disputes(self, _request: web.Request) -> str:
        found = await self._inspection.disputes()
        titles = ("height", "segment", "respondent", "as", "challenger", "state", "until block", "decided in")
        audits = [
            (each["height"], _account(each["auditor"]), each["committed_height"], each["opened_height"] or "not yet")
            for each in reversed(found["audits"])
        ]
        waiting = [
            (each["message"], each["height"], each["segment"], _account(each["respondent"]))
            for each in found["pending"]
        ]
        return page(
            "Disputes",
            [
                section("Asked, answered, decided", table(titles, map(_dispute_row, reversed(found["disputes"])))),
                section("Waiting for a block", table(("message", "height", "segment", "respondent"), waiting)),
                section("Audits", table(("height", "auditor", "committed in", "opened in"), audits)),
            ],
        )

    async def _account(self, request: web.Request) -> str:
        address = request.match_info["which"]
        balance, count, held = [
            await self._caller.rpc(method, [address, "latest"])
            for method in ("eth_getBalance", "eth_getTransactionCount", "eth_getCode")
        ]
        facts = [
            ("address", code(address)),
            ("balance", _coins(int(balance, 16))),
            ("transactions sent", int(count, 16)),
            ("code", "none" if held == "0x" else f"{len(held) // 2 - 1} bytes"),
        ]
        return page("Account", [pairs(facts)])

    async def _transaction(self, request: web.Request) -> str:
        wanted = "0x" + read_hash(request.match_info["which"]).hex()
        found = await self._caller.rpc("eth_getTransactionByHash", [wanted])
        if found is None:
            raise Unavailable("this transaction: it is neither on the chain nor waiting here")
        receipt = await self._caller.rpc("eth_getTransactionReceipt", [wanted])
        facts: list[tuple[str, Any]] = [
            ("hash", code(wanted)),
            ("from", _account(found["from"])),
            ("to", _account(found["to"]) if found["to"] else "a new contract"),
            ("value", _coins(int(found["value"], 16))),
            ("data", code(found["input"][:2_000])),
        ]
        if receipt is None:
            return page("Transaction", [pairs([*facts, ("state", "waits")])])
        succeeded = receipt["status"] == "0x1"
        facts += [
            ("state", mark(succeeded, "succeeded" if succeeded else "reverted")),
            ("payload", int(receipt["blockNumber"], 16)),
            ("gas used", int(receipt["gasUsed"], 16)),
        ]
        logs = [
            (_account(each["address"]), code(" ".join(each["topics"])), code(each["data"])) for each in receipt["logs"]
        ]
        return page("Transaction", [pairs(facts), section("Events", table(("contract", "topics", "data"), logs))])

    async def _is_on_branch(self, view: dict[str, Any]) -> bool:
        head = (await self._learn.status())["head"]["height"]
        return view["height"] <= head and (await self._learn.block(view["height"]))["hash"] == view["hash"]


def _build_handler(make: Page) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def answer(request: web.Request) -> web.Response:
        try:
            text, status = await make(request), 200
        except Rejected as error:
            text, status = page("Not found", [pairs([(error.reason.value, error.detail)])]), 404
        except Unavailable as error:
            text, status = page("Not here", [pairs([("not available", error.what)])]), 404
        except Exception:
            # A page that fails is a bug of ours; it is logged and must not end the server.
            logger.exception("the page %s failed", request.path)
            text, status = page("A fault of ours", [pairs([("details", "the node's log has them")])]), 500
        return web.Response(text=text, status=status, content_type="text/html", headers=HEADERS)

    return answer


async def _find(request: web.Request) -> web.Response:
    """Lead from what somebody typed to its page: a height, an address, or a hash of a block."""
    wanted = request.query.get("q", "").strip()[:100]
    if len(wanted) == _ADDRESS_LENGTH:
        place = f"account/{wanted}"
    elif is_hash(wanted) and wanted.startswith("0x"):
        place = f"transaction/{wanted}"
    else:
        place = f"block/{wanted}"
    if not place.replace("/", "").isalnum():
        place = "block/0"
    raise web.HTTPSeeOther(f"{ROOT}/{place}", headers=HEADERS)


async def _style(_request: web.Request) -> web.Response:
    return web.Response(text=STYLE, content_type="text/css", headers=HEADERS)


def _block_row(view: dict[str, Any]) -> tuple[Any, ...]:
    result: Any = mark(False, f"empty: no {view['missed']}") if view["empty"] else _result(view)
    winner = "" if view["empty"] else _account(view["winner"])
    name = view["task"]["name"] + (" (standing)" if view["is_standing"] else "")
    task: Any = "hash puzzle" if view["won_by"] == "hashing" else _task_link(view["task"]["id"], name)
    return link(f"block/{view['hash']}", view["height"]), task, result, winner, view["interval_seconds"]


def _block_facts(view: dict[str, Any], on_branch: bool) -> list[tuple[str, Any]]:
    facts: list[tuple[str, Any]] = [
        ("hash", code(view["hash"])),
        ("branch", mark(on_branch, "the head's" if on_branch else "left by the head")),
        ("parent", link(f"block/{view['parent']}", code(view["parent"])) if view["height"] > 1 else "genesis"),
        ("task", _task_link(view["task"]["id"], view["task"]["name"])),
        ("commissioned", "no: a standing task, so that blocks go on" if view["is_standing"] else "yes"),
        ("score", view["score"]),
        ("payload", code(view["payload"])),
    ]
    if view["empty"]:
        return [*facts, ("result", mark(False, f"empty: no {view['missed']} came in time"))]
    facts += [("winner", _account(view["winner"])), ("result", _result(view))]
    if not view["trained"]:
        puzzle = view["puzzle"]
        return [*facts, ("digest", code(puzzle["digest"])), ("target", code(puzzle["target"]))]
    return [
        *facts,
        ("training", view["training_mode"]),
        ("model", code(view["model"])),
        ("trace", code(view["trace"])),
    ]


def _result(view: dict[str, Any]) -> str:
    if not view["trained"]:
        return f"hashed, nothing trained; {view['puzzle']['expected_attempts']:,} hashes expected"
    return f"{view['accuracy']['correct']} of {view['accuracy']['total']}, {view['label']}"


def _candidate_row(each: dict[str, Any]) -> tuple[Any, ...]:
    count = f"{each['correct']} of {each['total']}" if "correct" in each else ""
    return _account(each["miner"]), each.get("outcome", ""), count, each.get("reason", "")


def _message_row(each: dict[str, Any]) -> tuple[Any, ...]:
    signer = "nobody" if each["signer"] is None else _account(each["signer"])
    return each["step"], signer, mark(each["holds"], "holds" if each["holds"] else "does not hold"), code(each["hash"])


def _decision_row(each: dict[str, Any]) -> tuple[Any, ...]:
    facts = {name: value for name, value in each.items() if name not in ("at", "step", "about")}
    return each["step"], code(each["about"]), ", ".join(f"{name} {value}" for name, value in facts.items())


def _dispute_row(each: dict[str, Any]) -> tuple[Any, ...]:
    people = _account(each["respondent"]), each["role"], _account(each["challenger"])
    ended = link(f"block/{each['decided_height']}", each["decided_height"]) if each["decided_height"] else ""
    place = link(f"block/{each['height']}", each["height"]), each["segment"]
    return *place, *people, mark(each["outcome"] == "responded", each["outcome"]), each["until_height"] or "", ended


def _list_carried_rows(view: dict[str, Any]) -> list[tuple[Any, ...]]:
    """Return the accusations, answers and evidence that a block carries."""
    asked = [
        ("asks for steps", each["height"], each["segment"], _account(each["respondent"]), _account(each["challenger"]))
        for each in view["challenges"]
    ]
    shown = [
        ("shows steps", each["height"], each["segment"], f"{each['states']} states", _account(each["respondent"]))
        for each in view["responses"]
    ]
    proven = [
        (each["fault"], each["height"], "", _account(each["offender"]), _account(each["reporter"]))
        for each in view["evidence"]
    ]
    return [*asked, *shown, *proven]


def _task_row(each: dict[str, Any]) -> tuple[Any, ...]:
    name = each["name"] + (" (standing)" if each["is_standing"] else "")
    return _task_link(each["id"], name), _coins(each["reward_wei"]), _account(each["publisher"]), each["score"]


def _task_link(task_id: str, name: str) -> Markup:
    return link(f"task/{task_id}", name or task_id[:SHORT])


def _account(address: str) -> Markup:
    return link(f"account/{address}", code(address[:SHORT]))


def _coins(wei: int) -> str:
    return f"{wei // WEI_PER_ETHER}.{wei % WEI_PER_ETHER:018d}".rstrip("0").rstrip(".")
