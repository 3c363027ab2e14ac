"""What the bridge keeps of parsing results: the last used, as many as fit."""

from jetbridge.scheduler.bridge.dag_processing.results import ResultCache


def test_what_was_put_is_there():
    cache = ResultCache(100)
    cache.put("a", b"x" * 10)
    assert cache.get("a") == b"x" * 10
    assert cache.get("b") is None


def test_the_least_recently_used_goes_first():
    cache = ResultCache(100)
    for name in ("a", "b", "c"):
        cache.put(name, b"x" * 30)
    cache.get("a")
    cache.put("d", b"x" * 30)
    assert [name for name in "abcd" if cache.get(name)] == ["a", "c", "d"]


def test_what_never_fits_displaces_nothing():
    cache = ResultCache(100)
    cache.put("a", b"x" * 60)
    cache.put("large", b"x" * 101)
    assert cache.get("a")
    assert cache.get("large") is None


def test_putting_twice_takes_the_room_once():
    cache = ResultCache(100)
    for _ in range(5):
        cache.put("a", b"x" * 60)
    cache.put("b", b"x" * 40)
    assert cache.get("a")
    assert cache.get("b")
