"""A third of the odd files of docs/reliability.md, through library, terminal and page."""

from dataclasses import replace

import pytest
from odd_files import ROWS, Read
from table import REPO, checked, entrances

pytest.importorskip("gradio_client")
if not (REPO / "assets" / "nano" / "model.safetensors").is_file():
    pytest.skip("needs the bundled model", allow_module_level=True)


@pytest.fixture(scope="module")
def asked():
    with entrances() as found:
        yield found


@pytest.mark.parametrize("row", ROWS[::3], ids=lambda row: row.file)
def test_as_expected(row, asked, tmp_path):
    ((_, found),) = checked([row], tmp_path, asked)
    assert not any(found.values()), found


def test_what_is_not_as_expected_is_said(asked, tmp_path):
    plain = next(row for row in ROWS if row.file == "plain.mp4")
    broken = next(row for row in ROWS if row.file == "words.mp4")
    wrong = [
        replace(plain, expected=Read(times_s=(0, 1), shows=(0, 25))),
        replace(plain, expected=broken.expected),
        replace(broken, expected=plain.expected),
    ]
    fewer, read, refused = (found for _, found in checked(wrong, tmp_path, asked))
    assert fewer["library"].startswith("frames at 0, 1, 2")
    assert fewer["terminal"] == "3 frames"
    assert all(read.values())
    assert all("not a video or picture" in fault for fault in refused.values())


def test_the_document_lists_every_file():
    lines = (REPO / "docs" / "reliability.md").read_text().splitlines()
    listed = [line.split(" | ")[:2] for line in lines if line.startswith("| ")][-len(ROWS) :]
    assert listed == [[f"| {row.kind}", str(row.expected)] for row in ROWS]
    assert len(ROWS) >= 60
