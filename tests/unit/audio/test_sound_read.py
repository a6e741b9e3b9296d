"""Sounds of every kind become mono at 16 kHz, at their own time."""

import wave

import numpy as np
import pytest
from sounds import click_times, clicks, tone, write_film, write_sound

from vl3 import audio
from vl3.video import VideoError

LOSSLESS = [
    ("s16.wav", "pcm_s16le", 16_000, None),
    ("u8.wav", "pcm_u8", 22_050, None),
    ("s24.wav", "pcm_s24le", 44_100, None),
    ("s32.wav", "pcm_s32le", 48_000, None),
    ("f32.wav", "pcm_f32le", 96_000, None),
    ("f64.wav", "pcm_f64le", 8_000, None),
    ("s16.flac", "flac", 44_100, "s16"),
    ("s24.flac", "flac", 192_000, "s32"),
    ("alac.m4a", "alac", 48_000, "s16p"),
    ("pcm.mkv", "pcm_s16le", 11_025, None),
    ("be.aiff", "pcm_s16be", 32_000, None),
    ("pcm.mov", "pcm_s24le", 48_000, None),
]
LOSSY = [
    ("a.mp3", "libmp3lame", 44_100),
    ("b.mp3", "libmp3lame", 16_000),
    ("c.m4a", "aac", 44_100),
    ("d.aac", "aac", 48_000),
    ("e.ogg", "vorbis", 44_100),
    ("f.opus", "libopus", 48_000),
    ("g.webm", "libopus", 48_000),
    ("h.mka", "ac3", 48_000),
    ("i.flv", "libmp3lame", 44_100),
    ("j.ts", "aac", 44_100),
]


def expected(seconds: float) -> np.ndarray:
    return tone(seconds, 16_000)[0]


@pytest.mark.parametrize(("name", "codec", "rate_hz", "stored"), LOSSLESS)
def test_lossless_sound_has_every_sample_at_its_time(tmp_path, name, codec, rate_hz, stored):
    path = write_sound(tmp_path / name, tone(1.37, rate_hz), rate_hz, codec, sample_format=stored)
    sound = audio.read(path)
    assert abs(len(sound) - 1.37 * 16_000) <= 32
    assert sound.start_s == 0
    middle = slice(800, 20_000)
    # 8 bits round by 1/256; else the resampler's own ripple
    assert np.abs(sound.samples_S - expected(2)[: len(sound)])[middle].max() < 5e-3
    assert (sound.track.rate_hz, sound.track.channels) == (rate_hz, 1)
    assert sound.notes == ()


def test_at_16_khz_samples_are_the_stored_ones(tmp_path):
    stored = np.random.default_rng(0).integers(-(2**15), 2**15, 30_000) / np.float32(2**15)
    path = write_sound(tmp_path / "a.wav", stored[None].astype(np.float32), 16_000)
    assert np.array_equal(audio.read(path).samples_S, stored)


@pytest.mark.parametrize(("name", "codec", "rate_hz"), LOSSY)
def test_lossy_sound_is_as_long_and_its_clicks_are_where_they_were(tmp_path, name, codec, rate_hz):
    made = clicks(2.0, rate_hz, [0.25, 1.5]).repeat(2, axis=0)
    sound = audio.read(write_sound(tmp_path / name, made, rate_hz, codec))
    assert abs(sound.duration_s - 2.0) <= 0.08
    found = click_times(sound.samples_S)
    # raw AAC, FLV and transport streams do not say how much their encoder put in front
    slack_s = 0.055 if name.endswith((".aac", ".flv", ".ts", ".mka")) else 0.002
    assert len(found) == 2
    assert np.allclose(found, [0.25, 1.5], atol=slack_s)
    assert abs(found[1] - found[0] - 1.25) < 0.001


