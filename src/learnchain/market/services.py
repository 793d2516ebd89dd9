"""The three roles of the market as daemons, and a look at a task: each stands alone against a chain's JSON-RPC."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from learnchain.encoding.codec import Accuracy, parse_json
from learnchain.encoding.content_id import cid_text
from learnchain.encoding.cryptography import tagged_hash
from learnchain.encoding.files import write_whole
from learnchain.learning.data import DataSet, permutation, select_rows
from learnchain.learning.train import configure_torch
from learnchain.market import contributors
from learnchain.market.client import MarketClient
from learnchain.market.contract import TaskView
from learnchain.market.initiator import (
    Initiator,
    Session,
    TaskReference,
    build_fusion_evaluator,
    join_task,
    ledger_at,
)
from learnchain.market.package import PackageManifest, check_manifest
from learnchain.market.terms import BASIS_POINTS, ModelStatus, refusal_text
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.rejection import Rejected, RejectionReason

_SECRET_BYTES = 32


@dataclass(frozen=True, slots=True, eq=False)
class PrivateWork:
    """Hold what a computing contributor brings: rows that stay, an architecture or the recommended one, terms."""

    rows: DataSet
    kept_back_percent: int
    model: ModelSpecification | None
    terms: contributors.LocalTrainingTerms
    clock: Callable[[], float]


async def contribute(seat: Session, name: TaskReference, work: PrivateWork) -> dict[str, Any]:
    """Train, publish if the threshold is reached, hand out keys until the task is closed, take what was earned."""
    async with join_task(seat, name) as me:
        seller = contributors.ComputingContributor(me)
        await seat.retry("contribution", seller.step)
        # A model that is on chain already was announced in an earlier life: it is not trained again.
        report = _read_report(me.directory)
        if seller.model_index is None:
            trained, report = await asyncio.to_thread(_train, me, work)

            async def offer() -> bool:
                return await seller.offer(trained)

            if not await seat.retry("contribution", offer):
                return {"published": False, **report, "threshold": me.view.description.threshold / BASIS_POINTS}

        async def serve() -> bool:
            await seller.step()
            return (await me.view.task()).closed

        while not await seat.retry("contribution", serve):
            await seat.pause()
        await seat.retry("contribution", seller.step)
        earned_wei = await seat.retry("contribution", seller.withdraw)
        assert seller.model_index is not None
        status, median, _ = me.view.judged.get(seller.model_index, (ModelStatus.UNKNOWN, 0, 0))
        outcome = {"place": seller.model_index, "status": status.name.lower(), "median_correct": median}
        return {"published": True, **report, **outcome, "withdrawn_wei": earned_wei}


async def verify(seat: Session, name: TaskReference) -> dict[str, Any]:
    """Stake, measure and vote until the task is closed, then take stake and pay."""
    configure_torch()
    async with join_task(seat, name) as me:

        async def judge() -> Any:
            return await build_fusion_evaluator(me)

        verifier = contributors.VerificationContributor(me, await seat.retry("verification", judge))
        before = await seat.retry("verification", lambda: me.ledger.balance(me.wallet.address))
        await verifier.run(seat.pause)
        after = await seat.retry("verification", lambda: me.ledger.balance(me.wallet.address))
        own = [vote for vote in me.view.votes if vote.verifier == me.wallet.address]
        votes = [
            {
                "place": vote.model_index,
                "correct": vote.correct,
                "refusal": refusal_text(vote.refusal) if vote.refusal else None,
            }
            for vote in own
        ]
        return {"votes": votes, "balance_change_wei": after - before}


async def collect(seat: Session, name: TaskReference, out: Path) -> dict[str, Any]:
    """Wait for the end of one's own task, close it, take the refund, fuse the rewarded models and write them."""
    configure_torch()
    async with join_task(seat, name) as me:
        initiator = Initiator(me)
        while not await seat.retry("initiator", initiator.step):
            await seat.pause()
        refund_wei = await seat.retry("initiator", initiator.withdraw)
        # The last decision may have fallen between a look at the events and one at the contract.
        await seat.retry("initiator", me.view.refresh)
        places = me.view.list_accepted()
        if not places:
            return {"accepted": [], "withdrawn_wei": refund_wei, "fused": None}
        models = await seat.retry("initiator", initiator.collect)
        judge = await seat.retry("initiator", lambda: build_fusion_evaluator(me))
        for place, (manifest, weights) in zip(places, models, strict=True):
            judge.add(place, manifest.specification, manifest.labels, weights)
        files = await asyncio.to_thread(judge.export, places, out)
        accuracy = judge.fuse(places).accuracy
        fused = {"files": [str(file) for file in files], "correct": accuracy.correct, "total": accuracy.total}
        return {"accepted": list(places), "withdrawn_wei": refund_wei, "fused": fused}


