"""Still pictures."""

import numpy as np
import pytest
from clips import numbered, numbers, write_animation, write_clip
from heic import write_heic
from PIL import Image

import vl3.video as video
from vl3.video import limits
from vl3.video.levels import eight_bits

RGB = np.array([[[250, 20, 30], [10, 200, 40]], [[20, 30, 220], [240, 230, 20]]], np.uint8)
SQUARES = RGB.repeat(20, 0).repeat(20, 1)


def corners(clip):
    frame = clip.frames_TYX3[0]
    return [frame[y, x].tolist() for y in (5, -5) for x in (5, -5)]


def test_an_image_has_no_time(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(SQUARES).save(path)
    for clip in (video.read_image(path), video.read(path), video.read_image(SQUARES)):
        assert (clip.times_s, clip.kind, clip.lost_frames) == (None, "image", 0)
        assert np.array_equal(clip.frames_TYX3[0], SQUARES)
    assert video.schedule(path).times_s is None
    probe = video.probe(path)
    assert (probe.kind, probe.height_px, probe.width_px) == ("image", 40, 40)


UNDO = {  # how a picture is stored that EXIF orientation 2 to 8 sets upright
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
KINDS = {
    "jpg": {"quality": 95},
    "png": {},
    "webp": {"lossless": True},
    "tif": {},
    "avif": {"quality": 95},
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", KINDS)
def test_exif_orientation_is_applied_once(tmp_path, suffix, orientation):
    upright = Image.fromarray(numbered(1234))
    stored = upright.transpose(UNDO[orientation]) if orientation > 1 else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"phone.{suffix}"
    stored.save(path, exif=exif, **KINDS[suffix])
    clip = video.read_image(path)
    assert clip.frames_TYX3.shape == (1, 32, 96, 3)
    assert numbers(clip.frames_TYX3) == [1234]
    probe = video.probe(path)
    assert (probe.height_px, probe.width_px) == (32, 96)
    with Image.open(path) as opened:
        assert numbers(video.read_image(opened).frames_TYX3) == [1234]


@pytest.mark.parametrize("suffix", ["webp", "avif"])
def test_animations_keep_their_turn_and_times(tmp_path, suffix):
    frames = [Image.fromarray(numbered(k)) for k in (3, 7)]
    path = tmp_path / f"m.{suffix}"
    options = {"duration": [400, 600]} | KINDS[suffix]
    if suffix == "webp":  # PIL 12.3 crashes where it writes an animated avif with EXIF data
        frames = [frame.transpose(UNDO[6]) for frame in frames]
        options["exif"] = Image.Exif()
        options["exif"][0x0112] = 6
    frames[0].save(path, save_all=True, append_images=frames[1:], **options)
    clip, probe = video.read(path, fps=10), video.probe(path)
    assert numbers(clip.frames_TYX3) == [3, 7]
    assert clip.times_s == (0.0, 0.4)
    assert (probe.height_px, probe.width_px) == clip.frames_TYX3.shape[1:3] == (32, 96)
    assert (probe.codec, probe.num_frames, probe.duration_s) == (suffix, 2, 1.0)


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


RAMP = np.linspace(0, 1, 256)[None].repeat(4, 0)


@pytest.mark.parametrize("top", [1, 255, 65535])
@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_floats_by_their_range(top, kind):
    if kind == np.float16 and top == 65535:
        top = 65504
    for array in ((RAMP * top).astype(kind), (RAMP * top).astype(kind)[..., None].repeat(3, 2)):
        frame = video.read_image(array).frames_TYX3[0]
        assert np.abs(frame[0, :, 0].astype(int) - np.arange(256)).max() <= 1
    assert video.read_image(np.zeros((4, 4, 3), kind)).frames_TYX3.max() == 0
    assert video.read_image(np.full((4, 4, 3), 1.004, kind)).frames_TYX3.min() == 255


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -0.5, 1.5, 15.0, 70000.0])
def test_floats_whose_range_cannot_be_told(tmp_path, value):
    array = RAMP.astype(np.float32)
    array[1, 1] = value
    Image.fromarray(array).save(tmp_path / "a.tif")
    for picture in (array, Image.fromarray(array), tmp_path / "a.tif"):
        with pytest.raises(video.VideoError, match=r"NaN|values from .* scale it first"):
            video.read_image(picture)


@pytest.mark.parametrize(("bits", "guessed"), [(10, True), (12, True), (14, False), (16, False)])
def test_bits_in_sixteen(tmp_path, bits, guessed):
    ramp = np.round(RAMP * (2**bits - 1)).astype(np.uint16)
    Image.fromarray(ramp).save(tmp_path / "plain.tif")
    Image.fromarray(ramp).save(tmp_path / "said.tif", tiffinfo={281: 2**bits - 1})
    for picture in (ramp, tmp_path / "plain.tif"):
        clip = video.read_image(picture)
        top = 255 if guessed else round(255 * (2**bits - 1) / 65535)
        assert abs(int(clip.frames_TYX3.max()) - top) <= 1
        assert [str(2**bits - 1) in note for note in clip.notes] == [True] * guessed
    said = video.read_image(tmp_path / "said.tif")
    assert (said.frames_TYX3.max(), said.notes) == (255, ())


def test_thirty_two_bits():
    assert eight_bits(np.array([[0, 255]], np.int32), "a")[0].tolist() == [[0, 255]]
    assert eight_bits(np.array([[0, 10**6]], np.int32), "a")[0].tolist() == [[0, 255]]
    with pytest.raises(video.VideoError, match="nothing below 0"):
        eight_bits(np.array([[-100, 50]], np.int32), "a")


def test_pages_and_raw_files(tmp_path):
    page = Image.fromarray(numbered(7))
    page.save(tmp_path / "a.tif", save_all=True, append_images=[page, page])
    assert video.read(tmp_path / "a.tif").notes == ("The picture has 3 pages; the first is read.",)
    page.save(tmp_path / "b.nef", format="TIFF", tiffinfo={254: 1})
    for entrance in (video.read_image, video.read, video.probe):
        with pytest.raises(video.VideoError, match="raw file"):
            entrance(tmp_path / "b.nef")


@pytest.mark.parametrize("suffix", [*KINDS, "gif", "heic"])
def test_whatever_is_damaged_gives_a_sentence(tmp_path, suffix):
    rng = np.random.default_rng(len(suffix))
    picture, path = numbered(1234, 64, 96), tmp_path / f"a.{suffix}"
    if suffix == "heic":
        write_heic(path, picture, tile_px=64)
    else:
        Image.fromarray(picture).save(path, **KINDS.get(suffix, {}))
    whole, sentences = path.read_bytes(), []
    for change in range(40):
        content = bytearray(whole)
        if change % 2:
            content = content[: rng.integers(1, len(content))]
        else:
            for at in rng.integers(0, min(len(content), 400), 8):
                content[at] = rng.integers(256)
        path.write_bytes(content)
        for entrance in (video.probe, video.read):
            try:
                entrance(path)
            except video.VideoError as error:
                sentences.append(str(error))
    assert len(sentences) > 10
    for sentence in sentences:
        assert sentence.endswith(".")
        assert "\n" not in sentence
        assert str(tmp_path) not in sentence


HEIC_TURNS = {  # as EXIF orientation 1 to 8
    1: [],
    2: [(b"imir", 1)],
    3: [(b"irot", 2)],
    4: [(b"imir", 0)],
    5: [(b"irot", 1), (b"imir", 0)],
    6: [(b"irot", 3)],
    7: [(b"irot", 3), (b"imir", 0)],
    8: [(b"irot", 1)],
}


@pytest.mark.parametrize("orientation", HEIC_TURNS)
@pytest.mark.parametrize("tile_px", [64, 512])
def test_pictures_of_phones_are_whole_and_upright(tmp_path, orientation, tile_px):
    upright = Image.fromarray(numbered(1234, 80, 240))
    stored = upright.transpose(UNDO[orientation]) if orientation > 1 else upright
    path = write_heic(tmp_path / "a.heic", np.asarray(stored), tile_px, HEIC_TURNS[orientation])
    assert video.is_image(path)
    clip, probe = video.read(path), video.probe(path)
    assert clip.frames_TYX3.shape == (1, 80, 240, 3)
    assert (clip.kind, clip.is_image) == ("image", True)
    assert numbers(clip.frames_TYX3) == [1234]
    assert (probe.kind, probe.height_px, probe.width_px) == ("image", 80, 240)


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
    monkeypatch.setattr(limits, "PICTURE_PIXELS", 1000)
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
