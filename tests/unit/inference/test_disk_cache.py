"""Encoded clips on disk: found by another program, bounded, and never a reason to fail."""

import os
import time
from pathlib import Path

import pytest
import torch
from clips import write_clip
from safetensors.torch import save_file

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


def test_as_much_as_the_bound_stays_and_a_byte_more_goes(tmp_path):
    files = FeatureCache(tmp_path, 10**9)
    for number in range(3):
        files.put(str(number), torch.full((250,), float(number)))
        for path in tmp_path.iterdir():
            os.utime(path, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns - 10**10))
    held = sum(path.stat().st_size for path in tmp_path.iterdir())
    small = torch.zeros(250)
    FeatureCache(tmp_path, held).put("2", small)  # of the same length
    assert len(list(tmp_path.iterdir())) == 3
    FeatureCache(tmp_path, held - 1).put("2", small)
    assert [files.get(name) is None for name in "012"] == [True, False, False]
    exact = FeatureCache(tmp_path / "exact", small.nbytes)
    exact.put("a", small)
    assert exact.get("a") is None, "its header is more than that"
    assert list((tmp_path / "exact").iterdir()) == []
    exact.put("b", torch.zeros(251))
    assert list((tmp_path / "exact").iterdir()) == []


def test_one_key_one_file(tmp_path):
    files, long = FeatureCache(tmp_path, 10**9), "x" * 500
    keys = ["a", "b", long + "a", long + "b", "../a", ""]
    for number, key in enumerate(keys):
        files.put(key, torch.full((3, 2), float(number)))
    assert [files.get(key)[0, 0].item() for key in keys] == [*map(float, range(6))]
    assert {path.parent for path in tmp_path.rglob("*")} == {tmp_path}
    assert {path.suffix for path in tmp_path.iterdir()} == {".safetensors"}


@pytest.mark.parametrize(
    "features_MD",
    [
        torch.randn(4, 6).T,
        torch.randn(4, 6)[:, ::2],
        torch.randn(4, 6, dtype=torch.bfloat16),
        torch.zeros(0, 6),
    ],
)
def test_what_comes_back_is_what_was_written(tmp_path, features_MD):
    files = FeatureCache(tmp_path, 10**9)
    files.put("a", features_MD)
    found = files.get("a")
    assert found.dtype == features_MD.dtype
    assert torch.equal(found, features_MD)


@pytest.mark.parametrize("tensors", [{"other": torch.zeros(3)}, {}])
def test_files_of_anything_else_are_removed(tmp_path, tensors):
    files = FeatureCache(tmp_path, 10**9)
    files.put("a", torch.zeros(3))
    (path,) = tmp_path.iterdir()
    save_file(tensors, path)
    assert files.get("a") is None
    assert not path.exists()


def test_a_file_of_somebody_elses_is_no_error(tmp_path, monkeypatch):
    """It can be read, and not be touched."""
    files = FeatureCache(tmp_path, 10**9)
    files.put("a", torch.zeros(3))

    def touch(_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(disk_cache.os, "utime", touch)
    assert files.get("a") is None


def test_what_can_neither_be_read_nor_removed_is_no_error(tmp_path):
    files = FeatureCache(tmp_path, 10**9)
    files.put("a", torch.zeros(3))
    (path,) = tmp_path.iterdir()
    path.unlink()
    path.mkdir()
    assert files.get("a") is None
    files.put("a", torch.zeros(3))
    assert files.get("a") is None
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_that_is_found_counts_as_used(tmp_path):
    files = FeatureCache(tmp_path, 10**9)
    files.put("a", torch.zeros(3))
    (path,) = tmp_path.iterdir()
    os.utime(path, (1, 1))
    assert files.get("a") is not None
    assert time.time() - path.stat().st_mtime < 100


def test_a_write_that_breaks_off_leaves_nothing(tmp_path):
    """As a disk that is full in the middle of it does."""
    resource = pytest.importorskip("resource")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, before[1]))
    try:
        FeatureCache(tmp_path, 10**9).put("a", torch.zeros(10**4))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []


def test_the_folder_is_made_for_its_owner_and_has_to_take_files(tmp_path):
    for make in (FeatureCache.check, lambda files: files.put("a", torch.zeros(3))):
        folder = tmp_path / make.__name__ / "vl3" / "features"
        files = FeatureCache(folder, 10**9)
        for _ in range(2):
            make(files)
        assert folder.stat().st_mode & 0o077 == 0
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(ValueError, match=r"cannot be written to \(.*\); set XDG_CACHE_HOME"):
        FeatureCache(tmp_path / "file" / "features", 1).check()


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="a folder that takes no files")
def test_a_folder_that_takes_no_files_is_refused():
    with pytest.raises(ValueError, match="cannot be written to"):
        FeatureCache(Path("/proc/self"), 1).check()


def test_the_folder_is_where_caches_are(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    for given, where in ((str(tmp_path / "own"), "own"), ("", ".cache"), (None, ".cache")):
        if given is None:
            monkeypatch.delenv("XDG_CACHE_HOME")
        else:
            monkeypatch.setenv("XDG_CACHE_HOME", given)
        assert disk_cache.features_dir() == tmp_path / where / "vl3" / "features"


def test_a_full_disk_loses_nothing(tmp_path, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(disk_cache, "save_file", full)
    files = FeatureCache(tmp_path, 10**6)
    files.put("a", torch.zeros(10))
    assert files.get("a") is None
    assert list(tmp_path.iterdir()) == []


def test_what_is_being_written_is_not_counted_and_not_found(tmp_path, monkeypatch):
    written, save = [], disk_cache.save_file

    def noting(tensors, name):
        save(tensors, name)
        written.extend(path.suffix for path in tmp_path.iterdir())

    monkeypatch.setattr(disk_cache, "save_file", noting)
    FeatureCache(tmp_path, 10**6).put("a", torch.zeros(3))
    assert written == [".partial"]
    assert [path.suffix for path in tmp_path.iterdir()] == [".safetensors"]


def test_what_a_killed_program_left_goes_later(tmp_path):
    left, written = tmp_path / "left.partial", tmp_path / "written.partial"
    for path in (left, written):
        path.write_bytes(b"half")
    long_ago = time.time() - disk_cache.ABANDONED_S
    os.utime(left, (0, long_ago - 1))
    os.utime(written, (0, long_ago + 100))
    FeatureCache(tmp_path, 1000).put("clip", torch.zeros(4))
    assert not left.exists()
    assert written.exists()  # perhaps by a program that is alive
