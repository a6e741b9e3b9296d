"""Squares for towers of fixed size, against the processors of transformers, and by every way in."""

import json
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from clips import numbers, write_animation, write_clip
from PIL import Image
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

from vl3 import video
from vl3.messages.media import resize_clip
from vl3.values import Clip
from vl3.video import Square, VideoError
from vl3.video.sample import piece_middles
from vl3.video.square import LONGEST, middle, read_square, squared

SIDE = 56
CROP = Square(side_px=SIDE, seen_px=SIDE)
SHAPES = [(60, 100), (100, 60), (333, 517), (56, 56), (40, 41), (720, 1280), (57, 900)]


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def levels(processor, pixels_YX3) -> np.ndarray:
    """The grey levels of what a processor makes of a picture."""
    made = processor.preprocess([Image.fromarray(pixels_YX3)], return_tensors="np")["pixel_values"]
    mean, std = np.array(processor.image_mean), np.array(processor.image_std)
    return np.round((made[0].transpose(1, 2, 0) * std + mean) * 255).astype(int)


CLIP = CLIPImageProcessorPil(
    size={"shortest_edge": SIDE}, crop_size={"height": SIDE, "width": SIDE}
)
SIGLIP = SiglipImageProcessorPil(
    size={"height": SIDE, "width": SIDE}, resample=Image.Resampling.BICUBIC
)


@pytest.mark.parametrize("shape", SHAPES)
def test_the_bits_are_those_of_the_towers_own_processors(shape):
    pixels = picture(*shape)
    for processor, fit in ((CLIP, "crop"), (SIGLIP, "stretch")):
        theirs = levels(processor, pixels)
        found = squared(pixels, replace(CROP, fit=fit))
        assert (found == theirs).all(), fit
        assert not (squared(picture(*shape, seed=1), replace(CROP, fit=fit)) == theirs).all()


@pytest.mark.parametrize("shape", SHAPES)
def test_padding_is_a_square_of_the_mean_colour_that_is_then_processed(shape):
    pixels, fill = picture(*shape), (122, 116, 104)
    side = max(shape)
    padded = np.empty((side, side, 3), np.uint8)
    padded[:] = fill
    top, left = (side - shape[0]) // 2, (side - shape[1]) // 2
    padded[top : top + shape[0], left : left + shape[1]] = pixels
    found = squared(pixels, replace(CROP, fit="pad", fill=fill))
    assert (found == levels(CLIP, padded)).all()


def test_what_is_not_seen_is_cut_off_below_and_on_the_right():
    pixels = picture(70, 90)
    whole = squared(pixels, Square(side_px=62, seen_px=62, fit="stretch"))
    assert (squared(pixels, Square(side_px=62, seen_px=56, fit="stretch")) == whole[:56, :56]).all()


def test_a_very_long_picture_is_cut_before_it_is_resized():
    """The middle of the whole, to within a level: sums begin elsewhere."""
    long = Image.fromarray(picture(20, 20 * (LONGEST + 1)))
    whole = long.resize((SIDE * (LONGEST + 1), SIDE), Image.Resampling.BICUBIC)
    left = (whole.width - SIDE) // 2
    cut = np.asarray(whole.crop((left, 0, left + SIDE, SIDE))).astype(int)
    found = np.asarray(middle(long, SIDE)).astype(int)
    assert np.abs(found - cut).max() <= 1
    thread = squared(np.zeros((1, 60_000, 3), np.uint8), CROP)
    assert thread.shape == (SIDE, SIDE, 3)


def test_a_file_goes_the_same_way_as_a_picture_in_memory(tmp_path):
    pixels = picture(60, 100)
    path = tmp_path / "picture.png"
    Image.fromarray(pixels).save(path)
    for fit in ("crop", "stretch", "pad"):
        square = replace(CROP, fit=fit)
        expected = squared(pixels, square)
        for source in (path, pixels, Image.fromarray(pixels)):
            assert (video.read_image(source, size=square).frames_TYX3[0] == expected).all()
        clip = Clip(frames_TYX3=pixels[None], times_s=(0.0,), source="clip")
        assert (resize_clip(clip, square).frames_TYX3[0] == expected).all()
    seen = Clip(frames_TYX3=picture(56, 56)[None], times_s=(0.0,), source="clip")
    assert resize_clip(seen, CROP) is seen


def test_frames_of_a_video_are_squared_where_they_are_decoded(tmp_path):
    path = tmp_path / "film.mp4"
    write_clip(path, 6, fps=2)
    whole = video.read(path, fps=2).frames_TYX3
    for fit in ("crop", "stretch", "pad"):
        square = replace(CROP, fit=fit)
        found = video.read(path, fps=2, size=square).frames_TYX3
        assert (found == np.stack([squared(frame, square) for frame in whole])).all()


