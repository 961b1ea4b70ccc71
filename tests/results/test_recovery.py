"""Results that a kill interrupted, places that cannot be written, and files that are not ours."""

import json
import os
import subprocess
import sys
import textwrap

import pytest
from page_reader import make_result

from vislens_interp.results.result import LensResult
from vislens_interp.results.storage import check_folder


def run(script, *arguments):
    return subprocess.run([sys.executable, "-c", textwrap.dedent(script), *map(str, arguments)], check=False).returncode


@pytest.mark.parametrize("rename", [1, 2])
def test_a_kill_at_a_rename_loses_nothing(tmp_path, rename):
    make_result(3).save(tmp_path / "data" / "source")
    script = """
        import os, sys
        from vislens_interp.results.result import LensResult
        source, out, last = sys.argv[1], sys.argv[2], int(sys.argv[3])
        LensResult.load(source).save(out)
        rename, count = os.rename, 0
        def rename_and_die(*names):
            global count
            count += 1
            if count == last:
                os._exit(9)
            rename(*names)
        os.rename = rename_and_die
        LensResult.load(source).save(out)
    """
    folder = tmp_path / "out"
    assert run(script, tmp_path / "data" / "source", folder, rename) == 9
    assert len(os.listdir(tmp_path)) > 2 or not folder.exists()  # something was left
    again = "import sys; from vislens_interp import LensResult; assert len(LensResult.load(sys.argv[1])) == 3"
    assert run(again, folder) == 0
    save = "import sys; from vislens_interp import LensResult; LensResult.load(sys.argv[1]).save(sys.argv[2])"
    assert run(save, folder, folder) == 0
    assert sorted(os.listdir(tmp_path)) == ["data", "out"]
    assert len(LensResult.load(folder)) == 3


def test_a_place_that_cannot_be_written_is_said_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr(LensResult, "figure", lambda self: pytest.fail("drawn before the folder was looked at"))
    for call in (make_result().save, check_folder):
        with pytest.raises(OSError, match="file/out' cannot be written: Not a directory"):
            call(tmp_path / "file" / "out")
    assert os.listdir(tmp_path) == ["file"]


def test_a_file_that_somebody_listed_is_not_ours(tmp_path):
    folder = make_result().save(tmp_path / "out")
    (folder / "thesis.tex").write_text("all of it")
    content = json.loads((folder / "result.json").read_text())
    content["files"] = {**content["files"], "thesis.tex": None}
    (folder / "result.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match="holds 'thesis.tex', not written by an earlier result"):
        make_result().save(folder)
    assert (folder / "thesis.tex").read_text() == "all of it"


def test_a_file_of_ours_that_somebody_changed_is_theirs(tmp_path):
    folder = make_result().save(tmp_path / "out")
    (folder / "report.html").write_text("my notes")
    with pytest.raises(ValueError, match="holds 'report.html', not written by an earlier result"):
        make_result().save(folder)
    assert (folder / "report.html").read_text() == "my notes"
