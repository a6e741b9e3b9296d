"""What reading says of a file reaches the plan, the page's line before the run, and the answer."""

import pytest
from clips import numbered, write_clip
from PIL import Image

import vl3
from vl3.webapp import text_format

ESTIMATED = "Times are estimated at 25 fps: the file has none."


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder, device="cpu", offline=True)


def reply(studio, path):
    question = [{"type": "video", "video": str(path)}, {"type": "text", "text": "What?"}]
    return studio.reply([{"role": "user", "content": question}], max_new_tokens=2)


def test_plan_line_and_answer_say_what_reading_says(studio, tmp_path):
    path = write_clip(tmp_path / "raw.h264", 50)
    plan = studio.plan(str(path))
    assert plan.notes == (ESTIMATED,)
    assert text_format.budget(plan, text_format.Limits(room=10_000)).notes == (ESTIMATED,)
    assert ESTIMATED in reply(studio, path).notes
    plain = write_clip(tmp_path / "plain.mp4", 50)
    assert studio.plan(str(plain)).notes == reply(studio, plain).notes == ()


def test_pages_of_a_picture_are_said(studio, tmp_path):
    page, path = Image.fromarray(numbered(1)), tmp_path / "a.tif"
    page.save(path, save_all=True, append_images=[page])
    said = ("The picture has 2 pages; the first is read.",)
    assert studio.plan(str(path)).notes == reply(studio, path).notes == said
