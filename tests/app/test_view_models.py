"""The lines, links, files and folders of the page, without the page."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vl3.inference.memory import MemoryEstimate, MemoryPlan
from vl3.values import Grid, Ledger, Plan, Progress, Reply
from vl3.webapp import chat_rows, form, run_details, text_format, timestamps, transcript, uploads
from vl3.webapp.conversation import Attachment, Turn, context, follow, messages, next_turn
from vl3.webapp.errors import UserError

CARD = {
    "name": "tiny",
    "path": "some/folder",
    "parameters": 5_200_000,
    "dtype": "float32",
    "device": "cpu",
    "quantize": None,
    "adapter": None,
    "is_nano": False,
    "hears": False,
    "unpruned": "",
    "unrotated": "",
    "weights_bytes": 21e6,
    "note": "",
    "defaults": {"fps": 1.0, "max_frames": 64, "budget_tokens": 8192, "max_new_tokens": 512},
}


def plan(frames=64, rows=24, cols=24, step_s=1.0) -> Plan:
    return Plan(
        source="clip.mp4",
        times_s=tuple(step_s * number for number in range(frames)),
        height_px=rows * 14,
        width_px=cols * 14,
        grid=Grid(frames=frames, rows=rows, cols=cols, merge=2),
        duration_s=frames * step_s,
    )


def attachment(name="clip.mp4", **options) -> Attachment:
    return Attachment(path=f"/up/hash/{name}", name=name, key="aa11", plan=plan(), **options)


def reply(text="At 0:12 it moves.", **options) -> Reply:
    ledger = Ledger(
        frames=64,
        visual_tokens=9216,
        kept_tokens=3871,
        new_tokens=142,
        first_token_s=1.4,
        total_s=1.4 + 141 / 38,
        peak_memory_bytes=3_200_000_000,
    )
    known = {"max_new_tokens": 512, "temperature": 0.0, "budget_tokens": 8192, "prune": None}
    return Reply(
        text=text, token_ids=(1, 2), prompt="<p>", settings=known, ledger=ledger, **options
    )


def done(question="What?", text="At 0:12 it moves.", **options) -> Turn:
    return Turn(question=question, answer=text, status="done", reply=reply(text), **options)


def ordinary(text: str) -> str:
    return text.replace(text_format.NO_BREAK, " ")


# lines


@pytest.mark.parametrize(
    ("time_s", "shown"),
    [
        (0, "0:00"),
        (12.4, "0:12"),
        (64, "1:04"),
        (59.9999999, "1:00"),
        (3723, "1:02:03"),
        (359_999, "99:59:59"),
        (360_000, "4 d 04:00:00"),
        (1_700_000_044, "19 675 d 22:14:04"),
        (-0.4, "0:00"),
        (-64, "−1:04"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_clock(time_s, shown):
    assert ordinary(text_format.clock(time_s)) == shown


def test_a_stamp_of_a_wall_clock_reads_back_in_its_field():
    for time_s in (360_000.0, 1_700_000_044.5):
        assert timestamps.parse(timestamps.typed(time_s), "From") == pytest.approx(time_s)
        assert timestamps.parse(f"{time_s:.1f}", "From") == pytest.approx(time_s)


def test_budget_line_says_the_plan_and_refuses_by_arithmetic():
    fits = text_format.budget(plan(), text_format.Limits(16384))
    assert ordinary(fits.text) == (
        "64 frames of 24 × 24 patches · 9 216 tokens of 16 384 · one frame every 1.0 s"
    )
    assert (fits.state, fits.filled) == ("fits", 9216 / 16384)
    over = text_format.budget(plan(), text_format.Limits(8192))
    assert over.state == "over"
    assert ordinary(over.text) == (
        "9 216 tokens exceed the limit 8 192. Lower frames per second, shorten the clip, or raise "
        "the pruning threshold."
    )


def test_caption_and_footer():
    assert ordinary(text_format.attached(plan())) == "0:00–1:04 · 64 frames · 9 216 tokens"
    assert ordinary(text_format.attached(plan(), 10.0, 20.0)).startswith("0:10–0:20 ·")
    assert text_format.cost(reply().ledger) == "142 tokens · 38 tokens/s · first 1.4 s · 3.2 GB"
    assert ordinary(text_format.pruned(reply().ledger)) == "9 216 → 3 871 visual tokens"


def test_header_line():
    facts = ["tiny", "5.2 M parameters", "float32", "no adapter", "cpu", "21 MB"]
    assert text_format.model_facts(CARD) == facts
    assert text_format.model_note(CARD | {"path": "assets/nano"}) == text_format.NANO_NOTE
    assert text_format.model_note(CARD | {"path": "assets/nano-av"}) == text_format.NANO_AV_NOTE
    trained = CARD | {"adapter": "/data/runs/mine/checkpoint-200"}
    assert "adapter mine/checkpoint-200" in text_format.model_facts(trained)


def test_what_a_model_will_take():
    need = MemoryEstimate(weights=4.9e9, kept=1.1e9, passing=0.6e9)
    line = text_format.needed(
        MemoryPlan(quantize="nf4+int8", budget_tokens=16_384, need=need, spare_bytes=0)
    )
    assert ordinary(line) == (
        "About 4.9 GB for the weights, 6.6 GB with a long video of 16 384 visual tokens."
    )


# times


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("At 0:12 it moves.", [12.0]),
        ("From 0:12 to 1:02:03.", [12.0, 3723.0]),
        ("Time 12.0s: a star", [12.0]),
        ("at 12.5 s and 13s", [12.5, 13.0]),
        ("between 3 and 5 seconds", [5.0]),
        ("It lasts 3 seconds.", []),
        ("after 3 seconds", [3.0]),
        ("0:12-0:15", [12.0, 15.0]),
        ("ratio 16:9, size 4:3, 12:75", []),
        ("version 1.2.3s, x12s, a:0:12:", []),
        ("", []),
    ],
)
def test_times_in_text(text, found):
    assert [moment.time_s for moment in timestamps.find(text)] == found


def test_links_keep_the_text_and_drop_times_after_the_end():
    linked = timestamps.link("At 0:12 and 9:59.", "aa11", duration_s=64)
    assert linked == "At [0:12](#t=12&v=aa11) and 9:59."


@given(st.floats(0, 35_000).map(lambda value: round(value, 2)))
def test_a_typed_time_reads_back(time_s):
    assert timestamps.parse(timestamps.typed(time_s), "From") == pytest.approx(time_s, abs=0.011)


def test_typed_times():
    assert timestamps.parse("", "From") is None
    assert timestamps.parse(None, "From") is None
    assert timestamps.parse(" 1:02:03 ", "From") == 3723
    assert timestamps.parse("12.5 s", "From") == 12.5
    for wrong in ("soon", "-3", "1:99", "1e9", "0:12:34:56"):
        with pytest.raises(ValueError, match="To is not a time"):
            timestamps.parse(wrong, "To")


# the conversation


def test_the_same_video_is_sent_once():
    video = attachment()
    first = next_turn([], "What?", video)
    assert first.attachments == (video,)
    assert not first.fresh
    answered = done(attachments=(video,))
    second = next_turn([answered], "And then?", video)
    assert second.attachments == ()
    sent = messages([answered], second)
    assert [message["role"] for message in sent] == ["user", "assistant", "user"]
    assert [part["type"] for part in sent[0]["content"]] == ["video", "text"]


def test_another_video_or_another_reading_starts_a_new_context():
    answered = done(attachments=(attachment(fps=1.0),))
    for other in (attachment("other.mp4"), attachment(fps=2.0), attachment(start_s=3.0)):
        turn = next_turn([answered], "And here?", other)
        assert turn.fresh
        assert len(messages([answered], turn)) == 1
        assert context([answered, replace(done(), fresh=True)]) == (replace(done(), fresh=True),)


def test_turns_without_an_answer_are_not_sent_and_their_video_is_sent_again():
    video = attachment()
    failed = Turn(question="What?", attachments=(video,), status="failed", problem="No.")
    silent = Turn(question="What?", attachments=(video,), status="stopped")
    for turn in (failed, silent):
        again = next_turn([turn], "Again?", video)
        assert again.attachments == (video,)
        assert len(messages([turn], again)) == 1


def test_an_image_and_a_range_become_parts():
    image = attachment("a.png", kind="image")
    assert image.part() == {"type": "image", "image": "/up/hash/a.png"}
    video = attachment(fps=2.0, start_s=1.0, end_s=3.0)
    assert video.part()["video"] == {"path": video.path, "fps": 2.0, "start": 1.0, "end": 3.0}


def test_following_shows_stages_first_words_and_the_end_at_once_but_few_versions():
    stream = [Progress("Reading frames", n, 50) for n in range(50)]
    stream += [Progress("Answering"), *["word "] * 500, reply("word " * 500)]
    versions = list(follow(stream, Turn(question="What?"), interval_s=60))
    assert [version.stage for version in versions] == ["Reading frames 0/50", "Answering", "", ""]
    assert versions[2].answer == "word "
    assert versions[-1].status == "done"


def test_following_a_stream_that_ends_without_a_reply_is_a_stop():
    *_, last = follow(["some", " words"], Turn(question="What?"))
    assert (last.status, last.answer) == ("stopped", "some words")


def test_rows_are_two_a_turn_and_say_how_it_ended():
    stopped = Turn(
        question="B?", answer="Half", status="stopped", reply=reply("Half", stopped=True)
    )
    failed = Turn(question="C?", status="failed", problem="Out of <b>memory</b>.")
    shown = chat_rows.rows([done(), stopped, failed, Turn(question="D?", stage="Answering")])
    assert [row["role"] for row in shown] == ["user", "assistant"] * 4
    assert "[0:12](#t=12)" in shown[1]["content"]
    assert "(stopped after 142 tokens)" in shown[3]["content"]
    assert '<span class="problem">Out of <\u200bb>' in shown[5]["content"]
    assert shown[7]["content"] == '<span class="stage">Answering</span>'
    assert [chat_rows.turn_of(index) for index in (0, 1, 2, [3, 0], (6, 1))] == [0, 0, 1, 1, 3]
    assert [chat_rows.turn_of(index) for index in (None, -1, [], "1", {})] == [None] * 5


@given(st.text(alphabet="<>&[]()!:ab/\"'`*_$ {}\n\u200bhttps.", max_size=60))
def test_inert_text_reads_the_same_and_has_no_syntax_for_elements_or_links(text):
    made = chat_rows.inert(text)
    assert chat_rows.plain(made) == text.replace("\u200b", "")
    for syntax in ("](", "][", "]:", "</", "<!", "<a", "<b", "<p", "https:", "https."):
        assert syntax not in made


# files


def test_transcripts_name_files_and_never_paths():
    turns = [done("What <b>?", attachments=(attachment(),)), done("Then?", "From 0:20 to 0:25.")]
    text = transcript.markdown(turns, CARD)
    assert "> What <b>?" in text
    assert "clip.mp4 · 0:00–1:04" in text
    record = json.loads(transcript.as_json(turns, CARD))
    assert record["turns"][0]["attachments"][0]["frames"] == 64
    assert record["turns"][1]["answer"] == "From 0:20 to 0:25."
    assert "/up/" not in text + json.dumps(record)


def test_webvtt():
    turns = [done(text="At 0:12 a --> b & <c>. Nothing here.\nFrom 0:20 to 0:25 it stays.")]
    assert transcript.webvtt(turns, CARD) == (
        "WEBVTT\n\n"
        "00:00:12.000 --> 00:00:16.000\nAt 0:12 a -> b &amp; &lt;c>.\n\n"
        "00:00:20.000 --> 00:00:25.000\nFrom 0:20 to 0:25 it stays.\n"
    )
    assert transcript.webvtt([done(text="No time at all.")], CARD) is None


def test_the_code_in_the_details_is_python_and_leaves_defaults_out():
    video = attachment("it's a clip.mp4", fps=2.0, start_s=1.0)
    turn = done('Say "hi"?', attachments=(video,))
    seeded = replace(turn.reply, settings=turn.reply.settings | {"seed": 3})
    turn = replace(turn, reply=seeded, system="Be brief.")
    *_, python, shell = [block["text"] for block in run_details.blocks([], turn, CARD, None)]
    compile(python, "code", "exec")
    assert "seed=3" in python
    assert "temperature" not in python
    assert "/up/" not in python + shell
    assert "it's a clip.mp4" in python
    assert shell.startswith("python -m train_cli chat 'Say \"hi\"?' --model some/folder")
    assert "--fps 2 --start 1 --seed 3 --system 'Be brief.'" in shell
    rule = {"mode": "rlt", "threshold": 0.5, "min_tokens": 1, "keep": "later"}
    turn = replace(turn, reply=replace(seeded, settings=seeded.settings | {"prune": rule}))
    *_, shell = [block["text"] for block in run_details.blocks([], turn, CARD, None)]
    assert "--prune rlt --prune-threshold 0.5 --prune-keep later" in shell


def test_fields_become_settings():
    fields = (0.7, 0.9, None, 1.5, 5.0, True, 0.5, "rlt", "later", None, True)
    chosen, system = form.answer(fields)
    assert chosen == {
        "temperature": 0.7,
        "top_p": 0.9,
        "max_new_tokens": 512,
        "repetition_penalty": 1.5,
        "seed": 5,
        "prune": {"threshold": 0.5, "mode": "rlt", "keep": "later"},
        "sound": True,
    }
    assert system == ""
    assert form.answer((*fields[:2], 9, *fields[3:9], "S.", True))[0]["max_new_tokens"] == 9
    assert form.answer((*fields[:9], "S.", True))[1] == "S."
    assert form.answer((*fields[:10], False))[0]["sound"] is False
    assert form.answer((*fields[:5], False, *fields[6:]))[0]["prune"] is None
    own = form.answer((*fields[:5], True, None, *fields[7:]))[0]["prune"]
    assert own == {"mode": "rlt", "keep": "later"}


def test_what_a_browser_stored_is_taken_where_it_is_a_setting():
    defaults = form.defaults(CARD, None)
    stored = {"mode": "last_kept", "keep": "neither", "threshold": 2.5, "seed": "x", "fps": None}
    restored = dict(zip(defaults, form.restored(stored, defaults), strict=True))
    assert restored == {**defaults, "mode": "last_kept", "threshold": 2.5, "fps": None}


WRONG_RULES = [
    None,
    [],
    {},
    {"threshold": 1},
    {"threshold": "1", "mode": "rlt", "keep": "later"},
    {"threshold": True, "mode": "rlt", "keep": "later"},
    {"threshold": -1, "mode": "rlt", "keep": "later"},
    {"threshold": float("nan"), "mode": "rlt", "keep": "later"},
    {"threshold": 1, "mode": ["rlt"], "keep": "later"},
    {"threshold": 1, "mode": "rlt", "keep": "both"},
]


@pytest.mark.parametrize("detail", WRONG_RULES)
def test_settings_of_the_pruner_from_a_browser_are_checked(detail):
    with pytest.raises(UserError, match="no setting of the pruner"):
        form.rule(detail)


def test_nothing_but_folders_of_processes_that_ended_is_touched(tmp_path):
    folder = tmp_path / "mine"
    (folder / "999999999").mkdir(parents=True)
    (folder / "20261126").mkdir()
    (folder / "20261126" / "thesis.txt").write_text("all of it")
    folder.chmod(0o755)
    command = "import sys; from pathlib import Path; from vl3.webapp import uploads;"
    command += "print(uploads.prepare(Path(sys.argv[1])), flush=True); sys.stdin.read()"
    start = [sys.executable, "-c", command, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with (
        subprocess.Popen(start, **pipes) as living,
        subprocess.Popen(start, **pipes) as ended,
    ):
        living_folder, ended_folder = (
            Path(each.stdout.readline().strip()) for each in (living, ended)
        )
        ended.kill()
        ended.wait()
        own = uploads.prepare(folder)
        assert living_folder.exists()
        assert not ended_folder.exists()
        living.stdin.close()
    assert own.stat().st_mode & 0o777 == 0o700
    assert folder.stat().st_mode & 0o777 == 0o755
    names = {path.name for path in folder.iterdir()}
    assert names == {"999999999", "20261126", uploads.OURS}
    assert (folder / "20261126" / "thesis.txt").read_text() == "all of it"


def test_a_folder_that_is_somebody_elses_is_left_alone(tmp_path):
    theirs = tmp_path / uploads.OURS / "1"
    theirs.mkdir(parents=True)
    with pytest.raises(ValueError, match="that vl3 did not make; choose another"):
        uploads.prepare(tmp_path)
    theirs.rmdir()
    theirs.parent.rmdir()
    theirs.parent.symlink_to(tmp_path)
    with pytest.raises(ValueError, match="that vl3 did not make"):
        uploads.prepare(tmp_path)
    assert sorted(tmp_path.iterdir()) == [theirs.parent]


def uploads_in(folder: Path) -> uploads.Uploads:
    """The folder as the page has it, with nothing that reads its files."""
    return uploads.Uploads(folder, None, 10**9)


def test_what_cannot_be_written_whole_leaves_nothing(tmp_path):
    files, before = uploads_in(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        with pytest.raises(OSError, match="too large") as raised:
            files.keep("view.json", bytes(5000))
        assert uploads.is_full(raised.value)
        with pytest.raises(OSError, match="too large"):
            files.adopt(Path(sys.executable).resolve())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_vanishes_while_the_folder_is_tidied_is_no_error(tmp_path):
    files, ended = uploads_in(tmp_path), threading.Event()

    def come_and_go() -> None:
        while not ended.is_set():
            for number in range(20):
                files.keep(f"{number}.json", b"x")
            for place in list(tmp_path.iterdir()):
                uploads.remove(place)

    busy = threading.Thread(target=come_and_go)
    busy.start()
    try:
        for _ in range(300):
            files.trim((), 0)
    finally:
        ended.set()
        busy.join()


def test_files_are_removed_where_they_are_too_many(tmp_path):
    own = uploads.prepare(tmp_path / "uploads")
    files, paths = uploads_in(own), []
    for number in range(5):
        path = own / f"hash{number}" / "clip.mp4"
        path.parent.mkdir()
        path.write_bytes(bytes(100))
        changed_s = time.time() - 1000 + number
        os.utime(path, (changed_s, changed_s))
        paths.append(path)
    new = own / "new.mp4"
    new.write_bytes(bytes(100))
    assert files.trim({str(paths[0])}, 350) == 300
    assert [path.exists() for path in paths] == [True, False, False, False, True]
    assert files.trim({str(paths[0])}, 0) == 100
    assert new.exists()
    assert files.contains(str(paths[0]))
    assert not files.contains(str(own / ".." / ".." / "x"))
    link = own / "link"
    link.symlink_to("/etc/hostname")
    assert not files.contains(str(link))
