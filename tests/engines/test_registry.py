"""Engines are found by name, shipped or plugged in; what `learnchain up` posts by itself is what the engine takes."""

import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from learnchain.engines import registry
from learnchain.engines.registry import SHIPPED, decode_engine, engine_names, find_engine, list_compared_engines
from learnchain.node.local_network import LOCAL_PHASES
from learnchain.rejection import Rejected, RejectionReason
from learnchain.simulation.chain_builder import build_sample_parameters
from learnchain.simulation.sample_tasks import build_sample_task

Install = Callable[[str, str, str], None]


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Lay a package with one module and its metadata where Python looks for them."""

    def forget() -> None:
        registry._declared_engines.cache_clear()
        registry.find_engine.cache_clear()

    def write(name: str, entry: str, source: str) -> None:
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[{registry.GROUP}]\n{entry} = {name}:ENGINE\n")
        (tmp_path / f"{name}.py").write_text(source)
        forget()

    monkeypatch.syspath_prepend(str(tmp_path))
    yield write
    forget()
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


PATIENT = "from learnchain.engines.podl import ENGINE as MODEL\nENGINE = MODEL\n"


@pytest.mark.parametrize("name", SHIPPED)
def test_tasks_are_posted_by_default_only_where_commissions_are_taken(name):
    posted, parameters = build_sample_task("digits"), build_sample_parameters()
    rules = find_engine(name).build_local(LOCAL_PHASES, 3)
    reason = None
    try:
        rules.admit_task(posted.task, posted.specification, parameters)
    except Rejected as refused:
        reason = refused.reason
    assert (reason is RejectionReason.TASK_NOT_TRAINED) == (not find_engine(name).accepts_posted_tasks)


def test_the_quantised_variant_differs_from_podl_in_the_bits_of_a_weight_alone():
    plain, small = (find_engine(name).build_local(LOCAL_PHASES, 3) for name in ("podl", "podl-quantised"))
    assert (plain.model_bits, small.model_bits) == (32, 8)
    assert replace(small, model_bits=32) == plain
    assert decode_engine("podl", small.encode_parameters()) == small


def test_the_shipped_engines_are_the_entry_points_of_the_project():
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]
    assert project["entry-points"][registry.GROUP] == SHIPPED


def test_a_plug_in_is_found_beside_the_shipped_engines_and_loaded_when_asked_for(install):
    install("patience", "patient", PATIENT)
    assert engine_names() == (*SHIPPED, "patient")
    assert "patience" not in sys.modules
    assert find_engine("patient") is find_engine("podl")
    assert "patient" in list_compared_engines()


@pytest.mark.parametrize(
    ("source", "said"),
    [("import nowhere_at_all\n", "nowhere_at_all"), ("raise OSError(5, 'disk')\n", "disk"), ("ENGINE = 7\n", "int")],
)
def test_a_plug_in_that_does_not_load_is_named(install, source, said):
    install("broken", "fifth", source)
    with pytest.raises(Rejected, match=rf"'fifth'.*broken:ENGINE of broken.*{said}") as refusal:
        find_engine("fifth")
    assert refusal.value.reason is RejectionReason.ARGUMENT_INVALID
    assert find_engine("dlbc").about


def test_a_plug_in_takes_no_name_of_a_shipped_engine(install):
    install("impostor", "dlbc", PATIENT)
    with pytest.raises(Rejected, match=r"more than once: .* of learnchain and impostor:ENGINE of impostor"):
        find_engine("dlbc")
    assert find_engine("podl").about


def test_two_plug_ins_of_one_name_are_both_named(install):
    install("one", "fifth", PATIENT)
    install("other", "fifth", PATIENT)
    with pytest.raises(Rejected, match=r"one:ENGINE of one.*other|other:ENGINE of other.*one"):
        find_engine("fifth")
