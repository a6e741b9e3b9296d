"""Encoded clips: which stay, what a look at them counts as, and what their books say."""

from dataclasses import replace

import av
import numpy as np
import pytest
import torch
from clips import noise_clip as clip
from clips import write_clip

import vl3
from vl3.values import Progress

SHORT = {"max_new_tokens": 2}


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


def ask(*media):
    parts = [{"type": "video", "video": medium} for medium in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": "What happens?"}]}]


def kept(studio) -> list[str]:
    return [video.clip.source for video in studio._encoded._videos.values()]


# Each is a way in which somebody uses a clip that is kept.
USES = {
    "opened again": lambda studio, video, reply: studio.open(clip(0)),
    "asked about": lambda studio, video, reply: studio.reply(ask(clip(0)), **SHORT),
    "handed over": lambda studio, video, reply: studio.reply(ask(video), **SHORT),
    "looked into": lambda studio, video, reply: studio.attention(reply),
    "shown": lambda studio, video, reply: studio.videos(reply),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
def test_the_longest_unused_goes_first(studio, use):
    small = studio.new_session()
    reply = small.reply(ask(clip(0)), **SHORT)
    video = small.open(clip(0))
    small._encoded.cache_bytes = 2 * video.nbytes
    small.open(clip(1))
    assert kept(small) == ["clip0", "clip1"], "two of them are not above the bound"
    use(small, video, reply)
    small.open(clip(2))
    assert kept(small) == ["clip0", "clip2"]


def test_a_clip_above_the_bound_stays_until_the_next(studio):
    small = studio.new_session()
    small._encoded.cache_bytes = 1
    reply = small.reply(ask(clip(0)), **SHORT)
    assert kept(small) == ["clip0"]
    assert small.attention(reply).tokens == (0, 1)
    small.open(clip(1))
    assert kept(small) == ["clip1"]


def test_bytes_are_those_of_features_and_frames(studio):
    videos = [studio.open(clip(seed)) for seed in range(2)]
    for video in videos:
        assert video.nbytes == video.features_MD.nbytes + video.clip.frames_TYX3.nbytes
    assert studio._encoded.nbytes == sum(video.nbytes for video in videos) == studio.cached_bytes


def test_features_handed_over_are_kept_by_clip_and_content(studio):
    videos = [studio.open(clip(seed)) for seed in range(2)]
    blank = torch.zeros_like(videos[0].features_MD)
    owns = [replace(video, features_MD=blank) for video in videos]
    answers = [studio.reply(ask(own), **SHORT) for own in owns]
    assert [studio.videos(reply)[0].clip.source for reply in answers] == ["clip0", "clip1"]
    (own,) = studio.videos(answers[0])
    again = studio.reply(ask(replace(own, features_MD=own.features_MD + 1)), **SHORT)
    (key,) = (seen.key for seen in again.seen)
    assert key.partition("+")[0] == videos[0].key
    assert key.count("+") == 1, "it does not grow with every change"
    assert len(studio._encoded) == 5


def test_what_encoding_tells_of_its_progress(studio, tmp_path):
    path, told = write_clip(tmp_path / "film.mp4", 4, 1, size=(96, 144)), []
    studio.open(path, on_stage=told.append)
    assert told[0] == Progress("Reading frames", 0, 4, kind="reading")
    assert Progress("Reading frames", 4, 4, kind="reading") in told
    encoding = [(stage.done, stage.total) for stage in told if stage.name == "Encoding video"]
    assert encoding[0] == (0, 4)
    assert encoding[-1] == (4, 4)
    assert told[-1] == Progress("Removing repeated patches", kind="pruning")
    told.clear()
    studio.open(path, on_stage=told.append)
    assert told == [Progress("Video already encoded, reused", kind="reused")]


def test_a_plan_is_called_by_its_files_name_and_goes_with_who_asks(studio, tmp_path):
    path = write_clip(tmp_path / "film.mp4", 2, 1, size=(96, 144))
    other = tmp_path / "copy.mp4"
    other.write_bytes(path.read_bytes())
    for each in (path, other, str(path)):
        video = studio.open(each)
        assert video.plan.source == studio.plan(each).source == tmp_path.joinpath(each).name
        assert video.plan == studio.plan(each)
    assert studio.plan(clip()).source == "clip0"
    assert studio.plan(clip().frames_TYX3[0]).source == "picture"
    assert len(studio._encoded) == 1


def damaged(path, *numbers):
    """The film without the content of these packets."""
    with av.open(str(path)) as container:
        packets = [(p.pos, p.size) for p in container.demux(video=0) if p.size]
    content = bytearray(path.read_bytes())
    for number in numbers:
        at, size = packets[number]
        content[at + 8 : at + size] = bytes(size - 8)
    path.write_bytes(content)
    return path


def test_a_film_that_has_fewer_frames_than_were_planned(studio, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (32, 96, 144, 3), dtype=np.uint8)
    path = write_clip(tmp_path / "film.mp4", fps=4, pictures=list(noise), gop=4, bframes=0)
    planned = studio.plan(damaged(path, 9), fps=4)
    video = studio.open(path, fps=4)
    assert 0 < video.grid.frames == len(video.clip) < planned.num_frames == 32
    reply = studio.reply(ask({"path": path, "fps": 4}), **SHORT)
    assert reply.ledger.frames == len(video.clip)
    assert reply.ledger.reused_clips == 1
    assert "could not be read" in reply.notes[0]


def test_books_of_a_clip_that_is_encoded_anew(tiny_folder, tmp_path, monkeypatch):
    """Found on disk, then asked about with another encoder: encoded once, and read never again."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    vl3.load(tiny_folder, features_gb=1).open(clip())
    studio = vl3.load(tiny_folder, features_gb=1)
    video = studio.open(clip())
    assert video.ledger.encoded_clips == 0
    assert video.ledger.decode_s > 0
    before = studio.reply(ask(video), **SHORT)
    assert (before.ledger.reused_clips, before.ledger.encoded_clips) == (1, 0)
    studio.model.vision.blocks[0].mlp.fc2.weight.data.mul_(-2)
    books = studio.reply(ask(video), **SHORT).ledger
    assert (books.reused_clips, books.encoded_clips) == (0, 1)
    assert books.decode_s == books.prune_s == 0
    assert books.encode_s > 0
    files = list((tmp_path / "vl3" / "features").iterdir())
    assert len(files) == 1, "frames that were handed over may be anybody's: not written"


def test_a_look_encodes_a_clip_anew_once(studio, monkeypatch):
    reply = studio.reply(ask(clip()), **SHORT)
    passes, encode = [], type(studio._encoded)._encoded_anew

    def counting(library, *others):
        passes.append(library)
        return encode(library, *others)

    monkeypatch.setattr(type(studio._encoded), "_encoded_anew", counting)
    studio._encoded._videos[reply.seen[0].key].features_MD[:2] = 0
    maps = [studio.attention(reply).weight_IHQL for _ in range(2)]
    assert len(passes) == 1
    assert np.array_equal(*maps)


def test_a_mask_is_counted_where_it_is_used(studio):
    video = studio.open(clip())
    for prune in (None, {"threshold": 40.0}, "model"):
        reply = studio.reply(ask(clip()), prune=prune, **SHORT)
        assert reply.ledger.kept_tokens == reply.seen[0].kept_tokens
        (again,) = studio.videos(reply)
        assert again.ledger.kept_tokens == again.keep.keep_M.sum() == reply.seen[0].kept_tokens
        assert again.ledger.prune_s > 0
        assert not again.has_own_keep
    keep_M = torch.ones_like(video.keep.keep_M)
    own = replace(video, keep=replace(video.keep, keep_M=keep_M))
    assert own.has_own_keep
    reply = studio.reply(ask(own), **SHORT)
    assert reply.ledger.kept_tokens == video.grid.num_tokens > video.ledger.kept_tokens
    assert reply.ledger.prune_s == 0, "nothing was decided"
