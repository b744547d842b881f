"""Downloads from a server on this machine: whole, broken off, damaged, absent."""

import dataclasses
import functools
import hashlib
import http.server
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from lib import download
from lib.data import gtsrb, jsrt
from tests.data.test_jsrt import write_mini


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """Serve a folder on 127.0.0.1; give its address and the folder."""
    folder = tmp_path / "server"
    folder.mkdir()

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    handler = functools.partial(Quiet, directory=str(folder))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as httpd:
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{httpd.server_port}/", folder
        httpd.shutdown()


@pytest.fixture
def archives(server: tuple[str, Path], signs: Path) -> tuple[download.Archive, ...]:
    """Pack the drawn signs as the official archives are packed."""
    _, folder = server
    made = []
    for official in download.GTSRB:
        path = folder / official.name
        with zipfile.ZipFile(path, "w") as file:
            if official.member.endswith(".csv"):
                file.write(signs / "Final_Test" / official.member, official.member)
            else:
                part = signs / official.target
                for source in sorted(part.rglob("*")):
                    if source.name != "GT-final_test.csv":
                        file.write(source, f"{official.member}/{source.relative_to(part)}")
        md5 = hashlib.md5(path.read_bytes()).hexdigest()
        made.append(download.Archive(official.name, md5, official.member, official.target))
    return tuple(made)


def test_download_unpacks_what_the_loader_reads(
    server: tuple[str, Path],
    archives: tuple[download.Archive, ...],
    signs: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    root = tmp_path / "GTSRB"
    download.download(root, server[0], archives)
    assert gtsrb.load(root).sha256 == gtsrb.load(signs).sha256
    for archive in archives:
        (server[1] / archive.name).unlink()
    download.download(root, server[0], archives)  # nothing is fetched again
    assert capsys.readouterr().out.count("already exists, skipping") == 3


def test_another_archive_is_kept_and_the_official_one_downloaded(
    server: tuple[str, Path], archives: tuple[download.Archive, ...], tmp_path: Path
) -> None:
    """Somebody's own file, or half of one from a browser: nothing of theirs is deleted."""
    folder = tmp_path / "GTSRB" / "archives"
    folder.mkdir(parents=True)
    whole = (server[1] / archives[2].name).read_bytes()
    (folder / archives[2].name).write_bytes(whole[:100])
    (folder / f"{archives[2].name}.other1").write_bytes(b"earlier")
    download.fetch(folder, server[0], archives[2])
    assert (folder / archives[2].name).read_bytes() == whole
    assert (folder / f"{archives[2].name}.other1").read_bytes() == b"earlier"
    assert (folder / f"{archives[2].name}.other2").read_bytes() == whole[:100]


def test_a_damaged_archive_is_refused(
    server: tuple[str, Path], archives: tuple[download.Archive, ...], tmp_path: Path
) -> None:
    path = server[1] / archives[2].name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(download.DownloadError, match=r"Final_Test_GT.zip .*not match the known"):
        download.download(tmp_path / "GTSRB", server[0], archives[2:])
    assert not (tmp_path / "GTSRB" / "GT-final_test.csv").exists()


def test_no_server_names_address_and_folder(tmp_path: Path) -> None:
    with pytest.raises(download.DownloadError) as error:
        download.download(tmp_path, "http://127.0.0.1:9/", download.GTSRB)
    assert "http://127.0.0.1:9/GTSRB_Final_Training_Images.zip" in str(error.value)
    assert str(tmp_path / "archives") in str(error.value)


def test_minijsrt_unpacks_to_what_its_loader_reads(
    server: tuple[str, Path], tmp_path: Path
) -> None:
    drawn = write_mini(tmp_path / "drawn")
    path = server[1] / "segmentation02.zip"
    with zipfile.ZipFile(path, "w") as file:
        for source in sorted(drawn.rglob("*.*")):
            file.write(source, source.relative_to(drawn))
    (official,) = download.MINIJSRT
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    archive = dataclasses.replace(official, digest=sha256)
    download.download(tmp_path / "miniJSRT", server[0], (archive,))
    assert jsrt.load(tmp_path / "miniJSRT", 32).sha256 == jsrt.load(drawn, 32).sha256
    other = dataclasses.replace(official, digest="0" * 64)
    with pytest.raises(download.DownloadError, match="known hash: expected sha256:0000"):
        download.download(tmp_path / "other", server[0], (other,))
