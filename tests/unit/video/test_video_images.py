"""Still pictures."""

import numpy as np
import pytest
from clips import numbered, numbers, write_animation, write_clip
from PIL import Image

import vl3.video as video

RGB = np.array([[[250, 20, 30], [10, 200, 40]], [[20, 30, 220], [240, 230, 20]]], np.uint8)
SQUARES = RGB.repeat(20, 0).repeat(20, 1)


def corners(clip):
    frame = clip.frames_TYX3[0]
    return [frame[y, x].tolist() for y in (5, -5) for x in (5, -5)]


def test_an_image_has_no_time(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(SQUARES).save(path)
    for clip in (video.read_image(path), video.read(path), video.read_image(SQUARES)):
        assert (clip.times_s, clip.is_image, clip.lost_frames) == (None, True, 0)
        assert np.array_equal(clip.frames_TYX3[0], SQUARES)
    assert video.schedule(path).times_s is None
    probe = video.probe(path)
    assert (probe.kind, probe.height_px, probe.width_px) == ("image", 40, 40)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(tmp_path, orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    upright = Image.fromarray(numbered(1234))
    stored = upright.transpose(undo[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "phone.jpg"
    stored.save(path, exif=exif, quality=95)
    clip = video.read_image(path)
    assert clip.frames_TYX3.shape == (1, 32, 96, 3)
    assert numbers(clip.frames_TYX3) == [1234]
    probe = video.probe(path)
    assert (probe.height_px, probe.width_px) == (32, 96)


def test_alpha_over_white():
    rgba = np.dstack([SQUARES, np.full(SQUARES.shape[:2], 0, np.uint8)])
    rgba[20:, :, 3] = 255
    for picture in (rgba, Image.fromarray(rgba)):
        frame = video.read_image(picture).frames_TYX3[0]
        assert frame[:20].min() == 255
        assert np.array_equal(frame[20:], SQUARES[20:])


@pytest.mark.parametrize("suffix", ["gif", "png"])
def test_palette_with_transparency(tmp_path, suffix):
    picture = Image.fromarray(SQUARES).quantize(8)
    picture.info["transparency"] = picture.getpixel((5, 5))
    path = tmp_path / f"p.{suffix}"
    picture.save(path, transparency=picture.getpixel((5, 5)))
    found = corners(video.read_image(path))
    assert found[0] == [255, 255, 255]
    assert np.abs(np.array(found[1:]) - RGB.reshape(4, 3)[1:].astype(int)).max() <= 6


def test_cmyk(tmp_path):
    path = tmp_path / "c.jpg"
    Image.fromarray(SQUARES).convert("CMYK").save(path, quality=100)
    found = np.array(corners(video.read_image(path)))
    assert np.abs(found - RGB.reshape(4, 3).astype(int)).max() <= 12


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_are_scaled_not_clipped(tmp_path, suffix):
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    path = tmp_path / f"deep.{suffix}"
    Image.fromarray(ramp).save(path)
    frame = video.read_image(path).frames_TYX3[0]
    assert np.abs(frame[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    assert np.array_equal(frame[..., 0], frame[..., 2])


def test_dark_sixteen_bits_stay_dark():
    dark = np.full((4, 4), 300, np.uint16)
    assert video.read_image(Image.fromarray(dark)).frames_TYX3.max() == 1


def test_grey_bits_and_one_pixel():
    for mode in ("L", "1", "LA", "P"):
        clip = video.read_image(Image.new(mode, (1, 1)))
        assert clip.frames_TYX3.shape == (1, 1, 1, 3)


@pytest.mark.parametrize("suffix", ["gif", "png", "webp"])
def test_animations_are_videos_and_single_frames_images(tmp_path, suffix):
    moving = write_animation(tmp_path / f"m.{suffix}", [100, 100, 100])
    assert not video.is_image(moving)
    assert numbers(video.read_image(moving).frames_TYX3) == [0]
    still = tmp_path / f"s.{suffix}"
    Image.fromarray(numbered(7)).save(still)
    assert video.is_image(still)
    assert numbers(video.read(still).frames_TYX3) == [7]


def test_content_decides_and_not_the_name(tmp_path):
    clip = write_clip(tmp_path / "a.mp4", 5).rename(tmp_path / "a.jpg")
    assert not video.is_image(clip)
    picture = tmp_path / "b.mp4"
    Image.fromarray(SQUARES).save(picture, format="PNG")
    assert video.is_image(picture)


def test_size_is_pils_bicubic():
    expected = np.asarray(Image.fromarray(SQUARES).resize((28, 14), Image.Resampling.BICUBIC))
    for size in ((14, 28), lambda frames, height, width: (14 * frames, 28)):
        assert np.array_equal(video.read_image(SQUARES, size=size).frames_TYX3[0], expected)


def test_bomb_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "bomb.png"
    Image.new("1", (200, 200)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    for entrance in (video.read_image, video.is_image, video.probe, video.read):
        with pytest.raises(video.VideoError, match=r"bomb.png is too large"):
            entrance(path)


def test_damaged_picture(tmp_path):
    path = tmp_path / "cut.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(path)
    path.write_bytes(path.read_bytes()[:4000])
    with pytest.raises(video.VideoError, match=r"cut.png is damaged or incomplete"):
        video.read_image(path)


def test_not_a_picture(tmp_path):
    with pytest.raises(video.VideoError, match=r"a.mp4 is not a picture"):
        video.read_image(write_clip(tmp_path / "a.mp4", 2))


@pytest.mark.parametrize(
    "array", [np.zeros((3, 8, 8), np.uint8), np.zeros((0, 8, 3), np.uint8), np.zeros((8, 8), int)]
)
def test_wrong_arrays(array):
    with pytest.raises(video.VideoError, match="picture array"):
        video.read_image(array)


def test_real_photo(shared):
    clip = video.read_image(shared / "media" / "waterview.jpg")
    assert clip.frames_TYX3.std() > 20
