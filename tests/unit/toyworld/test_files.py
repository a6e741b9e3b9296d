"""Toy clips as files: what a page or a reader gets is what the scene says."""

import json
import random
import wave
from dataclasses import replace

import av
import numpy as np
import pytest

from vl3 import video
from vl3.data.readers import open_records
from vl3.sound import RATE_HZ
from vl3.toyworld.draw import render
from vl3.toyworld.files import CLIPS, main, save, write_set
from vl3.toyworld.synthesis import listen
from vl3.toyworld.world import Level, sample_scene


def scene(seed, **changes):
    level = replace(CLIPS, seconds=(4, 5), sounds=(1, 2), hum=0.0, **changes)
    return sample_scene(random.Random(seed), level)


def decoded(path):
    with av.open(path) as container:
        return np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])


def onsets_s(samples_S, least=0.005):
    """Where quiet of 50 ms ends, by the power of every 10 ms."""
    power_A = (samples_S[: len(samples_S) // 160 * 160].reshape(-1, 160) ** 2).mean(axis=1)
    loud_A = np.concatenate([np.zeros(5, bool), power_A > (least * np.sqrt(power_A.max())) ** 2])
    starts = [a for a in range(5, len(loud_A)) if loud_A[a] and not loud_A[a - 5 : a].any()]
    return [(a - 5) / 100 for a in starts]


@pytest.mark.parametrize("seed", range(4))
def test_a_clip_is_seen_and_heard_as_its_scene(tmp_path, seed):
    drawn = scene(seed)
    path = save(drawn, tmp_path / "clip")
    assert path.name == "clip.mp4"
    clip = video.read(path, fps=1)
    assert clip.times_s == drawn.times_s
    wanted = render(drawn, scale=3).astype(int)
    assert np.abs(clip.frames_TYX3 - wanted).mean() < 4  # H.264, with colours at half the size
    sounds = drawn.track.sounds
    heard = decoded(path)
    assert len(heard) / RATE_HZ == pytest.approx(drawn.seconds, abs=0.08)
    for sound in sounds:
        assert min(abs(onset - sound.start_s) for onset in onsets_s(heard)) < 0.08
    assert min(abs(onset - sounds[0].start_s - 0.5) for onset in onsets_s(heard)) > 0.08, "canary"


def test_sound_alone_is_a_wav_of_exactly_its_samples(tmp_path):
    drawn = scene(3, alone=1.0)
    path = save(drawn, tmp_path / "sound")
    with wave.open(str(path)) as written:
        assert (written.getframerate(), written.getnchannels()) == (RATE_HZ, 1)
        samples_S = np.frombuffer(written.readframes(written.getnframes()), "<i2") / 32767
    assert np.abs(samples_S - listen(drawn).samples_S).max() < 2e-5


def test_images_and_silent_clips_have_no_sound(tmp_path):
    assert save(scene(0, sound=0.0), tmp_path / "a").suffix == ".mp4"
    with av.open(tmp_path / "a.mp4") as container:
        assert not container.streams.audio
    image = sample_scene(random.Random(0), Level(seconds=(0, 0), sprites=(1, 1)))
    assert save(image, tmp_path / "b").suffix == ".png"


def test_a_set_is_one_that_training_reads(tmp_path):
    listed = write_set(tmp_path, replace(CLIPS, sound=0.5), 4, seed=1)
    rows = [json.loads(line) for line in listed.read_text("utf-8").splitlines()]
    assert len(rows) == 4
    assert all((tmp_path / row["videos"][0]).is_file() for row in rows)
    assert all(row["heard"] for row in rows)
    records = open_records(str(listed), name="toy")
    record = records[0]
    assert len(records) == 4
    assert [len(each) for each in record.conversations] == [2] * len(rows[0]["message_lists"])


def test_the_command_writes_what_is_asked_for(tmp_path, capsys):
    main([str(tmp_path / "heard"), "--count", "2", "--alone", "1"])
    assert capsys.readouterr().out.strip().endswith("train.jsonl")
    assert len(list((tmp_path / "heard").glob("*.wav"))) == 2
    main([str(tmp_path / "seen"), "--count", "1", "--silent"])
    with av.open(tmp_path / "seen" / "0000.mp4") as container:
        assert not container.streams.audio
    with pytest.raises(SystemExit):
        main([str(tmp_path / "none"), "--alone", "2"])
    assert "--alone is from 0 to 1" in capsys.readouterr().err
    assert not (tmp_path / "none").exists()