@pytest.mark.parametrize("rate_hz", [8_000, 16_000, 44_100, 192_000])
@pytest.mark.parametrize("count", [1, 2, 10, 100, 1_000, 44_099])
def test_the_shortest_sounds_have_their_samples(tmp_path, rate_hz, count):
    rows = np.full((1, count), 0.5, np.float32)
    sound = audio.read(write_sound(tmp_path / "a.wav", rows, rate_hz))
    assert len(sound) == -(-count * 16_000 // rate_hz)
    assert len(audio.from_array(rows[0], rate_hz)) == len(sound)


def test_a_stream_whose_rate_changes_is_heard_as_long_as_it_is(tmp_path):
    parts = [
        write_sound(tmp_path / f"{rate}.aac", clicks(2, rate, [1.0]).repeat(2, 0), rate, "aac")
        for rate in (44_100, 22_050)
    ]
    for first, second in (parts, parts[::-1]):
        (tmp_path / "a.aac").write_bytes(first.read_bytes() + second.read_bytes())
        sound = audio.read(tmp_path / "a.aac")
        assert sound.duration_s == pytest.approx(4.0, abs=0.16)
        assert click_times(sound.samples_S) == pytest.approx([1.0, 3.0], abs=0.16)
        assert sound.track.gaps_s == ()


def test_bits_and_layout_are_stated(tmp_path):
    for stored, codec, bits in (("s32", "flac", 24), ("s16", "flac", 16)):
        path = write_sound(
            tmp_path / "c.flac", tone(0.2, 44_100), 44_100, codec, sample_format=stored
        )
        assert audio.read(path).track.bits == bits
    path = write_sound(tmp_path / "a.wav", tone(0.2, 96_000).repeat(6, 0), 96_000, "pcm_s24le")
    track = audio.read(path).track
    assert audio.described(track) == "pcm_s24le, 96 kHz, 24 bits, 5.1 (5 channels heard)"
    path = write_sound(tmp_path / "b.m4a", tone(0.2, 44_100).repeat(2, 0), 44_100, "aac")
    assert audio.described(audio.read(path).track) == "aac, 44.1 kHz, stereo"


def level(samples_S: np.ndarray, frequency_hz: float) -> float:
    """Of a tone in the middle of a sound."""
    part = samples_S[2_000:14_000]
    turns = np.exp(-2j * np.pi * frequency_hz * np.arange(len(part)) / 16_000)
    return 2 * abs(np.mean(part * turns))


def test_mono_is_the_mean_of_the_channels(tmp_path):
    rows = np.concatenate([tone(1, 16_000, 300, 0.4), tone(1, 16_000, 900, 0.2)])
    sound = audio.read(write_sound(tmp_path / "a.wav", rows, 16_000))
    assert level(sound.samples_S, 300) == pytest.approx(0.2, abs=1e-3)
    assert level(sound.samples_S, 900) == pytest.approx(0.1, abs=1e-3)


@pytest.mark.parametrize(
    ("name", "codec", "channels"),
    [
        ("a.wav", "pcm_s16le", 6),
        ("b.flac", "flac", 8),
        ("c.m4a", "aac", 8),
        ("d.opus", "libopus", 6),
    ],
)
def test_every_channel_of_surround_with_a_full_range_is_heard(tmp_path, name, codec, channels):
    frequencies = [300 + 200 * channel for channel in range(channels)]
    rows = np.concatenate([tone(1, 48_000, f, 0.5) for f in frequencies])
    sound = audio.read(write_sound(tmp_path / name, rows, 48_000, codec))
    found = [level(sound.samples_S, f) for f in frequencies]
    lfe = found.pop(3)
    assert found == pytest.approx([0.5 / (channels - 1)] * (channels - 1), rel=0.1)
    assert lfe < 1e-3


@pytest.mark.parametrize(("right", "cancels"), [(-1.0, True), (-0.85, True), (-0.75, False)])
def test_channels_that_cancel_leave_the_first_and_it_is_said(tmp_path, right, cancels):
    """-0.85 leaves 0.7 % of the channels' power in their mean, -0.75 leaves 2 %."""
    left = tone(1, 44_100, 500, 0.8)
    path = write_sound(tmp_path / "a.wav", np.concatenate([left, right * left]), 44_100)
    sound = audio.read(path)
    said = "The 2 channels of the sound cancel one another, so the first alone is heard."
    assert (said in sound.notes) == sound.track.cancelled == cancels
    wanted = 0.8 if cancels else 0.8 * (1 + right) / 2
    assert level(sound.samples_S, 500) == pytest.approx(wanted, abs=2e-3)
    assert np.array_equal(np.concatenate([*audio.blocks(path)]), sound.samples_S)


def test_a_gap_over_20_ms_is_silence_and_a_shorter_one_is_not(tmp_path):
    made = clicks(0.5, 48_000, [0.1])
    for gap_s, heard in ((0.5, 1), (0.015, 0)):
        pieces = [(0.0, made), (0.5 + gap_s, made)]
        path = write_sound(tmp_path / f"{heard}.mkv", pieces, 48_000, "pcm_s16le")
        sound = audio.read(path)
        assert len(sound.track.gaps_s) == heard
        assert sound.duration_s == pytest.approx(1.0 + gap_s * heard, abs=0.002)
        assert click_times(sound.samples_S)[1] == pytest.approx(0.6 + gap_s * heard, abs=0.002)
    assert sound.notes == ()
    (gap,) = audio.read(tmp_path / "1.mkv").track.gaps_s
    assert gap == pytest.approx((0.5, 0.5), abs=0.002)
    assert audio.read(tmp_path / "1.mkv").notes == (
        "The sound has a gap of 0.50 s in all, which are silence.",
    )


@pytest.mark.parametrize("name", ["a.mkv", "a.mp4"])
def test_a_track_that_is_late_keeps_its_time(tmp_path, name):
    path = write_film(tmp_path / name, [(0.75, clicks(1.25, 48_000, [0.25]))])
    sound = audio.read(path)
    # AAC in MKV is rounded to milliseconds
    assert sound.start_s == pytest.approx(0.75, abs=0.025)
    assert sound.start_s + click_times(sound.samples_S)[0] == pytest.approx(1.0, abs=0.004)
    assert any(
        note.startswith("The sound begins 0.7") and note.endswith(" s after the picture.")
        for note in sound.notes
    )


def test_sound_before_the_picture_has_a_time_below_0(tmp_path):
    path = write_film(
        tmp_path / "a.mkv", [(0.0, clicks(3.0, 48_000, [0.5]))], picture_from_s=1.0, codec="flac"
    )
    sound = audio.read(path)
    assert (sound.start_s, sound.first_frame_s) == pytest.approx((-1.0, 1.0), abs=0.002)
    assert sound.start_s + click_times(sound.samples_S)[0] == pytest.approx(-0.5, abs=0.002)
    assert sound.notes == ("The sound begins 1.00 s before the picture.",)
    part = audio.read(path, start=1.0)
    assert part.start_s == pytest.approx(0.0, abs=0.002)


def test_longer_and_shorter_tracks_are_said(tmp_path):
    for seconds, said in ((1.0, "ends 1.00 s before"), (3.5, "ends 1.50 s after")):
        path = write_film(tmp_path / "a.mkv", [(0.0, tone(seconds, 48_000))], codec="flac")
        assert audio.read(path).notes == (f"The sound {said} the picture.",)


def test_a_video_without_sound_and_a_silent_one(tmp_path):
    none = audio.read(write_film(tmp_path / "a.mp4", []))
    assert (len(none), none.track, none.notes) == (0, None, ("The video has no sound.",))
    assert not audio.probe(tmp_path / "a.mp4").has_sound
    silent = audio.read(write_film(tmp_path / "b.mp4", [(0.0, np.zeros((1, 96_000), np.float32))]))
    assert len(silent) > 31_000
    assert silent.notes == ("The sound is silent throughout.",)


def test_an_empty_track(tmp_path):
    nothing = np.zeros((1, 0), np.float32)
    film = audio.read(write_film(tmp_path / "a.mkv", [(0.0, nothing)], codec="pcm_s16le"))
    assert len(film) == 0
    assert film.notes == ("The sound of a.mkv (pcm_s16le) is empty.",)
    path = tmp_path / "b.wav"
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 16_000, 0, "NONE", ""))
        file.writeframes(b"")
    with pytest.raises(VideoError, match=r"^The sound of b\.wav \(pcm_s16le\) is empty\.$"):
        audio.read(path)


