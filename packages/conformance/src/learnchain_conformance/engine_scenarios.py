"""Every engine as tests and vectors play it; `learnchain new engine` adds one line."""

from learnchain.testing import dlbc_play, podl_play, pole_play, proof_of_work_play
from learnchain.testing.engine_play import EnginePlay

PLAYS: tuple[EnginePlay, ...] = (
    dlbc_play.PLAY,
    pole_play.PLAY,
    proof_of_work_play.PLAY,
    podl_play.PLAY,
    # new engines above this line
)
