"""Part of the conformance suite: whose results a worker may take for a job."""

from __future__ import annotations

from ndif_batch.queue.records import JobRecord
from tests.queue.queue_samples import job_spec
from tests.queue.worker_queue_stand import Stand


def job(stand: Stand, user: str = "ada", identity: str | None = "i" * 64) -> JobRecord:
    return stand.admin.submit(job_spec(shards=1, user=user, identity=identity))


class Sources:
    """Never those of another user, of another identity, or that were given up."""

    def test_an_earlier_job_of_the_same_user_and_identity_is_told_whole(self, stand: Stand) -> None:
        first, second = job(stand), job(stand)
        assert stand.queue.source(second.id, first.id) == first

    def test_results_of_others_are_never_told(self, stand: Stand) -> None:
        mine, other = job(stand), job(stand, identity="j" * 64)
        assert stand.queue.source(mine.id, job(stand, user="bob").id) is None
        assert stand.queue.source(mine.id, other.id) is None
        nobodys = job(stand, identity=None)
        assert stand.queue.source(nobodys.id, job(stand, identity=None).id) is None
        assert stand.queue.source(mine.id, nobodys.id) is None

    def test_results_that_are_given_up_or_were_never_there_are_not_told(self, stand: Stand) -> None:
        first, second = job(stand), job(stand)
        stand.admin.cancel(first.id, "ada")
        stand.admin.give_up_results(first.id, "ada")
        assert stand.queue.source(second.id, first.id) is None
        assert stand.queue.source(second.id, 99) is None
        assert stand.queue.source(99, second.id) is None
