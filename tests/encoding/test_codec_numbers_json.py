"""Nested texts are refused before the parser recurses, whatever the recursion limit of the process is."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from learnchain.encoding.codec import parse_json

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_it_reads_what_json_reads(value: object) -> None:
    import json

    assert parse_json(json.dumps(value)) == value


def test_brackets_inside_texts_do_not_count() -> None:
    assert parse_json(b'["' + b"[" * 500 + b'\\"{"]') == ["[" * 500 + '"{']


@pytest.mark.parametrize("opening", [b"[", b'{"a":', b'["\\"",['])
def test_deep_nesting_is_an_error(opening: bytes) -> None:
    with pytest.raises(ValueError, match="nested deeper"):
        parse_json(opening * 100_000)


def test_a_process_with_the_execution_engine_survives_it() -> None:
    code = (
        "import eth, sys\n"
        "from learnchain.learning.jobs import unpack_body\n"
        "from learnchain.rejection import Rejected\n"
        "assert sys.getrecursionlimit() > 10_000\n"
        "try:\n    unpack_body(b'[' * 900_000)\n"
        "except Rejected as error:\n    print(error.reason.value)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "malformed")
