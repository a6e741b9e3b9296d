"""The clock of the player: what the page shows of a time is the frame that the model sees then."""

from __future__ import annotations

import re
from fractions import Fraction

import pytest
from clips import write_clip
from steps import ask, expect, upload
from test_film_strip import with_pictures

pytest_plugins = ["page_fixtures"]

FPS, COUNT = 10, 40
WEB = {"codec": "libvpx", "codec_options": {"deadline": "realtime", "b": "500k"}}
SOUND = {"audio_s": 8.0}
# Of each file: its name, how it is written, and when its first picture comes in seconds of the
# file's own clock and of the clip's, which begins with the file's first stream.
FILES = [
    ("plain.mp4", {}, 0.0, 0.0),
    ("late.mp4", {"from_s": 5.0}, 5.0, 0.0),
    ("late by an hour.mov", {"from_s": 3600.0}, 3600.0, 0.0),
    ("late by the order of frames.mp4", {"format_options": {"use_editlist": "0"}}, 0.2, 0.0),
    ("in pieces.mp4", {"format_options": {"movflags": "frag_keyframe+empty_moov"}}, 0.2, 0.0),
    ("late.webm", {"from_s": 5.0, **WEB}, 5.0, 0.0),
    ("late.mkv", {"from_s": 5.0}, 5.0, 0.0),
    ("sound first.mp4", {"from_s": 3.0, **SOUND}, 3.0, 3.0),
    ("picture first.mp4", {"audio_from_s": 2.0, **SOUND}, 0.0, 0.0),
    # AAC begins 1024 samples earlier than it is told to
    ("sound first, and late.mp4", {"from_s": 5.0, "audio_from_s": 2.128, **SOUND}, 5.0, 3.0),
    ("sound first, and late.mkv", {"from_s": 5.0, "audio_from_s": 2.0, **SOUND}, 5.0, 3.0),
]
# The number in the picture of a player, or of a cell of the strip.
NUMBER = """(of) => {
    const canvas = document.createElement('canvas');
    canvas.width = of.videoWidth || of.width;
    canvas.height = of.videoHeight || of.height;
    const pen = canvas.getContext('2d');
    pen.drawImage(of, 0, 0);
    const row = pen.getImageData(0, canvas.height / 4, canvas.width, 1).data;
    let number = 0;
    for (let bit = 0; bit < 12; bit++) {
        number |= (row[4 * Math.floor((bit + 0.5) * canvas.width / 12)] > 128) << bit;
    }
    return number;
}"""
# The times of the frames that the model sees, as the page has them.
SEEN = "new Promise(told => window.vl3.frame.subscribe((_, { times_s }) => told(times_s)))"
# A browser that counts from where the first stream starts, made of one that does not.
SHIFTING = """(() => {
    const of = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, 'currentTime');
    const late = (video) => video.src.includes('late') ? 5 : 0;
    Object.defineProperty(HTMLMediaElement.prototype, 'currentTime', {
        get() { return of.get.call(this) - late(this); },
        set(time) { of.set.call(this, time + late(this)); },
    });
    const call = HTMLVideoElement.prototype.requestVideoFrameCallback;
    HTMLVideoElement.prototype.requestVideoFrameCallback = function (told) {
        const moved = (frame) => ({ mediaTime: frame.mediaTime - late(this) });
        return call.call(this, (now, frame) => told(now, moved(frame)));
    };
})()"""


def write(path, from_s: float = 0.0, **how):
    times = [round(from_s * FPS) + number for number in range(COUNT)]
    base = Fraction(1, FPS)
    return write_clip(path, COUNT, FPS, times=times, time_base=base, size=(96, 192), **how)


