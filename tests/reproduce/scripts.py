"""Load a script of `reproduce/` as a reader runs it: beside its neighbours, from its own folder."""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).parents[2] / "reproduce"


def loaded(paper: str, name: str) -> ModuleType:
    """Return a script as a module, without running its `main`."""
    place = FOLDER / paper
    if str(place) not in sys.path:
        sys.path.insert(0, str(place))
    specification = importlib.util.spec_from_file_location(name, place / f"{name}.py")
    assert specification is not None and specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    # Dataclasses look their module up while it is being carried out.
    sys.modules[name] = module
    specification.loader.exec_module(module)
    return module