def test_a_broken_track(tmp_path):
    path = write_film(tmp_path / "a.mkv", [(0.0, tone(2.0, 48_000))], codec="flac")
    content = bytearray(path.read_bytes())
    noise = np.random.default_rng(0).integers(0, 256, len(content), dtype=np.uint8)
    frame = content.find(b"\xff\xf8")  # where FLAC's frames begin
    while frame >= 0:
        content[frame : frame + 6] = noise[frame : frame + 6].tobytes()
        frame = content.find(b"\xff\xf8", frame + 1)
    path.write_bytes(content)
    sound = audio.read(path)
    assert sound.track.lost_packets > 0.5 * sound.track.packets
    assert sound.notes[0].startswith("The sound of a.mkv (flac) is broken: ")


def test_a_file_cut_short_gives_what_is_there(tmp_path):
    path = write_sound(tmp_path / "a.flac", tone(4.0, 44_100), 44_100, "flac")
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    assert 1.0 < audio.read(path).duration_s < 3.0


def test_a_range_without_sound_of_a_video(tmp_path):
    path = write_film(tmp_path / "a.mkv", [(0.0, tone(1, 48_000))], codec="flac")
    sound = audio.read(path, start=1.5, end=1.75)
    assert (len(sound), sound.notes) == (
        0,
        ("The sound of a.mkv has nothing from 1.5 s to 1.75 s.",),
    )
    assert [*audio.blocks(path, start=1.5)] == []


