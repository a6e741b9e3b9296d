"""Encoded clips on disk: found by another program, bounded, and never a reason to fail."""

import os

import pytest
import torch
from clips import write_clip

import vl3
from vl3.inference import disk_cache
from vl3.inference.disk_cache import FeatureCache
from vl3.inference.fingerprint import fingerprint


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "vl3" / "features"


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    return write_clip(tmp_path_factory.mktemp("film") / "film.mp4", 8, 1, size=(96, 144))


def ask(film):
    parts = [{"type": "video", "video": film}, {"type": "text", "text": "What happens?"}]
    return [{"role": "user", "content": parts}]


def test_another_program_encodes_nothing_and_says_the_same(tiny_folder, film, folder):
    first = vl3.load(tiny_folder, features_gb=1).reply(ask(film), max_new_tokens=8)
    assert first.ledger.encoded_clips == 1
    again = vl3.load(tiny_folder, features_gb=1)
    stages = []
    again.open(film, on_stage=lambda stage: stages.append(stage.name))
    assert "Encoded before, read from disk" in stages
    assert "Encoding video" not in stages
    reply = again.new_session().reply(ask(film), max_new_tokens=8)
    assert (reply.ledger.encoded_clips, reply.ledger.reused_clips) == (0, 0)
    assert reply.token_ids == first.token_ids
    assert folder.stat().st_mode & 0o077 == 0  # nobody else may look


def test_nothing_is_written_unasked(tiny_folder, film, folder):
    vl3.load(tiny_folder).open(film)
    assert not folder.exists()


def test_other_weights_other_files(tiny_folder, film, folder):
    studio = vl3.load(tiny_folder, features_gb=1)
    first = studio.open(film)
    other = vl3.load(tiny_folder, features_gb=1)
    assert fingerprint(other.model.vision) == fingerprint(studio.model.vision)
    with torch.no_grad():
        weight = next(p for p in other.model.vision.parameters() if p.ndim > 1)
        whole = weight.clone()
        weight.view(-1)[weight.numel() - 1] += 1
    assert fingerprint(other.model.vision) != fingerprint(studio.model.vision)
    assert other.open(film).ledger.encoded_clips == 1
    assert len(list(folder.iterdir())) == 2
    with torch.no_grad():
        weight.copy_(whole)
    other.release()
    again = other.open(film)
    assert again.ledger.encoded_clips == 0
    torch.testing.assert_close(again.features_MD, first.features_MD, rtol=0, atol=0)


def test_a_damaged_file_is_encoded_anew(tiny_folder, film, folder):
    first = vl3.load(tiny_folder, features_gb=1).open(film)
    (file,) = folder.iterdir()
    file.write_bytes(file.read_bytes()[:100])
    again = vl3.load(tiny_folder, features_gb=1)
    torch.testing.assert_close(again.open(film).features_MD, first.features_MD, rtol=0, atol=0)
    assert again.open(film).ledger.encoded_clips == 1
    assert FeatureCache(folder, 10**9).get("unknown") is None


def test_the_longest_unused_go_first(tmp_path):
    files = FeatureCache(tmp_path, 3000)
    for number in range(2):
        files.put(str(number), torch.full((250,), float(number)))
        for path in tmp_path.iterdir():  # seconds ago
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**10))
    assert files.get("0") is not None  # used just now
    files.put("2", torch.full((250,), 2.0))
    assert files.get("1") is None
    assert files.get("0")[0] == 0
    assert files.get("2")[0] == 2
    files.put("large", torch.zeros(2000))
    assert files.get("large") is None
    assert files.get("2") is not None


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache, "save_file", full)
    files = FeatureCache(tmp_path, 10**6)
    files.put("a", torch.zeros(10))
    assert files.get("a") is None
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_program_left_goes_later(tmp_path):
    left, written = tmp_path / "left.partial", tmp_path / "written.partial"
    for path in (left, written):
        path.write_bytes(b"half")
    os.utime(left, (0, 0))
    FeatureCache(tmp_path, 1000).put("clip", torch.zeros(4))
    assert not left.exists()
    assert written.exists()  # perhaps by a program that is alive
