"""Which files a path means, and what they are called."""

from __future__ import annotations

import os
import re
from pathlib import Path

from lookalike.pictures import Skipped, find_files, key_of, name_picture
from streams.event import IMAGE_ID_PATTERN


def test_a_folder_is_walked_in_a_stable_order_without_what_is_hidden(tmp_path: Path) -> None:
    """Two runs over the same folder publish the same files in the same order."""
    for name in ("b.jpg", "a.jpg", "sub/c.jpg", ".hidden.jpg", ".git/d.jpg"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert list(find_files([tmp_path])) == [tmp_path / "a.jpg", tmp_path / "b.jpg", tmp_path / "sub/c.jpg"]


def test_a_file_named_twice_is_published_once(tmp_path: Path) -> None:
    """A file and its own folder on one command line mean the file once."""
    file = tmp_path / "a.jpg"
    file.write_bytes(b"x")
    assert list(find_files([file, tmp_path, tmp_path / ".." / tmp_path.name / "a.jpg"])) == [file]


def test_what_is_no_file_is_reported_and_never_opened(tmp_path: Path) -> None:
    """To open a pipe would wait for a writer for ever."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "dangling").symlink_to(tmp_path / "nothing")
    found = list(find_files([tmp_path]))
    assert found == [Skipped(tmp_path / "dangling", "is no file"), Skipped(tmp_path / "pipe", "is no file")]


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    """Links to folders are not followed."""
    (tmp_path / "loop").symlink_to(tmp_path)
    assert list(find_files([tmp_path])) == []


def test_a_file_keeps_its_name_however_its_path_is_spelt(tmp_path: Path) -> None:
    """Publishing twice must name the same image, another tenant's the same file another one."""
    file = tmp_path / "a.jpg"
    once = name_picture("acme", file)
    again = name_picture("acme", tmp_path / "sub" / ".." / "a.jpg")
    assert (once.image_id, once.key) == (again.image_id, again.key)
    assert name_picture("other", file).image_id != once.image_id
    assert name_picture("acme", tmp_path / "b.jpg").image_id != once.image_id
    assert re.match(IMAGE_ID_PATTERN, once.image_id)


def test_a_given_name_is_used(tmp_path: Path) -> None:
    """`--image-id` wins over the derived name, in the key as well."""
    picture = name_picture("acme", tmp_path / "a.jpg", image_id="cat-1")
    assert (picture.image_id, picture.key) == ("cat-1", "acme/cat-1.jpg")


def test_a_key_lies_in_the_tenants_folder_whatever_the_file_is_called() -> None:
    """Only a short alphanumeric extension is taken over from the file's name."""
    assert key_of("acme", "1", Path("Photo.JPG")) == "acme/1.jpg"
    assert key_of("acme", "1", Path("noextension")) == "acme/1"
    assert key_of("acme", "1", Path("x.a b")) == "acme/1"
    assert key_of("acme", "1", Path("x.ünïcode")) == "acme/1"
    assert key_of("acme", "1", Path("x.averylongextension")) == "acme/1"
