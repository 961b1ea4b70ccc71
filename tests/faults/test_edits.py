"""Files that somebody changed in one place: used, or refused in a line that names file and field. Nothing else."""

import edits
import pytest


@pytest.mark.parametrize("kind", edits.KINDS)
def test_a_changed_file_is_used_or_refused(kind):
    for number in range(4):
        one = edits.edit(kind, f"test {kind} {number}")
        assert "failure" not in one, one


@pytest.mark.slow
@pytest.mark.parametrize("kind", edits.KINDS)
def test_many_changed_files(kind):
    failed = [one for number in range(80) if "failure" in (one := edits.edit(kind, f"slow {kind} {number}"))]
    assert failed == []