def shows(page, number: int) -> None:
    """The player comes to show the frame of that number."""
    video = page.locator("#player video")
    for _ in range(100):
        found = video.evaluate(NUMBER)
        if found == number:
            return
        page.wait_for_timeout(50)
    pytest.fail(f"frame {found} is shown in place of {number}")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "how", "file_s", "clip_s"), FILES, ids=[file[0] for file in FILES]
)
def test_marks_of_the_strip_lead_to_the_frames_they_show(page, tmp_path, name, how, file_s, clip_s):
    upload(page, write(tmp_path / name, **how))
    cells, line = page.locator("#player .cells button"), page.locator("#player .strip p")
    with_pictures(page)
    pictures = [cells.nth(at).locator("canvas").evaluate(NUMBER) for at in range(4)]
    seen_s = page.evaluate(SEEN)
    first_s, numbers = seen_s[0], [round((time_s - seen_s[0]) * FPS) for time_s in seen_s]
    assert first_s == pytest.approx(clip_s, abs=0.15)  # sound begins a little earlier
    assert all(low <= shown for low, shown in zip(numbers, pictures, strict=True))
    for at in (3, 0, 1, 2):
        cells.nth(at).click()
        shows(page, pictures[at])
        expect(line).to_contain_text(f"Frame {at + 1} of 4")
        stands_s = page.locator("#player video").evaluate("video => video.currentTime")
        assert stands_s == pytest.approx(file_s + pictures[at] / FPS, abs=0.05)
    page.locator("#header h1").click()
    page.keyboard.press(".")
    shows(page, numbers[3])
    page.keyboard.press(",")
    shows(page, numbers[2])
    page.keyboard.press("j")
    page.keyboard.press("g")
    page.get_by_label("Time", exact=True).fill(str(clip_s + 2.5))
    page.keyboard.press("Enter")
    shows(page, int((clip_s + 2.5 - first_s) * FPS + 0.01))
    expect(page.locator("#moment button")).to_have_text(f"Ask at 0:0{int(clip_s + 2.5)}")
    page.locator("#moment button").click()
    expect(page.locator("#ask textarea")).to_have_value(
        re.compile(f"At {clip_s + 2.5:g} seconds: ")
    )


@pytest.mark.slow
def test_links_boxes_and_questions_go_by_the_clock_of_the_clip(
    page, server, tmp_path, clip, script
):
    script.answer = "At 0:02 a star [[200,300,700,800]]. It goes at Time 3.0s."
    upload(page, write(tmp_path / "late.mp4", from_s=5.0))
    page.locator("#header h1").click()
    page.keyboard.press(".")
    shows(page, 10)
    ask(page, "Where?")
    everybody = server.controller.visitors._visitors.values()
    (visitor,) = [one for one in everybody if one.turns]
    assert visitor.turns[-1].asked_s == pytest.approx(1.0, abs=0.05)
    page.get_by_role("link", name="Show box", exact=True).click()
    shows(page, 20)
    expect(page.locator("#player .told p")).to_contain_text("1 of 1 box shown")
    page.get_by_role("link", name="3.0s").click()
    shows(page, 30)
    expect(page.locator("#player .told p")).to_have_text("0 of 1 box shown · more at 0:02.")
    # From another video back to this one.
    upload(page, clip)
    page.locator("#chat").get_by_role("link", name="0:02").click()
    expect(page.locator("#player .facts")).to_contain_text("late.mp4")
    shows(page, 20)


def test_a_player_that_counts_from_the_start_of_the_file_shows_the_same(page, tmp_path):
    page.add_init_script(SHIFTING)
    page.reload()
    page.locator("#ask textarea").wait_for()
    upload(page, write(tmp_path / "late.webm", from_s=5.0, **WEB))
    page.wait_for_function("document.querySelector('#player video').zero_s === 0")
    page.locator("#header h1").click()
    for number in (10, 20, 30):
        page.keyboard.press(".")
        shows(page, number)


def test_a_link_to_another_video_waits_for_that_one(page, tmp_path, clip, script):
    script.answer = "At 0:02 a star."
    upload(page, write(tmp_path / "first.mp4"))
    ask(page, "When?")
    held, is_open = [], []
    media = re.compile(r"\.mp4")
    page.route(media, lambda route: route.continue_() if is_open else held.append(route))
    upload(page, clip)
    page.locator("#chat").get_by_role("link", name="0:02").click()
    expect(page.locator("#player .facts")).to_contain_text("first.mp4")
    page.wait_for_timeout(300)
    names = [route.request.url.rpartition("/")[2] for route in held]
    assert sorted(set(names)) == ["first.mp4", "four%20seconds.mp4"]
    is_open.append(True)
    for last in (False, True):  # first the one that is not waited for
        for route, name in zip(held, names, strict=True):
            if (name == "first.mp4") == last:
                route.continue_()
        page.wait_for_timeout(500)
    shows(page, 20)
