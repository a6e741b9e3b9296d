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
    assert re.findall(r"^export .*$", module, re.M) == ["export { mount };"]
    files = re.findall(r"^const (\$\w+) = \(\(\) => \{", module, re.M)
    assert len(files) == len(set(files)) > 15
    assert files[-1] == export.constant("views/mount.js")
    for at, name in enumerate(files):  # each stands after those it imports
        own = module[module.index(f"const {name} = ") :].split("\n})();", 1)[0]
        assert set(re.findall(r"^const \{[^}]*\} = (\$\w+);$", own, re.M)) <= set(files[:at])


def written(folder, monkeypatch, **files: str) -> None:
    monkeypatch.setattr(export, "WEB", folder)
    for name, text in files.items():
        (folder / f"{name}.js").write_text(text, encoding="utf-8")


def test_joined_files_share_no_names_and_none_is_there_twice(tmp_path, monkeypatch):
    written(
        tmp_path,
        monkeypatch,
        words='import { a as first } from "./a.js";\nconst own = first;\nexport const b = own;\n',
        a="const own = 1;\nexport const a = own;\nexport function twice(x) {\n  return 2 * x;\n}\n",
        main='import {\n  b,\n} from "./words.js";\nimport { twice } from "./a.js";\ntwice(b);\n',
    )
    script = export.joined("main.js")
    assert script.count("const $a = ") == 1
    assert "const { a: first } = $a;" in script
    assert "return { a, twice };" in script
    assert not re.search(r"\b(?:import|export)\b", script)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('import * as a from "./a.js";', "does not read: import"),
        ('import a from "./a.js";', "does not read: import"),
        ('import { a, c } from "./a.js";', "c, which ./a.js has no export line for"),
        ("export default 1;", "does not read: export default"),
        ("export let now = 1;", "does not read: export let"),
        ('import { a } from "./main.js";', "imports itself"),
    ],
)
def test_what_the_joiner_cannot_read_is_refused(tmp_path, monkeypatch, line, message):
    written(tmp_path, monkeypatch, main=f"{line}\n", a="export const a = 1;\n")
    with pytest.raises(ValueError, match=message):
        export.joined("main.js")


def test_three_bytes_hold_what_they_can():
    assert packed_24_bit(np.array([0, 1, 256, 0xFFFFFF])) == "AAAAAQAAAAEA////"
    with pytest.raises(ValueError, match="three bytes"):
        packed_24_bit(np.array([1 << 24]))
