"""A strict run fails on a skipped test that the list does not have, with its reason."""

import pytest
from conftest import ALLOWED_SKIPS, read_allowed_skips

LISTED = """# a comment

tests/test_a.py::* | no data at * | without data
tests/test_b.py::test_one | needs two devices | always
"""


@pytest.mark.parametrize(
    ("test", "reason", "absent", "allowed"),
    [
        ("tests/test_b.py::test_one", "needs two devices", [], True),
        ("tests/test_b.py::test_one", "needs a GPU", [], False),
        ("tests/test_b.py::test_two", "needs two devices", [], False),
        ("tests/test_a.py::test_x[1-2]", "no data at /there", ["data"], True),
        ("tests/test_a.py::test_x[1-2]", "no data at /there", ["chromium"], False),
        ("tests/test_a.py::test_x[1-2]", "no data at /there", [], False),
    ],
)
def test_a_skip_is_allowed_by_its_test_reason_and_machine(test, reason, absent, allowed):
    lines = read_allowed_skips(LISTED)
    assert len(lines) == 2
    assert any(line.covers(test, reason, absent) for line in lines) == allowed


@pytest.mark.parametrize("line", ["tests/* | no data", "tests/* | no data | sometimes"])
def test_a_line_of_another_form_is_refused(line):
    with pytest.raises(ValueError, match="is not TESTS"):
        read_allowed_skips(line)


def test_the_list_is_of_this_form():
    assert read_allowed_skips(ALLOWED_SKIPS.read_text())
