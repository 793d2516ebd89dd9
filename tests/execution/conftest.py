"""An engine over a store in memory, and a chain that drives it."""

import pytest

from learnchain.encoding.files import MemoryStore
from learnchain.execution.pyevm.engine import PyEvmEngine
from tests.execution.pyevm.chain import Chain, genesis


@pytest.fixture
def store() -> MemoryStore:
    return MemoryStore()


@pytest.fixture
def engine(store: MemoryStore) -> PyEvmEngine:
    return PyEvmEngine(store, genesis())


@pytest.fixture
def chain(engine: PyEvmEngine) -> Chain:
    return Chain(engine)
