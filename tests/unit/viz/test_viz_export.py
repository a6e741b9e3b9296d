"""The one-file page: one module, everything escaped, nothing asked for."""

import json
import re

import numpy as np
import pytest

from vl3.values import Clip, Grid
from vl3.viz import export, positions, pruning
from vl3.viz.pack import packed_24_bit

HOSTILE = "</script><img src=x onerror=window.p=1>\u2028${7}{{constructor}}<!--"


def test_a_page_holds_the_views_and_escapes_names():
    grid = Grid(frames=2, rows=2, cols=2, merge=2)
    frames = np.zeros((2, 28, 28, 3), np.uint8)
    clip = Clip(frames_TYX3=frames, times_s=(0.0, 1.0), source=HOSTILE)
    page = export.page(
        pruning.data(clip, grid, None),
        positions.data(grid, 8, source=HOSTILE),
        title=HOSTILE,
        facts=["nano · float32", HOSTILE],
    )
    assert "<p>nano · float32</p>\n<p>&lt;/script&gt;" in page
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert not re.search(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", page)
    (views,) = re.findall(r'<script type="application/json" id="views">(.*?)</script>', page, re.S)
    assert [view["source"] for view in json.loads(views)] == [HOSTILE, HOSTILE]


def test_the_files_join_to_one_module():
    module = export.module()
    assert not re.search(r"^import ", module, re.M)
    assert re.findall(r"^export .*$", module, re.M) == ["export { mount, pruner, rope };"]
    names = re.findall(r"^(?:const|let|function) (\w+)", module, re.M)
    assert len(names) == len(set(names)) > 30
    for name in export.FILES:
        source = (export.WEB / name).read_text("utf-8")
        for imported in re.findall(r'^import .* from "\./(.*)";$', source, re.M):
            assert export.FILES.index(imported) < export.FILES.index(name)


def test_three_bytes_hold_what_they_can():
    assert packed_24_bit(np.array([0, 1, 256, 0xFFFFFF])) == "AAAAAQAAAAEA////"
    with pytest.raises(ValueError, match="three bytes"):
        packed_24_bit(np.array([1 << 24]))
