"""What is kept is never given for something else: every term of every key, one at a time."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from clips import write_animation, write_clip
from PIL import Image

import vl3
from vl3.messages.sources import BLOCK_BYTES, SAMPLED_BLOCKS, content_digest
from vl3.values import Clip
from vl3.video import VideoError

LONG = {"max_new_tokens": 6}


@pytest.fixture(scope="module")
def studio(tiny_folder):
    return vl3.load(tiny_folder)


@pytest.fixture(autouse=True)
def forget(studio):
    studio.release()


def clip(seed=0, **changes) -> Clip:
    frames = np.random.default_rng(seed).integers(0, 255, (4, 56, 84, 3), dtype=np.uint8)
    frames[:, :28] = frames[0, :28]
    made = Clip(frames_TYX3=frames, times_s=(0.0, 1.0, 2.0, 3.0), source="clip")
    return replace(made, **changes)


def ask(*media, question="What happens?"):
    parts = [{"type": "video", "video": medium} for medium in media]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": question}]}]


def fresh(studio, medium, **settings):
    """What a studio without a past makes of it."""
    return studio.new_session().reply(ask(medium), **LONG, **settings)


def same(one, other) -> bool:
    return (one.token_ids, one.seen, one.prompt_ids, one.notes) == (
        other.token_ids,
        other.seen,
        other.prompt_ids,
        other.notes,
    )


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("files")
    write_clip(folder / "film.mp4", 40, 4, size=(96, 144))
    for seed in range(2):
        pixels = np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{seed}.bmp")
    assert (folder / "0.bmp").stat().st_size == (folder / "1.bmp").stat().st_size
    return folder


CLIPS = {
    "other pixels": (clip(0), clip(1)),
    "other times": (clip(), clip(times_s=(0.0, 2.0, 4.0, 6.0))),
    "other notes": (clip(), clip(notes=("Times are estimated at 25 fps.",))),
    "lost frames": (clip(), clip(lost_frames=3)),
}


@pytest.mark.parametrize("pair", CLIPS.values(), ids=CLIPS)
def test_clips_that_differ_in_one_thing(studio, pair):
    for medium in (*pair, *pair):
        assert same(studio.reply(ask(medium), **LONG), fresh(studio, medium))
    first, second = (fresh(studio, medium) for medium in pair)
    assert not same(first, second)


PLANS = {
    "fps": {"fps": 2},
    "max_frames": {"max_frames": 3},
    "start": {"start": 4.0},
    "end": {"end": 3.0},
    "mode": {"mode": "official"},
}


@pytest.mark.parametrize("option", PLANS.values(), ids=PLANS)
def test_one_film_under_two_plans(studio, files, option):
    media = [{"path": files / "film.mp4"}, {"path": files / "film.mp4", **option}]
    for medium in media * 2:
        assert same(studio.reply(ask(medium), **LONG), fresh(studio, medium))
    assert fresh(studio, media[0]).seen != fresh(studio, media[1]).seen


def test_frames_of_one_number_from_two_places(studio, files):
    """Grid and number of frames are the same; only the range tells them apart."""
    media = [{"path": files / "film.mp4", "start": start, "end": start + 2} for start in (0.0, 4.0)]
    for medium in media * 2:
        assert same(studio.reply(ask(medium), **LONG), fresh(studio, medium))


def test_one_file_as_a_picture_and_as_a_video(studio, tmp_path, monkeypatch):
    """Under settings by which both have one grid; the prompt says the time of one of them."""
    settings = replace(studio.processor.settings, image_merge=2, video_merge=2, max_frames=1)
    monkeypatch.setattr(studio.processor, "settings", settings)
    animation(tmp_path / "film.webp", 2)
    seen = set()
    for kind in ("image", "video") * 2:
        part = {"type": kind, kind: str(tmp_path / "film.webp")}
        asked = [{"role": "user", "content": [part, {"type": "text", "text": "What?"}]}]
        reply = studio.reply(asked, **LONG)
        assert same(reply, studio.new_session().reply(asked, **LONG))
        seen.add(reply.prompt)
    assert len(seen) == 2
    assert len({video.grid for video in studio._encoded._videos.values()}) == 1


def test_one_clip_at_two_sizes(studio):
    frames = np.random.default_rng(0).integers(0, 255, (4, 224, 224, 3), dtype=np.uint8)
    large, tokens = clip(frames_TYX3=frames), set()
    for budget_tokens in (400, 100, 400, 100):
        settings = {"budget_tokens": budget_tokens}
        reply = studio.reply(ask(large), **LONG, **settings)
        assert same(reply, fresh(studio, large, **settings))
        tokens.add(reply.ledger.visual_tokens)
    assert len(tokens) == 2


def test_two_files_of_one_length(studio, files):
    for name in ("0.bmp", "1.bmp", "0.bmp"):
        assert same(studio.reply(ask(files / name), **LONG), fresh(studio, files / name))


def test_large_files_of_other_lengths(tmp_path):
    """Of these only parts are read, which are the same."""
    digests = set()
    for mib in (20, 21):
        with open(tmp_path / f"{mib}", "wb") as file:
            file.truncate(mib << 20)
        digests.add(content_digest(tmp_path / f"{mib}"))
    assert len(digests) == 2


@pytest.mark.parametrize(("mib", "step"), [(1, BLOCK_BYTES), (17, (17 << 20) // SAMPLED_BLOCKS)])
def test_files_of_one_length_that_differ_in_one_byte(tmp_path, mib, step):
    """Anywhere in a small one; in a large one at the places that are read, to the last."""
    path, digests, size = tmp_path / "film", set(), mib << 20
    for place in (
        None,
        0,
        BLOCK_BYTES - 1,
        step,
        size // 2 // step * step,
        (size - 1) // step * step,
    ):
        with open(path, "wb") as file:
            file.truncate(size)
            if place is not None:
                file.seek(place)
                file.write(b"x")
        digests.add(content_digest(path))
    assert len(digests) == 6


def test_an_empty_file_has_a_digest(tmp_path):
    (tmp_path / "empty").write_bytes(b"")
    (tmp_path / "one").write_bytes(b"x")
    assert content_digest(tmp_path / "empty") != content_digest(str(tmp_path / "one"))


def test_the_same_bytes_in_another_shape(studio):
    """Both fill the same grid once they are resized."""
    values = np.random.default_rng(0).integers(0, 255, 4 * 60 * 84 * 3, dtype=np.uint8)
    shapes = [clip(frames_TYX3=values.reshape(4, *size, 3)) for size in ((60, 84), (63, 80))]
    assert len({studio.plan(each).grid for each in shapes}) == 1
    assert len({studio.open(each).key for each in shapes}) == 2


def test_one_content_under_two_names(studio, files, tmp_path):
    other = tmp_path / "copy.bmp"
    other.write_bytes((files / "0.bmp").read_bytes())
    for path in (files / "0.bmp", other):
        assert studio.open(path).clip.source == str(path)
    assert len(studio._encoded) == 1
    for name in ("one", "two"):
        assert studio.open(clip(source=name)).clip.source == name


def test_a_file_written_over(studio, tmp_path, files):
    path = tmp_path / "picture.bmp"
    for name in ("0.bmp", "1.bmp", "0.bmp"):
        path.write_bytes((files / name).read_bytes())
        assert same(studio.reply(ask(path), **LONG), fresh(studio, path))


def film(path, fps):
    write_clip(path, 8, fps)


def animation(path, fps):
    write_animation(path, [1000 // fps] * 8)


OTHERS = {"in its second": (0, 10**9), "of its length": (1, 0)}  # bytes longer, ns later


@pytest.mark.parametrize(("write", "suffix"), [(film, ".mp4"), (animation, ".webp")])
@pytest.mark.parametrize(("longer", "later_ns"), OTHERS.values(), ids=OTHERS)
def test_a_film_written_over_is_scanned_again(studio, tmp_path, write, suffix, longer, later_ns):
    """By one of the same length a while later, and by a longer one that is said to be as old."""
    path, apart = tmp_path / f"film{suffix}", tmp_path / f"apart{suffix}"
    write(path, 4), write(apart, 2)
    sizes = path.stat().st_size, apart.stat().st_size
    length = max(sizes)
    for file, more, when_ns in ((path, 0, 10**18), (apart, longer, 10**18 + later_ns)):
        with open(file, "ab") as open_file:
            open_file.truncate(length + more)
        os.utime(file, ns=(when_ns, when_ns))
    before = studio.plan(path, fps=4).times_s
    expected = studio.plan(apart, fps=4).times_s
    os.replace(apart, path)
    assert studio.plan(path, fps=4).times_s == expected != before


def test_a_film_written_over_by_something_else_is_no_film(studio, tmp_path):
    path = tmp_path / "film.mp4"
    film(path, 4)
    size = path.stat().st_size
    studio.plan(path)
    path.write_bytes(b"%PDF-1.7".ljust(size))
    os.utime(path, ns=(10**18, 10**18))
    with pytest.raises(VideoError, match=r"film.mp4 is .* and not a video"):
        studio.plan(path)


def test_two_thresholds_in_turn(studio):
    seen = set()
    for prune in (None, {"threshold": 40.0}, {"mode": "rlt"}, {"keep": "later"}, None):
        reply = studio.reply(ask(clip()), prune=prune, **LONG)
        assert same(reply, fresh(studio, clip(), prune=prune))
        seen.add(reply.seen[0].keep_bits)
    assert len(seen) > 2


def test_masks_of_one_size_over_other_cells(studio):
    """The prompt is the same, and so is the number of slots."""
    video, replies = studio.open(clip()), []
    for shift in (0, 1, 0):
        keep_M = (torch.arange(video.grid.num_tokens) + shift) % 2 == 0
        own = replace(video, keep=replace(video.keep, keep_M=keep_M))
        replies.append(studio.reply(ask(own), **LONG))
        assert replies[-1].token_ids == fresh(studio, own).token_ids
        assert studio.reply(ask(own), **LONG).ledger.reused_tokens > 0
    assert replies[0].prompt_ids == replies[1].prompt_ids
    assert replies[0].seen != replies[1].seen
    assert replies[1].ledger.reused_tokens == 0
    alike = replace(replies[0], seen=replies[1].seen)
    looks = [studio.attention(reply).weight_IHQL for reply in (replies[0], alike)]
    assert np.abs(looks[0] - looks[1]).max() > 1e-5


def test_the_same_clip_after_other_words(studio):
    """The prompt before a clip is part of what its keys and values depend on."""
    words = ["Look.", "Here.", "Look."]
    for word in words:
        asked = [{"role": "system", "content": word}, *ask(clip())]
        reply = studio.reply(asked, **LONG)
        assert reply.token_ids == studio.new_session().reply(asked, **LONG).token_ids
        assert reply.ledger.reused_tokens == 0


def test_the_second_of_two_clips(studio):
    for pair in ((clip(0), clip(1)), (clip(0), clip(2)), (clip(1), clip(2)), (clip(0), clip(1))):
        reply = studio.reply(ask(*pair), **LONG)
        assert reply.token_ids == studio.new_session().reply(ask(*pair), **LONG).token_ids


def looked(studio, reply, **asked):
    return studio.attention(reply, **asked).weight_IHQL


def test_looks_into_replies_that_differ_in_one_thing(studio):
    one = studio.reply(ask(clip(0)), **LONG)
    other = studio.reply(ask(clip(1)), **LONG)
    assert one.seen[0].keep_bits == other.seen[0].keep_bits
    last = one.prompt_ids[-1]
    variants = {
        "answer": replace(one, token_ids=(*one.token_ids[:2], 40, *one.token_ids[3:])),
        "prompt": replace(one, prompt_ids=(*one.prompt_ids[:-1], last - 1)),
        "clip": replace(one, seen=other.seen),
    }
    plain = looked(studio, one)
    for name, variant in variants.items():
        assert np.abs(looked(studio, variant) - plain).max() > 1e-6, name
        beside = studio.new_session(share_encoded=True)
        assert np.array_equal(looked(beside, variant), looked(studio, variant)), name
    assert np.array_equal(looked(studio, one), plain)


def test_looks_into_two_frames_and_two_clips(studio):
    reply = studio.reply(ask(clip(0), clip(1)), prune=None, **LONG)
    per_frame = reply.seen[0].tokens_per_frame
    slots = [0, per_frame, 4 * per_frame]  # the same place: of two frames, of two clips
    for slot in slots * 2:
        asked = {"source": "vision", "tokens": [slot], "layers": [1], "heads": [0]}
        anew = looked(studio.new_session(share_encoded=True), reply, **asked)
        assert np.array_equal(looked(studio, reply, **asked), anew)
    for layer in (1, 0):
        asked = {"source": "vision", "tokens": [0], "layers": [layer]}
        anew = looked(studio.new_session(share_encoded=True), reply, **asked)
        assert np.array_equal(looked(studio, reply, **asked), anew)


def test_looks_at_some_layers_and_then_at_others(studio):
    reply = studio.reply(ask(clip()), **LONG)
    for asked in ({"layers": [0]}, {"layers": [1]}, {"source": "rollout"}, {}):
        known = studio.attention(reply, **asked)
        anew = studio.new_session(share_encoded=True).attention(reply, **asked)
        assert np.array_equal(known.weight_IHQL, anew.weight_IHQL)
        assert np.array_equal(known.sink_K, anew.sink_K)


def test_features_on_disk_of_two_clips_and_two_torches(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    folder, clips = tmp_path / "vl3" / "features", (clip(0), clip(1))
    written = [vl3.load(tiny_folder, features_gb=1).open(each) for each in clips]
    assert len(list(folder.iterdir())) == 2
    other = vl3.load(tiny_folder, features_gb=1)
    for each, video in zip(clips, written):
        found = other.open(each)
        assert found.ledger.encoded_clips == 0
        assert torch.equal(found.features_MD, video.features_MD)
    monkeypatch.setattr(torch, "__version__", "2.99.0")
    assert vl3.load(tiny_folder, features_gb=1).open(clips[0]).ledger.encoded_clips == 1
