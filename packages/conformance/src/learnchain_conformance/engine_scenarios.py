"""Every engine as tests and vectors play it; `learnchain new engine` adds one line."""

from learnchain.engines.dlbc import scenario as dlbc_play
from learnchain.engines.podl import scenario as podl_play
from learnchain.engines.pole import scenario as pole_play
from learnchain.engines.proof_of_work import scenario as proof_of_work_play
from learnchain_conformance.engine_scenario import EngineScenario

SCENARIOS: tuple[EngineScenario, ...] = (
    dlbc_play.SCENARIO,
    pole_play.SCENARIO,
    proof_of_work_play.SCENARIO,
    podl_play.SCENARIO,
    # new engines above this line
)
