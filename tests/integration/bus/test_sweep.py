"""Markers of deletions are dropped, and never a record that came after one."""


async def test_drops_markers_of_deletions_only(store, workload):
    gone, kept = workload(), workload()
    for new in (gone, kept):
        await store.submit(new)
    await store.remove(gone.workload_id)
    assert await store.bucket.sweep(older_than_seconds=3600) == 0
    assert await store.bucket.sweep(older_than_seconds=0) >= 1
    assert await store.bucket.sweep(older_than_seconds=0) == 0
    assert await store.get(kept.workload_id)


async def test_a_record_written_while_sweeping_survives(store, workload, monkeypatch):
    new = workload()
    await store.submit(new)
    await store.remove(new.workload_id)
    entries = await store.bucket._entries()
    submission = await store.submit(new)

    async def seen_before_the_submit(*, headers_only):
        return entries if headers_only else []

    monkeypatch.setattr(store.bucket, "_entries", seen_before_the_submit)
    await store.bucket.sweep(older_than_seconds=0)
    assert (await store.get(new.workload_id)).revision == submission
