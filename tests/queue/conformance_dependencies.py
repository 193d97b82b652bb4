"""Part of the conformance suite: whose results a worker may read for a job that comes after another."""

from __future__ import annotations

from tests.queue.queue_samples import job_spec
from tests.queue.worker_queue_stand import Stand, done


class Dependencies:
    """Never those of a job that it does not come after, that has not completed, or that another user has."""

    def test_only_a_completed_job_that_it_comes_after_is_told(self, stand: Stand) -> None:
        first = stand.admin.submit(job_spec(shards=1))
        second = stand.admin.submit(job_spec(shards=1, after=(first.id,)))
        other = stand.admin.submit(job_spec(shards=1, user="bob"))
        assert stand.queue.prerequisite(second.id, first.id) is None
        (lease,) = stand.take()
        assert lease.job.id == first.id
        stand.queue.commit([done(lease)])
        assert stand.queue.prerequisite(second.id, first.id) == stand.admin.job(first.id)
        assert stand.queue.prerequisite(other.id, first.id) is None
        assert stand.queue.prerequisite(first.id, second.id) is None
        assert stand.queue.prerequisite(second.id, 99) is None
        assert stand.queue.prerequisite(99, first.id) is None
