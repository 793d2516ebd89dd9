"""What a stranger wrote stays text, wherever it stands."""

import pytest

from learnchain.api.explorer import POLICY, code, escape, link, mark, page, pairs, section, table

HOSTILE = """"'><script>alert(1)</script><img src=x onerror=alert(1)>"""


@pytest.mark.parametrize(
    "text",
    [
        escape(HOSTILE),
        link("block/1", HOSTILE).text,
        link(HOSTILE, 1).text,
        code(HOSTILE).text,
        mark(True, HOSTILE).text,
        pairs([(HOSTILE, HOSTILE)]).text,
        table((HOSTILE,), [(HOSTILE,)]).text,
        section(HOSTILE, code(HOSTILE)).text,
        page(HOSTILE, [code(HOSTILE)]),
    ],
)
def test_every_part_escapes_what_it_is_given(text: str):
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "<img" not in text
    assert "\"'>" not in text


def test_the_policy_loads_nothing_and_runs_nothing():
    assert POLICY.startswith("default-src 'none'")
    assert "script" not in POLICY
    assert "unsafe" not in POLICY
    assert "style=" not in page("x", [table(("a",), [(1,)])])


def test_an_empty_table_says_so():
    assert table(("a",), []).text == "<p>none</p>"
