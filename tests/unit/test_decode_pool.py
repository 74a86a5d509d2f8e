"""The decode pool: a picture may cost its child and never more, and no child outlives its worker."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from embedder.stages.decode import DecodePool, DecodeRules
from streams.errors import ConfigError, EventError, Reason, RetryableError
from tests.pictures import encoded, photo, png
from tests.waiting import wait_until

RULES = DecodeRules(input_px=64, resample="bilinear", timeout_s=60.0)
PICTURE = encoded(photo(), "JPEG")


@pytest.fixture
def pool() -> Iterator[DecodePool]:
    """Two children."""
    with closing(DecodePool(2, RULES)) as pool:
        yield pool


@pytest.fixture
def single() -> Iterator[DecodePool]:
    """One child, whose every picture has a second."""
    with closing(DecodePool(1, DecodeRules(input_px=64, resample="bilinear", timeout_s=1.0))) as pool:
        yield pool


def _lives(pid: int) -> bool:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    return False


def _stopped(pid: int) -> bool:
    return psutil.Process(pid).status() == psutil.STATUS_STOPPED


# ---- a child that is lost ------------------------------------------------------------------------


def test_a_child_that_hangs_is_replaced(single: DecodePool) -> None:
    """The picture is to be tried again, the hanging process is gone, and the next picture is decoded."""
    [hung] = single.pids()
    os.kill(hung, signal.SIGSTOP)
    with pytest.raises(RetryableError) as caught:
        single.decode(PICTURE)
    assert caught.value.reason is Reason.DECODER_TIMEOUT
    assert not _lives(hung)
    assert single.decode(PICTURE).width_px == 320
    assert single.pids() != [hung]


def test_a_child_that_dies_between_pictures_is_replaced(single: DecodePool) -> None:
    """The picture that finds it dead is to be tried again, and then decoded."""
    [killed] = single.pids()
    os.kill(killed, signal.SIGKILL)
    wait_until(lambda: not _lives(killed))
    with pytest.raises(RetryableError) as caught:
        single.decode(PICTURE)
    assert caught.value.reason is Reason.DECODER_CRASHED
    assert single.decode(PICTURE).width_px == 320


def test_a_child_that_dies_over_a_picture_is_noticed_at_once(pool: DecodePool) -> None:
    """Long before the time limit; stopped first, so that the picture is certainly under way."""
    first, second = pool.pids()
    for pid in (first, second):
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(2) as threads:
        waiting = [threads.submit(pool.decode, PICTURE) for _ in range(2)]
        wait_until(lambda: _stopped(first) and _stopped(second))
        os.kill(first, signal.SIGKILL)
        wait_until(lambda: any(one.done() for one in waiting), timeout_s=30)
        os.kill(second, signal.SIGCONT)
        errors = [one.exception(30) for one in waiting]
    assert sorted(type(error).__name__ for error in errors) == ["NoneType", "RetryableError"]
    lost = next(error for error in errors if isinstance(error, RetryableError))
    assert lost.reason is Reason.DECODER_CRASHED
    assert len(pool.pids()) == 2


def test_neighbours_decode_while_one_hangs(pool: DecodePool) -> None:
    """One stopped child takes one picture; all others pass through the other child meanwhile."""
    hung = pool.pids()[0]
    os.kill(hung, signal.SIGSTOP)
    with ThreadPoolExecutor(4) as threads:
        pictures = [threads.submit(pool.decode, PICTURE) for _ in range(12)]
        wait_until(lambda: sum(one.done() for one in pictures) == 11, timeout_s=30)
        assert _stopped(hung)
        os.kill(hung, signal.SIGCONT)
        assert {one.result(30).width_px for one in pictures} == {320}


def test_a_replacement_outlives_the_thread_that_asked_for_it(single: DecodePool) -> None:
    """Linux ends a child with the *thread* that started it: a short-lived caller must not take it along."""

    def lose() -> None:
        os.kill(single.pids()[0], signal.SIGKILL)
        with pytest.raises(RetryableError):
            single.decode(PICTURE)
        single.decode(PICTURE)

    caller = threading.Thread(target=lose)
    caller.start()
    native = caller.native_id
    caller.join()
    wait_until(lambda: not Path(f"/proc/self/task/{native}").exists())
    [pid] = single.pids()
    assert [single.decode(PICTURE).width_px for _ in range(20)] == [320] * 20
    assert single.pids() == [pid]


def test_a_pool_outlives_the_thread_that_made_it() -> None:
    """The same holds for the children it begins with."""
    with ThreadPoolExecutor(1) as threads:
        pool = threads.submit(DecodePool, 1, RULES).result()
    with closing(pool):
        assert [pool.decode(PICTURE).width_px for _ in range(20)] == [320] * 20


# ---- what it gives -------------------------------------------------------------------------------


def test_many_threads_get_each_their_own_picture(pool: DecodePool) -> None:
    """No answer reaches another caller, and each picture's pixels are the same every time."""
    pictures = [encoded(photo(100 + i, 90, seed=i), "PNG") for i in range(12)]
    alone = [pool.decode(data).pixels for data in pictures]
    with ThreadPoolExecutor(8) as threads:
        found = list(threads.map(pool.decode, pictures * 10))
    for i, decoded in enumerate(found):
        assert decoded.width_px == 100 + i % 12
        np.testing.assert_array_equal(decoded.pixels, alone[i % 12])


