"""Programs out of files: what is refused before anything of it runs."""

from __future__ import annotations

import warnings
from pathlib import Path
from zipfile import ZipFile

import pytest
import torch
from torch import Tensor, nn

from control_composer.preprocessors import PreprocessorError
from control_composer.preprocessors.networks.torchscript import build_torchscript

NOT_ITS_ONNX = "but a TorchScript archive, which holds a network with its program, was expected"


class Harmless(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 3)

    def forward(self, picture: Tensor) -> tuple[Tensor, int]:
        return self.layer(picture).relu(), picture.shape[0]


class Writer(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, picture: Tensor) -> Tensor:
        torch.save(picture, self.path)
        return picture


class Reader(nn.Module):
    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path

    def forward(self, picture: Tensor) -> Tensor:
        return torch.from_file(self.path, False, 4)


class WriterAtLoading(nn.Module):
    """What a file says of its own loading runs while it is loaded."""

    @torch.jit.export
    def __getstate__(self) -> int:
        return 1

    @torch.jit.export
    def __setstate__(self, state: int) -> None:
        self.training = False
        torch.save(torch.zeros(2), "written_at_loading")

    def forward(self, picture: Tensor) -> Tensor:
        return picture


def saved(module: nn.Module, path: Path) -> Path:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.script(module).save(str(path))
    return path


def rewritten(source: Path, target: Path, change: tuple[bytes, bytes]) -> Path:
    """The archive with other words in its program."""
    with ZipFile(source) as old, ZipFile(target, "w") as new:
        for entry in old.infolist():
            content = old.read(entry)
            new.writestr(entry, content.replace(*change) if entry.filename.endswith(".py") else content)
    return target


def refusal(path: Path) -> str:
    with pytest.raises(PreprocessorError) as error:
        build_torchscript(path)
    return str(error.value)


def test_a_program_computes_what_it_says(tmp_path: Path) -> None:
    module = Harmless()
    loaded = build_torchscript(saved(module, tmp_path / "net.pt"))
    picture = torch.rand(2, 3, 9, 8)
    found, count = loaded(picture)
    assert torch.equal(found, module(picture)[0])
    assert count == 2
    assert not any(parameter.requires_grad for parameter in loaded.parameters())
    assert not loaded.training
    # The host moves networks by their parameters and measures them by their tensors.
    assert {tuple(tensor.shape) for tensor in loaded.state_dict().values()} == {(2, 3, 3, 3), (2,)}


def test_no_archive(tmp_path: Path) -> None:
    path = tmp_path / "net.torchscript.pt"
    path.write_bytes(b"\x08\x07 not a zip")
    sentence = refusal(path)
    assert sentence.startswith("'net.torchscript.pt': found no archive (")
    assert sentence.endswith(f"{NOT_ITS_ONNX}; download the published file anew, not its ONNX or .pth version.")


def test_an_archive_without_a_program(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(3)}, tmp_path / "net.pt")
    assert refusal(tmp_path / "net.pt") == (
        f"'net.pt': found an archive without a program, {NOT_ITS_ONNX}; put the published file there, not its ONNX or .pth version."
    )


def test_half_an_archive(tmp_path: Path) -> None:
    path = saved(Harmless(), tmp_path / "net.pt")
    path.write_bytes(path.read_bytes()[:900])
    assert "'net.pt': found no archive" in refusal(path)


def test_an_archive_that_torch_cannot_read(tmp_path: Path) -> None:
    source = saved(Harmless(), tmp_path / "whole.pt")
    path = rewritten(source, tmp_path / "net.pt", (b"torch.relu", b"torch.unheard_of"))
    sentence = refusal(path)
    assert sentence.startswith("'net.pt': found a TorchScript archive that this version of torch cannot read (")
    assert sentence.endswith("), but the published network was expected; download it anew.")


def calls(name: str) -> str:
    return (
        f"'net.pt': found a program that calls '{name}', but one that only computes with its tensors was expected; "
        "delete the file and download it from its published address."
    )


def test_programs_that_touch_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    target = tmp_path / "written"
    path = saved(Writer(str(target)), tmp_path / "net.pt")
    assert refusal(path) == calls("save")
    assert refusal(saved(Reader(str(path)), path)) == calls("from_file")
    assert refusal(saved(WriterAtLoading(), path)) == calls("save")
    assert not target.exists()
    assert not (tmp_path / "written_at_loading").exists()
    # Such a program does write when nobody asks.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.load(str(path))
    assert (tmp_path / "written_at_loading").exists()


@pytest.mark.parametrize(
    ("words", "name"),
    [
        (b"torch.  save", "save"),
        (b"ops.mine.relu", "mine"),
        (b"ops . other . relu", "other"),
        (b"__torch__.torch.classes.mine.relu", "torch.classes"),
        (b"rpc_sync", "rpc_sync"),
        (b"ops.debugprims.load_tensor", "load_tensor"),
    ],
)
def test_programs_that_leave_torch(tmp_path: Path, words: bytes, name: str) -> None:
    source = saved(Harmless(), tmp_path / "whole.pt")
    assert refusal(rewritten(source, tmp_path / "net.pt", (b"torch.relu", words))) == calls(name)


def test_calls_of_torchs_own_sets_are_let_through(tmp_path: Path) -> None:
    source = saved(Harmless(), tmp_path / "whole.pt")
    build_torchscript(rewritten(source, tmp_path / "net.pt", (b"torch.relu", b"ops.aten.relu")))


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    """Readers differ in which one they take."""
    path = saved(Harmless(), tmp_path / "net.pt")
    with ZipFile(path, "a") as archive, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        archive.writestr(next(name for name in archive.namelist() if name.endswith(".py")), "")
    assert "found an archive without a program" in refusal(path)