def test_several_tracks(tmp_path):
    path = write_film(tmp_path / "a.mkv", [(0.0, tone(2.0, 48_000))], codec="flac", tracks=2)
    assert audio.read(path).notes == ("The file holds 2 sounds; only its main one is heard.",)


RANGES = [(None, 1.0), (0.5, None), (0.25, 1.75), (1.9, 5.0)]


@pytest.mark.parametrize(("start", "end"), RANGES)
def test_a_range_is_that_part_of_the_whole(tmp_path, start, end):
    noise = np.random.default_rng(0).standard_normal((1, 32_000)).astype(np.float32) / 8
    path = write_sound(tmp_path / "a.wav", noise, 16_000, "pcm_f32le")
    part = audio.read(path, start=start, end=end)
    first, last = round(16_000 * (start or 0)), round(16_000 * min(end or 2.0, 2.0))
    assert np.array_equal(part.samples_S, noise[0, first:last])
    assert part.start_s == pytest.approx(start or 0.0, abs=1e-6)


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.flac", "flac"),
        ("a.m4a", "aac"),
        ("a.mka", "aac"),
        ("a.mp3", "libmp3lame"),
        ("a.ogg", "vorbis"),
    ],
)
def test_a_range_far_into_a_file(tmp_path, name, codec):
    """Where decoding begins at a place that was sought."""
    made = clicks(30.0, 44_100, [5.0, 20.5, 21.5, 25.0]).repeat(2, axis=0)
    path = write_sound(tmp_path / name, made, 44_100, codec)
    part = audio.read(path, start=20.0, end=24.0)
    assert part.start_s == pytest.approx(20.0, abs=0.001)
    assert len(part) == pytest.approx(64_000, abs=32)
    assert click_times(part.samples_S) == pytest.approx([0.5, 1.5], abs=0.003)


def test_blocks_and_measure_give_what_read_gives(tmp_path):
    rows = np.random.default_rng(0).standard_normal((2, 441_000)).astype(np.float32) / 8
    path = write_sound(tmp_path / "a.flac", rows, 44_100, "flac")
    sound, found = audio.read(path, start=0.5), [*audio.blocks(path, start=0.5)]
    assert len(found) > 1
    assert max(map(len, found)) < 5 * 16_000
    assert np.array_equal(np.concatenate(found), sound.samples_S)
    length = audio.measure(path, start=0.5)
    assert (length.num_samples, length.start_s) == (len(sound), sound.start_s)
    assert (length.track, length.notes) == (sound.track, sound.notes)


def test_decoding_in_this_process_gives_the_same(tmp_path, monkeypatch):
    path = write_sound(tmp_path / "a.mp3", tone(1.0, 44_100), 44_100, "libmp3lame")
    there = audio.read(path).samples_S
    monkeypatch.setenv("VL3_DECODER", "thread")
    assert np.array_equal(audio.read(path).samples_S, there)


def test_probe_reads_the_header(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(1.5, 8_000).repeat(2, 0), 8_000, "pcm_s16le")
    header = audio.probe(path)
    assert (header.codec, header.rate_hz, header.channels, header.bits) == (
        "pcm_s16le",
        8_000,
        2,
        16,
    )
    assert header.duration_s == pytest.approx(1.5)
    assert header.has_sound
    assert not header.has_picture


def test_what_cannot_be_read_is_refused_in_words(tmp_path):
    path = write_sound(tmp_path / "a.wav", tone(1.0, 8_000), 8_000)
    with pytest.raises(VideoError, match=r"is 1\.00 s long but the range starts at 5 s"):
        audio.read(path, start=5)
    with pytest.raises(VideoError, match=r"^end \(1 s\) must be later than start \(2 s\)\.$"):
        audio.read(path, start=2, end=1)
    with pytest.raises(VideoError, match=r"^There is no file named b\.wav"):
        audio.read(tmp_path / "b.wav")
    (tmp_path / "c.wav").write_bytes(b"")
    with pytest.raises(VideoError, match=r"^c\.wav is empty \(0 bytes\)"):
        audio.read(tmp_path / "c.wav")
    (tmp_path / "d.wav").write_bytes(b"RIFF0000WAVEhello")
    with pytest.raises(VideoError, match=r"d\.wav"):
        audio.read(tmp_path / "d.wav")


def test_a_picture_has_no_sound(tmp_path):
    from PIL import Image

    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(VideoError, match=r"^a\.png is a picture and has no sound"):
        audio.read(tmp_path / "a.png")
