"""The generated pages are those that the code gives today."""

from pathlib import Path

from learnchain.engines.contract import STEPS
from learnchain.rejection import RejectionReason
from learnchain_conformance.documents import MESSAGES, engines_page, messages_page, reasons_page, write_documents

DOCUMENTS = Path(__file__).parent.parent.parent / "docs"


def test_pages_are_current(tmp_path: Path) -> None:
    for path in write_documents(tmp_path):
        assert (DOCUMENTS / path.name).read_text() == path.read_text(), f"{path.name}: write_documents changes it"


def test_every_reason_is_listed_once_in_a_group() -> None:
    page = reasons_page()
    for reason in RejectionReason:
        assert page.count(f"| `{reason.value}` |") == 1
    assert page.index("## Any step") < page.index("`malformed`") < page.index("## 1 task")


def test_every_noun_and_step_has_its_place() -> None:
    assert [line[3:] for line in messages_page().splitlines() if line.startswith("## ")] == MESSAGES
    assert all(f"`{step}`" in engines_page() for step in STEPS)
