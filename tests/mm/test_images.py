# SPDX-License-Identifier: GPL-2.0-only
"""Images: files that come as frames of the machine, and leave again."""

import errno
import os
import signal
import threading

import pytest
from pages import PAGE, fails, fill, finish, frames, mergeable

import ksm


@pytest.fixture
def machine():
    machine = ksm.Machine("16M")
    machine.ksm.smart_scan = 0
    yield machine
    assert machine.check() == []
    finish(machine)


@pytest.fixture
def image(tmp_path):
    path = tmp_path / "image"
    path.write_bytes(b"".join(fill(i // 2) for i in range(100)))
    with path.open("rb") as file:
        yield file


def test_an_image_goes_offline(machine, image):
    process = machine.spawn()
    addr = process.mmap_image(image)
    process.madvise(addr, 100 * PAGE, ksm.MADV_MERGEABLE)
    start = frames(process, addr)[0]
    assert start >= machine.total_pages()
    machine.ksm.scan(passes=3)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (50, 50)
    child = process.fork()
    fails(errno.EINVAL, machine.offline, start, 99)
    machine.offline(start, 100)
    assert max(frames(process, addr, 100)) < machine.total_pages()
    assert machine.check() == []
    for who in (process, child):
        assert who.read(addr, 100 * PAGE) == b"".join(fill(i // 2) for i in range(100))
    machine.ksm.scan(passes=2)
    assert (machine.ksm.pages_shared, machine.ksm.pages_sharing) == (50, 150)
    fails(errno.EINVAL, machine.offline, start, 100)
    # The image's frames are free for the next image.
    again = process.mmap_image(image)
    assert frames(process, again)[0] == start


def test_an_image_leaves_with_its_last_process(machine, image):
    process = machine.spawn()
    addr = process.mmap_image(image)
    process.madvise(addr, 100 * PAGE, ksm.MADV_MERGEABLE)
    start = frames(process, addr)[0]
    machine.ksm.scan(passes=3)
    child = process.fork()
    process.exit()
    assert machine.check() == []
    assert child.read(addr, 100 * PAGE) == b"".join(fill(i // 2) for i in range(100))
    child.exit()
    assert machine.check() == []
    # All stable nodes had frames of the image, and are gone with them.
    assert machine.ksm.pages_shared == machine.ksm.pages_sharing == 0
    other = machine.spawn()
    there = other.mmap_image(image)
    assert frames(other, there)[0] == start
    assert other.read(there, 100 * PAGE) == b"".join(fill(i // 2) for i in range(100))


def test_an_image_stays_while_others_share_its_pages(machine, image):
    process, other = machine.spawn(), machine.spawn()
    addr = process.mmap_image(image)
    process.madvise(addr, 100 * PAGE, ksm.MADV_MERGEABLE)
    start = frames(process, addr)[0]
    there = mergeable(other, [fill(7)] * 2)
    machine.ksm.scan(passes=3)
    process.exit()
    (frame,) = set(frames(other, there, 2))
    assert frame >= start
    assert other.read(there, 2 * PAGE) == fill(7) * 2
    assert machine.check() == []
    machine.offline(start, 100)
    assert other.read(there, 2 * PAGE) == fill(7) * 2
    assert frames(other, there)[0] < start


def test_many_images_one_after_the_other(image):
    with ksm.Machine("16M", max_memory="20M") as machine:
        for _ in range(20):
            process = machine.spawn()
            addr = process.mmap_image(image)
            assert process.read(addr + 99 * PAGE, PAGE) == fill(49)
            process.exit()
        assert machine.check() == []


# Changes of the file

def write_over(path, data):
    """Write to the file in place, as a program would that keeps it open."""
    with path.open("r+b") as file:
        file.write(data)


@pytest.mark.parametrize("plain", [False, True], ids=["fast", "plain"])
@pytest.mark.parametrize("first", ["image", "process"])
@pytest.mark.parametrize("when", ["after it was merged", "between two passes", "before all"])
@pytest.mark.parametrize("what", ["written", "truncated", "gone and back"])
def test_a_file_that_changes_changes_nobodys_memory(tmp_path, plain, first, when, what):
    path = tmp_path / "image"
    pages = [fill(i) for i in range(1, 9)]
    path.write_bytes(b"".join(pages))

    def change():
        if what == "written":
            write_over(path, b"NEW!" * 2048 + b"".join(pages[2:]))
        else:
            os.truncate(path, 0)
        if what == "gone and back":
            os.truncate(path, 8 * PAGE)

    with ksm.Machine("16M", plain=plain) as machine, path.open("rb") as image:
        machine.ksm.smart_scan = 0
        one, two = machine.spawn(), machine.spawn()
        if first == "process":
            there = mergeable(two, pages[:4])
        addr = one.mmap_image(image)
        one.madvise(addr, 8 * PAGE, ksm.MADV_MERGEABLE)
        if first == "image":
            there = mergeable(two, pages[:4])
        for number in range(4):
            if (when, number) in (("before all", 0), ("between two passes", 1), ("after it was merged", 3)):
                change()
            machine.ksm.scan()
            assert machine.check() == []
        assert two.read(there, 4 * PAGE) == b"".join(pages[:4])
        assert one.read(addr, 8 * PAGE) == b"".join(pages)
        assert machine.ksm.pages_sharing == 4
        child = one.fork()
        one.write(addr, b"mine")
        assert child.read(addr, 8 * PAGE) == b"".join(pages)
        assert machine.check() == []


def resident():
    """Bytes of this process's own memory: copies, without mapped files."""
    with open("/proc/self/status") as status:
        return int(next(line for line in status if line.startswith("RssAnon")).split()[1]) << 10


@pytest.fixture
def large(tmp_path):
    """32 MiB, of which every fourth page is unique."""
    path = tmp_path / "large"
    path.write_bytes(b"".join(fill(i) if i % 4 == 0 else b"same" * 1024 for i in range(8192)))
    with path.open("rb") as file:
        yield file


def test_an_image_is_copied(large):
    with ksm.Machine("16M") as machine:
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        before = resident()
        addr = process.mmap_image(large)
        assert 31 << 20 < resident() - before < 35 << 20
        assert process.read(addr + 8188 * PAGE, 4 * PAGE) == fill(8188) + b"same" * 3072
        process.madvise(addr, 32 << 20, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        assert machine.ksm.pages_sharing > 6000
        # Memory that merging frees goes back to the system, also that of an image.
        assert resident() - before < 12 << 20
        assert process.read(addr, 8 * PAGE) == (fill(0) + b"same" * 3072 + fill(4) + b"same" * 3072)
        process.munmap(addr, 32 << 20)
        machine.ksm.scan()
        assert resident() - before < 4 << 20
        assert machine.check() == []


def test_a_still_image_is_not_copied(large):
    with ksm.Machine("16M") as machine:
        machine.ksm.smart_scan = 0
        process = machine.spawn()
        before = resident()
        addr = process.mmap_image(large, still=True)
        process.madvise(addr, 32 << 20, ksm.MADV_MERGEABLE)
        machine.ksm.scan(3)
        assert machine.ksm.pages_sharing > 6000
        assert resident() - before < 2 << 20
        assert process.read(addr + 8188 * PAGE, 4 * PAGE) == fill(8188) + b"same" * 3072
        assert machine.check() == []


def test_the_holes_of_an_image_take_no_memory(tmp_path):
    path = tmp_path / "sparse"
    with path.open("wb") as file:
        file.truncate(1 << 40)
        for page in (3, 200, 1 << 27):
            file.seek(page * PAGE)
            file.write(fill(page % 251))
        # Data that is zeros takes no memory either.
        file.write(bytes(16 << 20))
    if path.stat().st_blocks > 1 << 20:
        pytest.skip("this file system has no holes")
    with ksm.Machine("16M", max_memory="2T") as machine, path.open("rb") as image:
        process = machine.spawn()
        image.seek(7)
        before = resident()
        addr = process.mmap_image(image, length=1 << 20)
        assert process.read(addr + 3 * PAGE, 2 * PAGE) == fill(3) + bytes(PAGE)
        assert process.read(addr + 200 * PAGE, 2 * PAGE) == fill(200) + bytes(PAGE)
        there = process.mmap_image(image, offset=(1 << 39) - (1 << 20), length=32 << 20)
        assert process.read(there + (1 << 20), 2 * PAGE) == fill((1 << 27) % 251) + bytes(PAGE)
        assert resident() - before < 4 << 20
        assert image.tell() == 7
        assert machine.check() == []


@pytest.mark.parametrize("still", [False, True])
def test_an_image_that_cannot_be_read(still):
    """A file of sysfs has 4096 bytes by its size, but two or three to read; and it cannot be mapped."""
    with ksm.Machine("16M") as machine:
        process = machine.spawn()
        with open("/sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "rb") as image:
            fails(errno.ENODEV if still else errno.EIO, process.mmap_image, image, still=still)
        with open(os.devnull, "wb") as image, pytest.raises(ValueError):
            process.mmap_image(image, still=still)
        assert process.maps() == []
        assert machine.check() == []


@pytest.mark.parametrize("left", [0, 1, PAGE, 2 * PAGE, 6 * PAGE + 1, 7 * PAGE])
def test_an_image_that_is_cut_off_before_it_is_copied(machine, tmp_path, left):
    """What is not there any more is no hole."""
    path = tmp_path / "image"
    path.write_bytes(fill(1) * 8)
    process = machine.spawn()

    class Length:
        def __index__(self):
            os.truncate(path, left)
            return 8 * PAGE

    with path.open("rb") as file:
        fails(errno.EIO, process.mmap_image, file, length=Length())
    assert process.maps() == []


@pytest.mark.parametrize("what", ["anon_vma", "anon_vma_chain"])
@pytest.mark.parametrize("nth", [1, 2])
def test_an_image_that_cannot_be_mapped_leaves_nothing(machine, image, what, nth):
    """Not even when there is no memory to take a part of a mapping away again."""
    process = machine.spawn()
    process.mmap(4 * PAGE)      # a neighbour without pages
    before = process.maps()
    machine.fail("vm_area_struct", nth, 99)
    machine.fail(what, 1, 99)
    fails(errno.ENOMEM, process.mmap_image, image)
    assert process.maps() == before
    machine.fail("vm_area_struct", 0)
    machine.fail(what, 0)
    addr = process.mmap_image(image)
    assert process.read(addr + 99 * PAGE, PAGE) == fill(49)


@pytest.mark.parametrize("still", [False, True])
def test_images_are_mergeable_by_prctl(machine, image, still):
    process = machine.spawn()
    process.prctl(ksm.PR_SET_MEMORY_MERGE, 1)
    addr = process.mmap_image(image, still=still)
    assert all(vma.mergeable for vma in process.maps())
    machine.ksm.scan(3)
    assert machine.ksm.pages_sharing >= 49
    assert process.mremap(addr, 100 * PAGE, 101 * PAGE)


def test_huge_pages_are_no_still_image():
    try:
        fd = os.memfd_create("huge", os.MFD_CLOEXEC | os.MFD_HUGETLB)
    except OSError:
        pytest.skip("a kernel without hugetlb")
    with open(fd, "rb") as image, ksm.Machine("16M") as machine:
        os.truncate(fd, 2 << 20)
        process = machine.spawn()
        fails(errno.EINVAL, process.mmap_image, image, still=True)
        assert process.maps() == []
        assert process.read(process.mmap_image(image), PAGE) == bytes(PAGE)


def test_an_image_only_where_there_is_memory_for_it(large, monkeypatch):
    monkeypatch.setattr("ksm.host.memory.available_memory", lambda: 31 << 20)
    with ksm.Machine("16M") as machine:
        process = machine.spawn()
        fails(errno.ENOMEM, process.mmap_image, large)
        assert process.maps() == []
        assert process.read(process.mmap_image(large, length=16 << 20), PAGE) == fill(0)
        process.mmap_image(large, still=True)
        assert machine.check() == []


def test_ctrl_c_while_an_image_is_read():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        with os.fdopen(os.memfd_create("image"), "r+b") as image, ksm.Machine("16M") as machine:
            image.write(b"data" * (64 << 18))
            process = machine.spawn()
            start = frames(process, process.mmap_image(image, length=PAGE))[0]
            process.exit()
            process = machine.spawn()
            signal.setitimer(signal.ITIMER_REAL, 0.005)
            with pytest.raises(KeyboardInterrupt):
                process.mmap_image(image)
            assert process.maps() == []
            assert frames(process, process.mmap_image(image, length=PAGE))[0] == start
            assert machine.check() == []
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("still", [False, True])
def test_images_come_while_others_leave(tmp_path, still):
    """A range that is being filled has no user yet. It must not be freed as a range that has none any more."""
    path = tmp_path / "image"
    path.write_bytes(b"".join(fill(i) for i in range(600)))
    errors, done = [], threading.Event()
    with ksm.Machine("16M", max_memory="1G") as machine, path.open("rb") as image:
        def leave():
            while not done.is_set():
                machine.spawn().exit()

        def come():
            try:
                for _ in range(40):
                    process = machine.spawn()
                    addr = process.mmap_image(image, still=still)
                    there = process.mmap_image(image, offset=PAGE, still=still)
                    assert process.read(addr + 550 * PAGE, PAGE) == fill(550)
                    assert process.read(there + 550 * PAGE, PAGE) == fill(551)
                    process.exit()
            except BaseException as error:
                errors.append(error)

        others = [threading.Thread(target=leave) for _ in range(2)]
        threads = [threading.Thread(target=come) for _ in range(2)]
        for thread in others + threads:
            thread.start()
        for thread in threads:
            thread.join()
        done.set()
        for thread in others:
            thread.join()
        assert not errors
        machine.spawn().exit()
        assert machine.check() == []


def test_an_image_that_is_being_read_cannot_go_offline(tmp_path):
    """Taking an image offline has to wait until the image has been read."""
    path = tmp_path / "image"
    path.write_bytes(b"data" * (8 << 18))
    errors, done = [], threading.Event()
    with ksm.Machine("64M", max_memory="128M") as machine, path.open("rb") as image:
        start = 64 << 8

        def take():
            while not done.is_set():
                try:
                    machine.offline(start, 8 << 8)
                except OSError as error:
                    errors.append(error.errno)

        thread = threading.Thread(target=take)
        thread.start()
        for _ in range(20):
            process = machine.spawn()
            addr = process.mmap_image(image)
            assert process.read(addr, 8 << 20) == b"data" * (8 << 18)
            process.exit()
            machine.lru_add_drain_all()
        done.set()
        thread.join()
        assert set(errors) <= {errno.EBUSY, errno.EINVAL}
        assert machine.check() == []


def test_an_image_without_room(tmp_path):
    (tmp_path / "large").write_bytes(bytes(1000 * PAGE))
    with (tmp_path / "large").open("rb") as image, ksm.Machine("16M", max_memory="16M") as machine:
        process = machine.spawn()
        fails(errno.ENOMEM, process.mmap_image, image)
        assert process.maps() == []