async def show_task(seat_rpc: str, pause: Callable[[], Any], name: TaskReference) -> dict[str, Any]:
    """Return how a task stands, from its events and its contract."""
    async with ledger_at(seat_rpc, pause) as ledger:
        view = TaskView(ledger, name.contract, name.task_id, name.block)
        await view.refresh()
        terms, description = view.terms, view.description
        task = await view.task()
        _, now = await ledger.head()
        models = []
        for place, model in sorted(view.models.items()):
            status, median, paid = view.judged.get(place, ((await view.model(place)).status, 0, 0))
            votes = {
                "0x" + vote.verifier.hex(): refusal_text(vote.refusal) if vote.refusal else vote.correct
                for vote in view.votes
                if vote.model_index == place
            }
            facts = {"contributor": "0x" + model.contributor.hex(), "cid": cid_text(model.cid)}
            decided = {"status": status.name.lower(), "median_correct": median, "paid_votes": paid}
            models.append({"place": place, **facts, **decided, "votes": votes})
        return {
            "task": str(name),
            "title": description.title,
            "labels": list(description.labels),
            "initiator": "0x" + task.initiator.hex(),
            "closed": task.closed,
            "closes_in_seconds": max(0, terms.closes_seconds - now),
            "slots": terms.models,
            "committee": terms.committee,
            "rows": terms.rows,
            "interpretation": terms.interpretation.name.lower(),
            "payment": terms.payment.name.lower(),
            "model_wei": terms.model_wei,
            "vote_wei": terms.vote_wei,
            "verifiers": sorted("0x" + each.hex() for each in view.enrolled),
            "models": models,
        }


def _train(me: MarketClient, work: PrivateWork) -> tuple[contributors.LocallyTrainedModel, dict[str, Any]]:
    """Train, or take what an earlier life of this daemon trained for the same task."""
    configure_torch()
    description, report = me.view.description, _read_report(me.directory)
    specification = description.recommended[0] if description.recommended else work.model
    if specification is None:
        raise Rejected(RejectionReason.ARGUMENT_INVALID, "the task recommends no architecture: name one with --model")
    labels = tuple(sorted(set(work.rows.labels.tolist())))
    manifest, weights = PackageManifest(specification, labels), me.directory / "home.safetensors"
    check_manifest(manifest, description)
    if not report or not weights.is_file():
        kept = max(1, len(work.rows) * work.kept_back_percent // 100)
        if kept >= len(work.rows):
            raise Rejected(RejectionReason.ARGUMENT_INVALID, f"{kept} of {len(work.rows)} rows would be kept back")
        secret = me.entropy(_SECRET_BYTES)
        drawn = permutation("market/kept-back", tagged_hash("market/kept-back", secret), len(work.rows))
        data = contributors.HeldOutSplit(
            labels, select_rows(work.rows, drawn[kept:]), select_rows(work.rows, drawn[:kept])
        )
        found = contributors.train_locally(
            specification, data, work.terms, me.directory, contributors.LocalTrainingTools(work.clock, secret)
        )
        report = dict[str, Any](
            {
                "correct": found.model.accuracy.correct,
                "total": found.model.accuracy.total,
                "membership_advantage": found.membership.advantage,
                "membership_area": found.membership.area,
                "epsilon": found.epsilon,
            }
        )
        write_whole(_report_file(me.directory), json.dumps(report).encode())
    return contributors.LocallyTrainedModel(manifest, weights, Accuracy(report["correct"], report["total"])), report


def _reason(refusal: int) -> str | None:
    return refusal_text(refusal) if refusal else None


def _read_report(directory: Path) -> dict[str, Any]:
    try:
        return dict(parse_json(_report_file(directory).read_text()))
    except (OSError, ValueError):
        return {}


def _report_file(directory: Path) -> Path:
    return directory / "home.json"