def test_pixels_that_are_not_square_become_so_first(tmp_path):
    path = tmp_path / "film.mp4"
    write_clip(path, 2, fps=1, pixel_aspect=Fraction(1, 2))
    (shown, *_) = video.read(path).frames_TYX3
    assert shown.shape == (32, 48, 3)
    found = video.read(path, size=CROP).frames_TYX3[0]
    assert (found == squared(shown, CROP)).all()


def test_a_picture_too_large_to_be_padded_is_refused(tmp_path):
    path = tmp_path / "thread.png"
    Image.fromarray(np.zeros((2, 20_000, 3), np.uint8)).save(path)
    with pytest.raises(VideoError, match="padded to a square, is too large: 20000 x 20000 pixels"):
        video.read_image(path, size=replace(CROP, fit="pad"))
    assert video.read_image(path, size=CROP).frames_TYX3.shape == (1, SIDE, SIDE, 3)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"side_px": 0}, "side_px of a square"),
        ({"seen_px": 57}, "seen_px of a square"),
        ({"fit": "cover"}, "fit is"),
        ({"fill": (1, 2)}, "three grey levels"),
        ({"fill": (1, 2, 256)}, "each level of fill"),
    ],
)
def test_a_square_that_cannot_be_is_refused(changes, match):
    with pytest.raises(ValueError, match=match):
        replace(CROP, **changes)


def test_a_square_is_read_from_what_is_written():
    assert read_square(None) is None
    assert read_square({"side_px": 62, "seen_px": 56, "fit": "pad", "fill": [1, 2, 3]}) == Square(
        side_px=62, seen_px=56, fit="pad", fill=(1, 2, 3)
    )
    with pytest.raises(ValueError, match="square is an object with side_px"):
        read_square({"side_px": 3})


# frames in a fixed number


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.mp4"
    write_clip(path, 30, fps=10)
    return path


def test_the_frame_shown_in_the_middle_of_each_piece_is_taken(film):
    read = video.read(film, pieces=4)
    # 3 s in four: 0.375, 1.125, 1.875, 2.625 s
    assert numbers(read.frames_TYX3) == [3, 11, 18, 26]
    assert read.times_s == pytest.approx((0.3, 1.1, 1.8, 2.6))
    assert video.schedule(film, pieces=4).times_s == read.times_s
    part = video.read(film, pieces=2, start=1, end=2)
    assert numbers(part.frames_TYX3) == [12, 17]
    assert numbers(video.read(film, pieces=1, fps=99, max_frames=1).frames_TYX3) == [15]


def test_a_short_clip_repeats_frames(tmp_path):
    path = tmp_path / "short.mp4"
    write_clip(path, 3, fps=10)
    for mode in ("exact", "official"):
        read = video.read(path, pieces=8, mode=mode)
        found = numbers(read.frames_TYX3)
        assert len(found) == len(read.times_s) == 8
        assert sorted(set(found)) == [0, 1, 2]
        assert read.times_s == pytest.approx([number / 10 for number in found])
        assert video.schedule(path, pieces=8, mode=mode).times_s == read.times_s


def test_the_official_way_counts_frames(film):
    read = video.read(film, pieces=4, mode="official")
    # the middles of four pieces of 0 to 29: 3.625, 10.875, 18.125, 25.375
    assert numbers(read.frames_TYX3) == [4, 11, 18, 25]
    # from 1 s on: frame 10 - 1; until 2.2 s: 22 - 1. The middles of two pieces of 0 to 12: 3 and 9
    part = video.read(film, pieces=2, mode="official", start=1, end=2.2)
    assert numbers(part.frames_TYX3) == [12, 18]
    with pytest.raises(VideoError, match=r"takes no frame from film\.mp4 in this range"):
        video.read(film, pieces=2, mode="official", start=0.01, end=0.05)


def test_a_gif_has_each_frame_once_and_black_ones_after(tmp_path):
    """Its reader gives a frame once however often it is wanted, and the rest is filled up."""
    path = tmp_path / "loop.gif"
    write_animation(path, [200, 200, 200])
    read = video.read(path, pieces=8, mode="official")
    assert len(read) == 8
    assert numbers(read.frames_TYX3[:3]) == [0, 1, 2]
    assert not read.frames_TYX3[3:].any()
    assert read.times_s[3:] == (read.times_s[2],) * 5
    assert video.schedule(path, pieces=8, mode="official").times_s == read.times_s
    exact = video.read(path, pieces=8)
    assert sorted(set(numbers(exact.frames_TYX3))) == [0, 1, 2]


def test_no_piece_is_refused(film):
    with pytest.raises(VideoError, match="pieces is a whole number"):
        video.read(film, pieces=0)


def test_official_middles_are_the_recorded_ones(shared):
    rows = json.loads((shared / "fixtures/vl2_stc_tiny/frame_sample.json").read_text())
    uniform = [row for row in rows if row["mode"] == "uniform"]
    assert len(uniform) == 65
    for row in uniform:
        assert piece_middles(row["duration"], row["num_frames"]) == row["indices"]
