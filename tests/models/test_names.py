"""Names: the embedded model, a hub id or a folder, and nothing that only looks like one."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

import huggingface_hub
import mlx.core as mx
import pytest
from model_folders import ONE_LINE, TOKENS, refused

from emergence.errors import BrokenExperiment, NotMeasurable, UsageError
from emergence.models import loading as models
from emergence.models import names


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("smollm2-135m-instrukt", "did you mean smollm2-135m-instruct?"),
        ("./nowhere", ""),
        ("a/b/c", ""),
        ("model/config.json", "names a file"),
        ("owner/model.safetensors", "names a file"),
        ("~/nowhere/at/all", ""),
        ("", ""),
    ],
)
def test_a_name_that_means_nothing_is_a_usage_error(name: str, hint: str) -> None:
    with pytest.raises(UsageError, match=ONE_LINE) as error:
        models.resolve(name)
    assert hint in str(error.value)


def test_offline_a_hub_model_that_is_not_cached_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(NotMeasurable, match=r"meta-llama/Llama-3.2-1B is not complete in the local cache"):
        models.load("meta-llama/Llama-3.2-1B")


@pytest.mark.parametrize(
    ("failure", "message"),
    [
        (huggingface_hub.errors.GatedRepoError, "is gated: accept its licence.*hf auth login"),
        (huggingface_hub.errors.RepositoryNotFoundError, "is not on the hub, or private"),
        (huggingface_hub.errors.RevisionNotFoundError, "has no revision 'v9'"),
    ],
)
def test_what_the_hub_refuses_is_one_line_with_the_remedy(
    failure: type[Exception], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise failure.__new__(failure)  # its constructor wants a live response

    monkeypatch.setattr(names, "snapshot_download", refuse)
    with pytest.raises(NotMeasurable, match=f"^model some/model {message}"):
        models.load("some/model@v9")


def test_a_cached_hub_model_is_read_by_its_pinned_revision(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    commit = "0123456789abcdef0123456789abcdef01234567"
    cached = tmp_path / "hub" / "models--some--model"
    shutil.copytree(saved, cached / "snapshots" / commit)
    (cached / "refs").mkdir()
    (cached / "refs" / "main").write_text(commit)
    source = models.resolve("some/model")
    assert (source.name, source.revision) == ("some/model", commit)
    assert source.hash == models.resolve(saved).hash


def test_a_download_takes_no_code_and_no_pickles(monkeypatch: pytest.MonkeyPatch, saved: Path) -> None:
    from fnmatch import fnmatch

    asked: dict[str, list[str]] = {}

    def download(repo: str, **options: list[str]) -> str:
        asked.update(options)
        return str(saved)

    monkeypatch.setattr(names, "snapshot_download", download)
    models.resolve("some/model")

    def taken(name: str) -> bool:
        allowed = any(fnmatch(name, p) for p in asked["allow_patterns"])
        return allowed and not any(fnmatch(name, p) for p in asked["ignore_patterns"])

    for name in ("config.json", "model-00001-of-00002.safetensors", "tokenizer.model", "merges.txt"):
        assert taken(name), name
    for name in ("modeling.py", "pytorch_model.bin", "original/params.json", "x.pth", "a.gguf", "run.sh"):
        assert not taken(name), name


def test_a_damaged_file_in_the_hub_cache_is_found_by_its_name(saved: Path, tmp_path: Path) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    weights = saved / "model.safetensors"
    content = bytearray(weights.read_bytes())
    digest = hashlib.sha256(content).hexdigest()
    content[-1] ^= 1
    weights.unlink()
    (blobs / digest).write_bytes(content)
    weights.symlink_to(blobs / digest)
    assert "is damaged" in refused(saved, BrokenExperiment)


@pytest.mark.parametrize("place", ["with [brackets]", "a::b", "star*and?", "spaces and ümlauts", "~tilde"])
def test_a_folder_of_any_name_loads(saved: Path, tmp_path: Path, place: str) -> None:
    folder = Path(shutil.copytree(saved, tmp_path / place / "model[1]::x"))
    model, tokenizer = models.load(folder)
    assert mx.array_equal(model(TOKENS), models.load(saved)[0](TOKENS))
    assert tokenizer.encode("7 * 8 = ")
    (folder / "model.safetensors").unlink()
    assert place in refused(folder, BrokenExperiment)


@pytest.mark.parametrize("name", ["~/model", "$HOME/model", "${HOME}/model"])
def test_home_is_what_it_is_to_a_shell(saved: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(saved.parent))
    assert models.resolve(name).folder == saved


def test_a_file_of_a_folder_is_no_model(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (saved / "config.json", saved / "model.safetensors"):
        with pytest.raises(UsageError, match="names a file; name the folder"):
            models.resolve(name)
    monkeypatch.chdir(saved.parent)
    (saved / "LICENSE").write_text("MIT")
    with pytest.raises(UsageError, match="names a file"):
        models.resolve("model/LICENSE")  # an id owner/name by its looks


def test_a_folder_that_is_nearly_there_is_told(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(saved.parent)
    with pytest.raises(NotMeasurable, match=r"the folder model/ is here, and has no llama"):
        models.resolve("model/llama")
