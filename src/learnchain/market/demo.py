"""Play one task of the market from its announcement to the last payout, on any EVM chain (BaaS IV)."""

import hashlib
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from learnchain.encoding.codec import WEI_PER_ETHER, Address
from learnchain.encoding.content_id import cid_text
from learnchain.execution.wallet import Wallet
from learnchain.learning import fused_model
from learnchain.learning.data import DataSet, save_data
from learnchain.learning.fusion import FusionStrategy, FusionTerms, Outputs
from learnchain.learning.model import load_weights
from learnchain.market import contributors
from learnchain.market.client import MarketClient
from learnchain.market.contract import ContractClient, RpcPort, TaskView, creation_code
from learnchain.market.demo_cast import ABSENT, Split, build_hostile_model, deal, recommended_model, train_private
from learnchain.market.initiator import Initiator, announce_task
from learnchain.market.terms import (
    Description,
    ModelStatus,
    Payment,
    SampleData,
    Terms,
    VoteInterpretation,
    refusal_text,
)
from learnchain.protocol.model_specification import ModelSpecification
from learnchain.rejection import Unavailable
from learnchain.storage.blobs.peer_blobs import PeerBlobs

ROUND_SECONDS = 10
"""How far the chain's time moves between two looks of every role."""

_MAXIMUM_ROUNDS = 400
_ETHER = WEI_PER_ETHER


@dataclass(frozen=True, slots=True)
class MarketChain:
    """Hand over a chain: calls, a pause while a block is awaited, a way to let time pass, and funded wallets."""

    rpc: RpcPort
    pause: Callable[[], Awaitable[None]]
    advance: Callable[[int], Awaitable[None]]
    wallets: tuple[Wallet, ...]


@dataclass(frozen=True, slots=True)
class MarketScenario:
    """Fix what is played: the scenario, who lies, who joins late or leaves, and which hostile models are offered."""

    scenario: int
    split: Split
    home: contributors.LocalTrainingTerms = field(default_factory=contributors.LocalTrainingTerms)
    strategy: FusionStrategy = FusionStrategy.GRADUAL
    outputs: Outputs = Outputs.LITERAL
    fusion_epochs: int = 24
    verifiers: int = 3
    committee: int = 3
    reading: VoteInterpretation = VoteInterpretation.GAIN
    payment: Payment = Payment.WITHIN_TOLERANCE
    fitness: int = 0
    threshold: int = 7_000
    lying_verifier: bool = False
    leaving_verifier: bool = False
    late_joiner: bool = False
    hostile_models: tuple[str, ...] = ()


