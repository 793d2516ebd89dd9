"""Every engine that is played from a folder of its own; `learnchain new engine` adds one line."""

from learnchain.testing import podl_play
from learnchain.testing.engine_play import EnginePlay

PLAYS: tuple[EnginePlay, ...] = (
    podl_play.PLAY,
    # new engines above this line
)