def test_pixels_are_the_callers_own(single: DecodePool) -> None:
    """The next picture does not overwrite them, and they may be written."""
    first = single.decode(encoded(Image.new("RGB", (64, 64), (1, 2, 3)), "PNG"))
    kept = first.pixels.copy()
    single.decode(encoded(Image.new("RGB", (64, 64), (200, 200, 200)), "PNG"))
    np.testing.assert_array_equal(first.pixels, kept)
    first.pixels[0, 0] = 9


def test_small_pictures_after_a_large_one(single: DecodePool) -> None:
    """The shared memory grows where it must; nothing of a former picture is left in the next."""
    large = np.random.default_rng(3).integers(0, 255, (2400, 2400, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(large), "PNG", compress_level=0)
    assert len(data) > 16 << 20
    before = single.decode(PICTURE)
    assert single.decode(data).height_px == 2400
    np.testing.assert_array_equal(single.decode(PICTURE).pixels, before.pixels)


# ---- memory --------------------------------------------------------------------------------------


def test_a_picture_that_needs_too_much_memory_is_refused() -> None:
    """200 megapixels, let through by the rules, end at the child's own limit; the child lives on."""
    rules = DecodeRules(input_px=64, resample="bilinear", max_pixels=10**9, timeout_s=60.0)
    with closing(DecodePool(1, rules)) as pool:
        before = pool.pids()
        with pytest.raises(EventError) as caught:
            pool.decode(png(20_000, 10_000, bytes(60_000), colour_type=2))
        assert caught.value.reason is Reason.IMAGE_TOO_LARGE
        assert pool.decode(PICTURE).width_px == 320
        assert pool.pids() == before


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "I;16"])
def test_the_pixel_limit_fits_into_the_memory_limit(pool: DecodePool, mode: str) -> None:
    """A picture just inside of the allowed pixels is decoded whatever its colours, and turned upright too."""
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(Image.new(mode, (7000, 7000)), "PNG", compress_level=1, exif=exif)
    assert pool.decode(data).width_px == 7000


# ---- start and end -------------------------------------------------------------------------------


def test_close_leaves_no_process() -> None:
    """Also of children that were started to replace others; twice is harmless."""
    pool = DecodePool(2, RULES)
    os.kill(pool.pids()[0], signal.SIGKILL)
    for _ in range(3):
        with suppress(RetryableError):
            pool.decode(PICTURE)
    mine = pool.pids()
    pool.close()
    pool.close()
    assert pool.pids() == []
    assert not any(_lives(pid) for pid in mine)


def test_close_while_pictures_are_decoded_leaves_no_process() -> None:
    """Whoever waits for a picture gets an error that is ours, and nothing is started again."""
    before = {child.pid for child in psutil.Process().children()}
    pool = DecodePool(2, RULES)
    for pid in pool.pids():
        os.kill(pid, signal.SIGSTOP)
    with ThreadPoolExecutor(4) as threads:
        waiting = [threads.submit(pool.decode, PICTURE) for _ in range(4)]
        wait_until(lambda: sum(one.running() for one in waiting) == 4)
        pool.close()
        errors = [one.exception(30) for one in waiting]
    assert [type(error) for error in errors] == [RetryableError] * 4
    assert {child.pid for child in psutil.Process().children()} <= before
    with pytest.raises(RetryableError):
        pool.decode(bytes(20 << 20))


def test_two_who_close_at_once_close_each_descriptor_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pool's close meets the thread whose picture was lost: a descriptor closed twice is somebody else's."""
    pool = DecodePool(1, RULES)
    [child] = pool._children
    closed: list[int] = []
    inside, other_ended = threading.Event(), threading.Event()
    close = os.close

    def close_slowly(descriptor: int) -> None:
        closed.append(descriptor)
        if not inside.is_set():
            inside.set()
            assert other_ended.wait(30)
        close(descriptor)

    with ThreadPoolExecutor(1) as threads, monkeypatch.context() as patched:
        patched.setattr("embedder.stages.decode.os.close", close_slowly)
        first = threads.submit(pool.close)
        assert inside.wait(30)
        child.end()
        other_ended.set()
        first.result(30)
    assert len(closed) == 1


def test_a_child_that_does_not_start_is_a_config_error(tmp_path: Path) -> None:
    """One line, and no process is left behind."""
    script = tmp_path / "child.py"
    script.write_text("raise SystemExit(7)")
    before = {child.pid for child in psutil.Process().children()}
    with pytest.raises(ConfigError, match="the decoder ended with 7"):
        DecodePool(2, RULES, script=script)
    assert {child.pid for child in psutil.Process().children()} <= before


def test_children_die_with_a_killed_worker() -> None:
    """kill -9 of the worker leaves no decoder behind, not even one that is stopped."""
    program = """
        import os, signal, sys
        from embedder.stages.decode import DecodePool, DecodeRules
        pool = DecodePool(2, DecodeRules(input_px=64, resample="bilinear"))
        print(*pool.pids(), flush=True)
        os.kill(pool.pids()[0], signal.SIGSTOP)
        sys.stdin.read()
    """
    worker = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with worker:
        assert worker.stdout is not None
        children = [int(pid) for pid in worker.stdout.readline().split()]
        assert len(children) == 2
        worker.kill()
    wait_until(lambda: not any(_lives(pid) for pid in children), timeout_s=20)


def test_a_picture_cannot_write_into_the_workers_log(capfd: pytest.CaptureFixture[str]) -> None:
    """Pillow warns of odd metadata: thousands of such pictures must not fill a disk."""
    twice = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x02\0\0\0\x06\0\x06\0\0\0\0\0"
    with closing(DecodePool(1, RULES)) as pool:
        assert pool.decode(encoded(photo(), "JPEG", exif=twice)).format == "JPEG"
    assert capfd.readouterr().err == ""