class MarketRun:
    """Hold one run: the cast, the chain, and what everybody owned before."""

    def __init__(self, script: MarketScenario, stage: MarketChain, data: DataSet, directory: Path) -> None:
        self._script, self._stage, self._directory = script, stage, directory
        self._ledger = ContractClient(stage.rpc, stage.pause)
        self._sample, self._private = deal(data, script.split, b"table-2")
        self._blobs = PeerBlobs(directory / "blobs")
        self._contract: Address = b""
        self._task_id = b""
        self._first_block = 0
        self._homes: list[contributors.LocalTrainingResult] = []
        self._offers: list[tuple[str, contributors.LocallyTrainedModel]] = []
        self._contributors: list[contributors.ComputingContributor] = []
        self._verifiers: list[contributors.VerificationContributor] = []
        self._gone: set[int] = set()
        self._views: dict[int, TaskView] = {}

    async def run(self) -> dict[str, Any]:
        """Carry out the script; return what happened in numbers."""
        started = time.monotonic()
        before = await self._sum_balances()
        self._train()
        trained = time.monotonic()
        initiator = await self._announce()
        await self._run_rounds(initiator)
        collected = await initiator.collect()
        judge = self._build_judge(fused_model.load_sample(*self._sample_paths()))
        places = self._view(0).list_accepted()
        for place, (manifest, weights) in zip(places, collected, strict=True):
            judge.add(place, manifest.specification, manifest.labels, weights)
        exported = await self._export(judge, places)
        for contributor in self._contributors:
            await contributor.withdraw()
        for verifier in self._verifiers:
            await verifier.leave()
        await initiator.withdraw()
        decided = time.monotonic()
        curves = self._measure_curves()
        report = self._report(await self._compute_payouts(before))
        seconds = {
            "training": trained - started,
            "market": decided - trained,
            "fusion_curves": time.monotonic() - decided,
        }
        return report | {"fusion": curves, "fused_model": exported, "seconds": seconds}

    # --- acts -----------------------------------------------------------------------------------------------------

    def _train(self) -> None:
        shape = self._sample.training.sample_shape
        for index, own in enumerate(self._private):
            model = recommended_model(self._script.scenario, index, shape)
            home = self._directory / f"contributor-{index + 1}"
            self._homes.append(train_private(model, own, self._script.home, home, time.monotonic))
        self._offers = [(f"contributor {index + 1}", home.model) for index, home in enumerate(self._homes)]
        for kind in self._script.hostile_models:
            made = build_hostile_model(kind, self._homes[0].model, self._directory / "hostile")
            self._offers.insert(1, (f"hostile: {kind}", made))

    async def _announce(self) -> Initiator:
        self._contract = await self._ledger.deploy(self._stage.wallets[0], creation_code())
        parts = (self._sample.training, self._sample.test, self._sample.verification)
        for path, part in zip(self._sample_paths(), parts, strict=True):
            save_data(path, part)
        cids = [await self._blobs.add(path) for path in self._sample_paths()]
        terms, description = await self._terms(), self._description(SampleData(*cids))
        self._task_id, self._first_block = await announce_task(
            self._ledger, self._stage.wallets[0], self._contract, terms, description
        )
        return Initiator(self._participant(0))

    async def _run_rounds(self, initiator: Initiator) -> None:
        script = self._script
        for index in range(script.verifiers):
            await self._add_verifier(index)
        offers = list(self._offers)
        for _ in range(_MAXIMUM_ROUNDS):
            view = self._view(0)
            if offers and len(view.judged) == len(self._contributors):
                await self._offer(*offers.pop(0))
            if script.late_joiner and len(view.judged) == 2 and len(self._verifiers) == script.verifiers:
                await self._add_verifier(script.verifiers)
            if script.leaving_verifier and len(view.judged) == 2:
                self._gone.add(0)
            for contributor in self._contributors:
                await contributor.step()
            for index, verifier in enumerate(self._verifiers):
                if index not in self._gone:
                    await verifier.step()
            if await initiator.step():
                for contributor in self._contributors:
                    await contributor.step()
                return
            await self._stage.advance(ROUND_SECONDS)
        raise Unavailable(f"an end of the task after {_MAXIMUM_ROUNDS} rounds")

    async def _offer(self, name: str, trained: contributors.LocallyTrainedModel) -> None:
        index = len(self._contributors)
        contributor = contributors.ComputingContributor(self._participant(1 + index))
        self._contributors.append(contributor)
        if not await contributor.offer(trained):
            raise Unavailable(
                f"a model of {name}: {trained.accuracy.correct} of {trained.accuracy.total} is too little"
            )
        if name.endswith(ABSENT):
            await self._blobs.discard(self._view(1 + index).models[index].cid)

    async def _add_verifier(self, index: int) -> None:
        judge: Any = self._build_judge(fused_model.load_sample(*self._sample_paths()))
        if self._script.lying_verifier and index == self._script.verifiers - 1:
            judge = _LyingMeasure(judge)
        verifier = contributors.VerificationContributor(self._participant(1 + len(self._offers) + index), judge)
        self._verifiers.append(verifier)
        await verifier.step()

    # --- what the acts need -----------------------------------------------------------------------------------------

    def _participant(self, index: int) -> MarketClient:
        folder = self._directory / f"account-{index}"
        wallet = self._stage.wallets[index]
        return MarketClient(
            wallet, self._ledger, self._contract, self._blobs, self._view(index), folder, _entropy(index, self._task_id)
        )

    def _view(self, index: int) -> TaskView:
        if index not in self._views:
            self._views[index] = TaskView(self._ledger, self._contract, self._task_id, self._first_block)
        return self._views[index]

    def _build_judge(self, sample: fused_model.VerifierData) -> fused_model.FusionEvaluator:
        return fused_model.FusionEvaluator(self._task_id, sample, self._fusion_terms(self._script.strategy))

    def _fusion_terms(self, strategy: FusionStrategy, outputs: Outputs | None = None) -> FusionTerms:
        epochs = self._script.fusion_epochs
        return FusionTerms(10, strategy, outputs or self._script.outputs, epochs, epochs // 3)

    def _sample_paths(self) -> tuple[Path, Path, Path]:
        self._directory.mkdir(parents=True, exist_ok=True)
        names = ("training", "test", "verification")
        first, second, third = (self._directory / f"sample-{name}.safetensors" for name in names)
        return first, second, third

    async def _terms(self) -> Terms:
        script, (_, now) = self._script, await self._ledger.head()
        return Terms(
            closes_seconds=now + 100_000,
            commit_seconds=60,
            reveal_seconds=60,
            rows=len(self._sample.verification),
            fitness=script.fitness,
            tolerance=50,
            interpretation=script.reading,
            payment=script.payment,
            models=len(self._offers),
            committee=script.committee,
            model_wei=2 * _ETHER,
            vote_wei=_ETHER // 10,
            stake_wei=_ETHER,
            bond_wei=_ETHER // 2,
        )

    def _description(self, sample: SampleData) -> Description:
        recommended: tuple[ModelSpecification, ...] = ()
        if self._script.scenario == 2:
            recommended = (self._homes[0].model.manifest.specification,)
        return Description(
            "handwritten digits",
            "grey images of one handwritten digit each, centred, 0 to 255",
            self._sample.training.sample_shape,
            tuple(str(digit) for digit in range(10)),
            sample,
            recommended,
            self._script.threshold if self._script.scenario == 2 else 0,
            self._script.strategy.value,
            self._script.outputs.value,
            16 << 20,
        )

    async def _sum_balances(self) -> int:
        return sum([await self._ledger.balance(wallet.address) for wallet in self._stage.wallets])

    # --- what came of it ----------------------------------------------------------------------------------------------

    async def _compute_payouts(self, before: int) -> dict[str, Any]:
        held = await self._ledger.balance(self._contract)
        after = await self._sum_balances()
        return {
            "accounts_before_wei": before,
            "accounts_after_wei": after,
            "fees_wei": self._ledger.fees_wei,
            "left_in_contract_wei": held,
            "conserved": before == after + held + self._ledger.fees_wei,
        }

    async def _export(self, judge: fused_model.FusionEvaluator, places: tuple[int, ...]) -> dict[str, Any]:
        if not places:
            return {}
        weights, specification = judge.export(places, self._directory / "fused")
        accuracy = judge.fuse(places).accuracy
        return {
            "places": list(places),
            "weights_cid": cid_text(await self._blobs.add(weights)),
            "weights_bytes": weights.stat().st_size,
            "specification_bytes": specification.stat().st_size,
            "correct": accuracy.correct,
            "total": accuracy.total,
        }

    def _measure_curves(self) -> dict[str, Any]:
        """Return the accuracy by the number of models, in arrival order, whatever the votes made of them."""
        honest = [
            fused_model.SharedModel(model, load_weights(home.model.weights, model), own.labels)
            for home, own in zip(self._homes, self._private, strict=True)
            for model in [home.model.manifest.specification]
        ]
        started = time.monotonic()
        members = [fused_model.examine(model, self._sample) for model in honest]
        rows = len(self._sample.verification)
        curves: dict[str, Any] = {}
        for strategy in FusionStrategy:
            found = fused_model.fusion_curve(members, self._sample, self._fusion_terms(strategy), b"curve")
            curves[strategy.value] = [correct / rows for correct in found]
        literal = time.monotonic() - started
        by_label = fused_model.fusion_curve(
            members, self._sample, self._fusion_terms(FusionStrategy.GRADUAL, Outputs.BY_LABEL), b"curve"
        )
        paper = {"strategy_1": 0.984, "strategy_2": 0.986}
        return curves | {
            "strategy_2_by_label": [correct / rows for correct in by_label],
            "rows": rows,
            "paper": paper,
            "seconds_both_strategies": literal,
        }

    def _report(self, value: dict[str, Any]) -> dict[str, Any]:
        view = self._view(0)
        names = {wallet.address: f"account {index}" for index, wallet in enumerate(self._stage.wallets)}
        models = []
        for place, (name, home) in enumerate(self._offers):
            status, median, paid = view.judged.get(place, (ModelStatus.UNKNOWN, 0, 0))
            votes = [vote for vote in view.votes if vote.model_index == place]
            refusals = sorted({refusal_text(vote.refusal) for vote in votes if vote.refusal})
            models.append({
                "place": place,
                "name": name,
                "labels": list(home.manifest.labels),
                "own_accuracy": float(home.accuracy.share),
                "status": status.name.lower(),
                "median_correct": median,
                "paid_votes": paid,
                "votes": {names[vote.verifier]: vote.correct for vote in votes},
                "refused_because": refusals,
                "cid": cid_text(view.models[place].cid) if place in view.models else None,
            })  # fmt: skip
        leaks = [(home.membership, home.epsilon) for home in self._homes]
        return {
            "scenario": self._script.scenario,
            "task": self._task_id.hex(),
            "contract": "0x" + self._contract.hex(),
            "models": models,
            "membership_inference": [
                {"advantage": leak.advantage, "area": leak.area, "epsilon": epsilon} for leak, epsilon in leaks
            ],
            "value": value,
        }


class _LyingMeasure:
    """Measure honestly and report half of it."""

    def __init__(self, judge: fused_model.FusionEvaluator) -> None:
        self._build_judge = judge

    def measure(self, accepted: tuple[int, ...], model_index: int) -> int:
        return self._build_judge.measure(accepted, model_index) // 2

    def add(self, model_index: int, specification: ModelSpecification, labels: tuple[int, ...], weights: Path) -> None:
        self._build_judge.add(model_index, specification, labels, weights)

    def is_known(self, model_index: int) -> bool:
        return self._build_judge.is_known(model_index)


def _entropy(index: int, task_id: bytes) -> Callable[[int], bytes]:
    """Return reproducible bytes: a run on a chain without value is the same every time."""
    drawn = 0

    def draw(length: int) -> bytes:
        nonlocal drawn
        drawn += 1
        seed = task_id + index.to_bytes(2, "big") + drawn.to_bytes(4, "big")
        return hashlib.shake_256(b"market-play" + seed).digest(length)

    return draw
