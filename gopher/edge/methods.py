"""The table of rpcs: each method of the protos, with the service method that answers it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from grpc_health.v1 import health_pb2

from gopher_pb.v1 import admin_service_pb2 as admin_pb
from gopher_pb.v1 import job_service_pb2 as job_pb
from gopher_pb.v1 import job_stream_pb2
from gopher_pb.v1 import queue_service_pb2 as queue_pb
from gopher_pb.v1 import schedule_service_pb2 as schedule_pb
from gopher_pb.v1 import worker_service_pb2 as worker_pb

from gopher.edge.interceptors import AttachedMethod, BatchedMethod, DuplexMethod, StreamMethod, UnaryMethod
from gopher.telemetry import tracing

if TYPE_CHECKING:
    import trio

    from gopher.edge.health import Health
    from gopher.edge.interceptors import Method
    from gopher.service.admin import Admin
    from gopher.service.bulk import Bulk
    from gopher.service.jobs import Jobs
    from gopher.service.limits import FlowControl
    from gopher.service.nurseries import Nurseries
    from gopher.service.queues import Queues
    from gopher.service.remote_workers import RemoteWorkers
    from gopher.service.run import Runs
    from gopher.service.schedules import Schedules
    from gopher.service.watch import Watch
    from gopher.service.watch_jobs import WatchJobs

JOBS: Final = "gopher.v1.JobService"
QUEUES: Final = "gopher.v1.QueueService"
SCHEDULES: Final = "gopher.v1.ScheduleService"
ADMIN: Final = "gopher.v1.AdminService"
WORKERS: Final = "gopher.v1.WorkerService"
HEALTH: Final = "grpc.health.v1.Health"
SERVICES: Final = (JOBS, QUEUES, SCHEDULES, ADMIN, WORKERS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Services:
    """What answers the rpcs."""

    jobs: Jobs
    watch: Watch
    watch_jobs: WatchJobs
    runs: Runs
    nurseries: Nurseries
    queues: Queues
    flow: FlowControl
    schedules: Schedules
    admin: Admin
    bulk: Bulk
    workers: RemoteWorkers
    health: Health

    def methods(self, calls: trio.Nursery, streams: trio.Nursery) -> list[Method]:
        """Return the table.

        Args:
            calls: Where unary calls run.
            streams: Where streams run.
        """
        return [
            *self._job_methods(calls, streams),
            *self._queue_methods(calls),
            *self._schedule_methods(calls),
            *self._admin_methods(calls, streams),
            DuplexMethod(f"/{WORKERS}/Connect", worker_pb.ConnectRequest, streams, self.workers.connect),
            UnaryMethod(f"/{HEALTH}/Check", health_pb2.HealthCheckRequest, calls, self.health.check),
            # It ends by itself when the server stops, having said so.
            StreamMethod(f"/{HEALTH}/Watch", health_pb2.HealthCheckRequest, calls, self.health.watch),
        ]

    def _job_methods(self, calls: trio.Nursery, streams: trio.Nursery) -> list[Method]:
        path = f"/{JOBS}/"
        jobs, watch = self.jobs, self.watch
        submit: Method = (
            # A traced call needs a context, and so a Trio task, of its own.
            UnaryMethod(path + "SubmitJob", job_pb.SubmitJobRequest, calls, jobs.submit_job)
            if tracing.is_on()
            else BatchedMethod(path + "SubmitJob", job_pb.SubmitJobRequest, calls, jobs.submit_job_batch)
        )
        return [
            submit,
            UnaryMethod(path + "SubmitJobs", job_pb.SubmitJobsRequest, calls, jobs.submit_jobs),
            DuplexMethod(path + "SubmitJobStream", job_stream_pb2.SubmitJobStreamRequest, streams, jobs.submit_job_stream),
            UnaryMethod(path + "GetJob", job_pb.GetJobRequest, calls, jobs.get_job),
            UnaryMethod(path + "ListJobs", job_pb.ListJobsRequest, calls, jobs.list_jobs),
            UnaryMethod(path + "CancelJob", job_pb.CancelJobRequest, calls, jobs.cancel_job),
            UnaryMethod(path + "RetryJob", job_pb.RetryJobRequest, calls, jobs.retry_job),
            UnaryMethod(path + "DeleteJob", job_pb.DeleteJobRequest, calls, jobs.delete_job),
            # It may go on for as long as a stream does, and ends with them when the server stops.
            UnaryMethod(path + "WaitJob", job_pb.WaitJobRequest, streams, watch.wait_job),
            StreamMethod(path + "WatchJobs", job_stream_pb2.WatchJobsRequest, streams, self.watch_jobs.watch_jobs),
            StreamMethod(path + "WatchJob", job_stream_pb2.WatchJobRequest, streams, watch.watch_job),
            AttachedMethod(path + "RunJob", job_stream_pb2.RunJobRequest, streams, self.runs.run_job),
            DuplexMethod(path + "RunNursery", job_stream_pb2.RunNurseryRequest, streams, self.nurseries.run_nursery),
        ]

    def _queue_methods(self, calls: trio.Nursery) -> list[Method]:
        path = f"/{QUEUES}/"
        queues = self.queues
        return [
            UnaryMethod(path + "ListQueues", queue_pb.ListQueuesRequest, calls, queues.list_queues),
            UnaryMethod(path + "GetQueue", queue_pb.GetQueueRequest, calls, queues.get_queue),
            UnaryMethod(path + "PauseQueue", queue_pb.PauseQueueRequest, calls, queues.pause_queue),
            UnaryMethod(path + "ResumeQueue", queue_pb.ResumeQueueRequest, calls, queues.resume_queue),
            UnaryMethod(path + "PurgeQueue", queue_pb.PurgeQueueRequest, calls, queues.purge_queue),
            UnaryMethod(path + "UpdateQueue", queue_pb.UpdateQueueRequest, calls, self.flow.update_queue),
            UnaryMethod(path + "SetRateLimit", queue_pb.SetRateLimitRequest, calls, self.flow.set_rate_limit),
            UnaryMethod(path + "ListRateLimits", queue_pb.ListRateLimitsRequest, calls, self.flow.list_rate_limits),
        ]

    def _schedule_methods(self, calls: trio.Nursery) -> list[Method]:
        path = f"/{SCHEDULES}/"
        schedules = self.schedules
        return [
            UnaryMethod(path + "CreateSchedule", schedule_pb.CreateScheduleRequest, calls, schedules.create_schedule),
            UnaryMethod(path + "GetSchedule", schedule_pb.GetScheduleRequest, calls, schedules.get_schedule),
            UnaryMethod(path + "ListSchedules", schedule_pb.ListSchedulesRequest, calls, schedules.list_schedules),
            UnaryMethod(path + "UpdateSchedule", schedule_pb.UpdateScheduleRequest, calls, schedules.update_schedule),
            UnaryMethod(path + "DeleteSchedule", schedule_pb.DeleteScheduleRequest, calls, schedules.delete_schedule),
            UnaryMethod(path + "PauseSchedule", schedule_pb.PauseScheduleRequest, calls, schedules.pause_schedule),
            UnaryMethod(path + "ResumeSchedule", schedule_pb.ResumeScheduleRequest, calls, schedules.resume_schedule),
            UnaryMethod(path + "TriggerSchedule", schedule_pb.TriggerScheduleRequest, calls, schedules.trigger_schedule),
            UnaryMethod(path + "ListScheduleTimes", schedule_pb.ListScheduleTimesRequest, calls, schedules.list_schedule_times),
        ]

    def _admin_methods(self, calls: trio.Nursery, streams: trio.Nursery) -> list[Method]:
        path = f"/{ADMIN}/"
        admin, bulk = self.admin, self.bulk
        return [
            UnaryMethod(path + "GetStats", admin_pb.GetStatsRequest, calls, admin.get_stats),
            UnaryMethod(path + "ListWorkers", admin_pb.ListWorkersRequest, calls, admin.list_workers),
            UnaryMethod(path + "DrainWorker", admin_pb.DrainWorkerRequest, calls, admin.drain_worker),
            UnaryMethod(path + "ListJobTypes", admin_pb.ListJobTypesRequest, calls, admin.list_job_types),
            UnaryMethod(path + "ListFailedJobs", admin_pb.ListFailedJobsRequest, calls, admin.list_failed_jobs),
            UnaryMethod(path + "RequeueFailedJobs", admin_pb.RequeueFailedJobsRequest, calls, admin.requeue_failed_jobs),
            UnaryMethod(path + "ListBreakers", admin_pb.ListBreakersRequest, calls, self.flow.list_breakers),
            UnaryMethod(path + "UpdateBreaker", admin_pb.UpdateBreakerRequest, calls, self.flow.update_breaker),
            StreamMethod(path + "AuditJobs", admin_pb.AuditJobsRequest, streams, admin.audit_jobs),
            UnaryMethod(path + "StartBulkOperation", admin_pb.StartBulkOperationRequest, calls, bulk.start_bulk_operation),
            UnaryMethod(path + "GetBulkOperation", admin_pb.GetBulkOperationRequest, calls, bulk.get_bulk_operation),
            UnaryMethod(path + "ListBulkOperations", admin_pb.ListBulkOperationsRequest, calls, bulk.list_bulk_operations),
            UnaryMethod(path + "CancelBulkOperation", admin_pb.CancelBulkOperationRequest, calls, bulk.cancel_bulk_operation),
        ]
